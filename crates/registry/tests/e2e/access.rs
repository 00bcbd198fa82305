//! Access control and TLS as `registry init` makes them, with the lines that people type.
//!
//! Everybody has a home of their own and shares a machine with one Docker engine. That machine's
//! `/etc/docker` is a folder of the test: nothing is left in the real one.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::Value;
use tempfile::TempDir;
use testkit::command::{self, Outcome, tool, tool_seeing};
use testkit::engine::Engine;
use testkit::image::Image;
use testkit::server::{Server, Setup};

use crate::REGISTRY;

/// What a client says that does not know the authority.
const UNTRUSTED: &str = "x509: certificate signed by unknown authority";

/// A machine with a registry that was made by `registry init`, an engine, and an image to push.
struct Machine {
    engine: Engine,
    server: Server,
    /// The address of an interface that Docker does not take for the machine's own, if there is one.
    address: Option<String>,
    dir: TempDir,
}

impl Machine {
    fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("machine-").tempdir().expect("create a temp dir");
        let data = dir.path().join("registry");
        let password = dir.path().join("admin-password");
        let mut init = tool(REGISTRY);
        init.arg("init").arg(&data).args(["--format", "json", "--addr", ":1", "--password-file"]).arg(&password);
        let made = command::run(init).ok().stdout;
        let made: Value = serde_json::from_str(&made).expect("init prints JSON");
        let names = made["authority"]["names"].as_array().expect("a certificate has names");
        let is_outer = |name: &&str| name.parse().is_ok_and(|ip: std::net::Ipv4Addr| !ip.is_loopback());
        let address = names.iter().filter_map(Value::as_str).find(is_outer).map(str::to_owned);
        let config = fs::read_to_string(data.join("config.yml")).expect("init has written it");
        let config = config.replace("addr: \":1\"", "addr: \":{port}\"");
        let server = Setup::new(REGISTRY, &config).data(&data).probe_log().start();
        let engine = Engine::start();
        engine.client().load(&Image::busybox(), "busybox:latest");
        Self { engine, server, address, dir }
    }

    /// Somebody without any credentials.
    fn person(&self) -> Person<'_> {
        let home = tempfile::Builder::new().prefix("home-").tempdir().expect("create a temp dir");
        let (root, run) = (home.path().join("storage"), home.path().join("run"));
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            root.display(),
            run.display()
        );
        fs::write(home.path().join("storage.conf"), storage).expect("write storage.conf");
        fs::create_dir(home.path().join("bin")).expect("create a folder");
        symlink(REGISTRY, home.path().join("bin/registry")).expect("link the program");
        Person { machine: self, home }
    }

    /// The operator, who has everybody here trust the registry, and is logged in.
    #[track_caller]
    fn operator(&self) -> Person<'_> {
        let operator = self.person();
        operator.types("registry trust $H --install && docker login $H -u admin --password-stdin < $ADMIN");
        operator
    }

    /// A user with password and login on this machine.
    #[track_caller]
    fn user(&self, operator: &Person<'_>, name: &str) -> Person<'_> {
        let person = self.person();
        let password = person.home.path().join("password");
        fs::write(&password, format!("the password of {name}\n")).expect("write the password");
        operator.types(&format!("registry user add {name} --password-file {}", password.display()));
        person.types(&format!("docker login $H -u {name} --password-stdin < ~/password"));
        person
    }
}

/// Somebody at a terminal of the machine.
struct Person<'a> {
    machine: &'a Machine,
    home: TempDir,
}

impl Person<'_> {
    /// Runs a line of shell, whatever comes of it. `$H` is the registry by name, `$PORT` its port,
    /// `$ADMIN` the file with the administrator's password.
    #[track_caller]
    fn tries(&self, line: &str) -> Outcome {
        let Machine { engine, server, dir, .. } = self.machine;
        let home = |name: &str| self.home.path().join(name);
        let mut command = tool_seeing(&engine.etc_docker(), "sh");
        let path = std::env::var("PATH").expect("there is a PATH");
        command.env("PATH", format!("{}:{path}", home("bin").display())).env("HOME", self.home.path());
        command.env("DOCKER_HOST", engine.host()).env_remove("DOCKER_CONFIG").env_remove("DOCKER_CONTEXT");
        command.env("CONTAINERS_STORAGE_CONF", home("storage.conf")).env("XDG_RUNTIME_DIR", self.home.path());
        command.env_remove("REGISTRY_AUTH_FILE").env_remove("XDG_CONFIG_HOME");
        command.env("REGISTRY_CONFIGURATION_PATH", server.config());
        command.env("ADMIN", dir.path().join("admin-password"));
        command.env("PORT", server.port()).env("H", format!("localhost:{}", server.port()));
        command.args(["-c", line]);
        command::run(command)
    }

    /// Runs a line that has to work; returns what it printed.
    #[track_caller]
    fn types(&self, line: &str) -> String {
        self.tries(line).ok().text()
    }

    /// Runs a line that has to fail, saying `reason`, in which `{H}` stands for the registry by name.
    #[track_caller]
    fn fails(&self, line: &str, reason: &str) {
        let host = format!("localhost:{}", self.machine.server.port());
        self.tries(line).refused(&[&reason.replace("{H}", &host)]);
    }
}

#[test]
fn docker_podman_and_skopeo_by_name_and_by_address() {
    let machine = Machine::start();
    let operator = machine.person();
    // Docker trusts whatever answers on the machine's own addresses; nobody else does.
    let hosts = ["localhost", "127.0.0.1"].into_iter().chain(machine.address.as_deref());
    for (host, is_own) in hosts.map(|host| (host, host == "localhost" || host == "127.0.0.1")) {
        let check = |line: &str| operator.types(&line.replace("$R", &format!("{host}:$PORT")));
        let untrusted = |line: &str| operator.fails(&line.replace("$R", &format!("{host}:$PORT")), UNTRUSTED);
        if !is_own {
            untrusted("docker login $R -u admin --password-stdin < $ADMIN");
        }
        untrusted("skopeo inspect docker://$R/team/api");
        untrusted("podman login $R -u admin --password-stdin < $ADMIN");

        check("registry trust $R --install");
        let login = check("docker login $R -u admin --password-stdin < $ADMIN");
        assert!(login.contains("Login Succeeded"), "{login}");
        let push = check("docker tag busybox $R/team/api && docker push $R/team/api && docker rmi $R/team/api");
        assert!(push.contains("digest: sha256:"), "{push}");
        check("docker pull $R/team/api && docker rmi $R/team/api");
        check("docker logout $R");

        check("podman login $R -u admin --password-stdin < $ADMIN");
        check("podman pull $R/team/api && podman push $R/team/api $R/team/pod && podman logout $R");
        check("skopeo login $R -u admin --password-stdin < $ADMIN");
        check("skopeo copy docker://$R/team/pod docker://$R/team/copy && skopeo delete docker://$R/team/copy");
        let tags = check("skopeo list-tags docker://$R/team/pod && skopeo logout $R");
        assert!(tags.contains("\"latest\""), "{tags}");
        check("registry trust $R --remove");
    }
    if machine.address.is_none() {
        eprintln!("note: this machine has only its own addresses, where Docker trusts every certificate");
    }
}

#[test]
fn docker_podman_and_skopeo_say_which_right_is_missing() {
    let machine = Machine::start();
    let operator = machine.operator();
    operator.types("docker tag busybox $H/team/api:1 && docker push $H/team/api:1");
    let bob = machine.user(&operator, "bob");
    let stranger = machine.person();
    let denied =
        |right: &str, name: &str| format!("denied: bob lacks the right to {right} on {name}; ask admin for it");
    let login = |right: &str, name: &str| {
        format!("denied: log in first, with the right to {right} on {name}: docker login {{H}}")
    };

    // The same is said of what is there and of what is not.
    for name in ["team/api", "team/none"] {
        operator.types(&format!("docker tag busybox $H/{name}:1"));
        for client in ["docker", "podman"] {
            let pull = format!("{client} pull $H/{name}:1");
            bob.fails(&pull, &denied("pull", name));
            stranger.fails(&pull, &login("pull", name));
        }
        let push = format!("docker push $H/{name}:1");
        bob.fails(&push, &denied("push", name));
        stranger.fails(&push, &login("push", name));
        let inspect = format!("skopeo inspect docker://$H/{name}:1");
        bob.fails(&inspect, &denied("pull", name));
        stranger.fails(&inspect, &login("pull", name));
        // The image's configuration is a blob of the first. A bare question whether one is there gets
        // a no that leads on to a refusal with words; see `api::sayable`.
        let blob = format!("https://$H/v2/{name}/blobs/$(docker image inspect --format '{{{{.Id}}}}' busybox)");
        let curl = "curl -sk -o /dev/null -w '%{http_code}' -u \"bob:$(cat ~/password)\"";
        for (method, status) in [("--head", "404"), ("", "403")] {
            assert_eq!(bob.types(&format!("{curl} {method} {blob}")), status, "{name} {method}");
        }
    }

    // Who may pull is refused at another step of a push, where the layers are there already.
    operator.types("registry grant add user:bob 'team/*' pull && registry grant add anonymous 'public/**' pull");
    bob.types("docker pull $H/team/api:1");
    bob.fails("docker push $H/team/api:1", &denied("push", "team/api"));
    bob.types("podman pull $H/team/api:1");
    bob.fails("podman push $H/team/api:1", &denied("push", "team/api"));
    bob.fails("skopeo copy docker://$H/team/api:1 docker://$H/other/api:1", &denied("push", "other/api"));
    bob.fails("skopeo delete docker://$H/team/api:1", "bob lacks the right to delete on team/api; ask admin for it");
    operator.types("docker tag busybox $H/public/base:1 && docker push $H/public/base:1");
    stranger.fails("docker push $H/public/base:1", &login("push", "public/base"));
    stranger.types("podman pull $H/public/base:1");
    stranger.fails("podman push $H/public/base:1", &login("push", "public/base"));
    // It asks for a layer first, and ends there.
    stranger.fails("podman push $H/public/base:1 $H/team/api:1", &login("pull", "team/api"));

    // Felt by the next request: no new login is needed, and none helps.
    operator.types("registry grant add user:bob 'team/*' push");
    bob.types("docker push $H/team/api:1 && podman push $H/team/api:1");
    operator.types("registry user disable bob");
    let ended = "unknown user, wrong password, or a token or secret that has ended";
    bob.fails("docker push $H/team/api:1", ended);
    bob.fails("podman push $H/team/api:1", ended);
    bob.fails("docker login $H -u bob --password-stdin < ~/password", ended);
    operator.types("registry user enable bob");
    bob.types("docker push $H/team/api:1");
    operator.fails("registry grant explain user:bob other/api push", "bob may not push other/api, because no rule");

    let audit = machine.server.data().join("roadstead/audit");
    let audit = fs::read_dir(audit).expect("there is an audit log").map(|file| file.expect("read the folder").path());
    let audit: String = audit.map(|file| fs::read_to_string(file).expect("read the audit log")).collect();
    for secret in [
        "the password of bob",
        fs::read_to_string(machine.dir.path().join("admin-password")).expect("it is there").trim(),
    ] {
        assert!(!audit.contains(secret) && !machine.server.log().contains(secret), "a password is in a log");
    }
}

#[test]
fn docker_podman_and_skopeo_pull_what_everybody_may() {
    let machine = Machine::start();
    let operator = machine.operator();
    operator.types("registry grant add anonymous 'public/**' pull");
    for name in ["public/base", "public/deep/base", "private/base"] {
        operator.types(&format!("docker tag busybox $H/{name} && docker push $H/{name} && docker rmi $H/{name}"));
    }
    let (bob, stranger) = (machine.user(&operator, "bob"), machine.person());
    for person in [&stranger, &bob] {
        for name in ["public/base", "public/deep/base"] {
            person.types(&format!("docker pull $H/{name} && docker rmi $H/{name}"));
            person.types(&format!("podman pull $H/{name} && skopeo inspect docker://$H/{name}"));
        }
        for client in ["docker pull $H/", "podman pull $H/", "skopeo inspect docker://$H/"] {
            person.fails(&format!("{client}private/base"), "denied: ");
        }
    }
}

#[test]
fn docker_logs_in_with_a_secret_a_token_and_a_script() {
    let machine = Machine::start();
    let operator = machine.operator();
    operator.types("docker tag busybox $H/team/api:1 && docker tag busybox $H/other:1");
    let secret = |line: &str, to: &Person<'_>, name: &str| {
        fs::write(to.home.path().join(name), operator.tries(line).ok().stdout).expect("write the secret");
    };

    let ci = machine.person();
    secret("registry robot create ci --allow 'team/*:push'", &ci, "secret");
    let script = "#!/bin/sh\nset -eu\ndocker login --username ci --password-stdin \"$H\" < ~/secret\n\
                  docker push \"$H/team/api:1\"\ndocker logout \"$H\"\n";
    fs::write(ci.home.path().join("publish.sh"), script).expect("write the script");
    ci.types("sh ~/publish.sh");
    ci.types("docker login -u ci --password-stdin $H < ~/secret");
    ci.fails("docker push $H/other:1", "denied: ci lacks the right to push on other; ask admin for it");
    // Rotated with overlap, the old secret and what was made of it work on; without, they end.
    secret("registry robot rotate ci", &ci, "second");
    ci.types("docker push $H/team/api:1 && sh ~/publish.sh");
    secret("registry robot rotate ci --overlap 0s", &ci, "third");
    for (name, works) in [("secret", false), ("second", false), ("third", true)] {
        let login = ci.tries(&format!("docker login -u ci --password-stdin $H < ~/{name}"));
        assert_eq!(login.success, works, "{name}: {login}");
    }
    operator.types("registry robot revoke ci");
    ci.fails("docker push $H/team/api:1", "a token or secret that has ended");

    // A token that the registry made, and the one that docker keeps.
    let bob = machine.user(&operator, "bob");
    operator.types("registry grant add user:bob 'team/*' push");
    secret("registry user token bob --label laptop", &bob, "token");
    bob.types(r#"sed -n 's/.*"identitytoken": "\(.*\)".*/\1/p' ~/.docker/config.json > ~/pasted && test -s ~/pasted"#);
    for file in ["token", "pasted"] {
        bob.types(&format!("docker logout $H && docker login $H -u bob --password-stdin < ~/{file}"));
        bob.types("docker push $H/team/api:1");
        bob.fails(&format!("docker login $H -u admin --password-stdin < ~/{file}"), "unauthorized: ");
    }
}

#[test]
fn podman_takes_the_login_of_docker() {
    let machine = Machine::start();
    let operator = machine.operator();
    let bob = machine.user(&operator, "bob");
    operator.types("registry user add alice --password-file $ADMIN");
    operator.types("registry grant add user:bob 'bobs/*' push && registry grant add user:alice 'hers/*' push");
    bob.types("docker tag busybox $H/bobs/x && docker push $H/bobs/x");
    bob.types("podman pull $H/bobs/x && podman push $H/bobs/x $H/bobs/y");
    // What the guide says to do to be somebody else in podman.
    bob.fails("podman login $H -u alice --password-stdin < $ADMIN", "auth file contains an Identity token");
    bob.types("docker logout $H && podman login $H -u alice --password-stdin < $ADMIN");
    bob.types("docker login $H -u bob --password-stdin < ~/password");
    bob.types("podman push $H/bobs/x $H/hers/x && docker push $H/bobs/x");
    bob.fails("podman push $H/bobs/x", "alice lacks the right to push on bobs/x");
    bob.types("podman login $H -u alice --password-stdin < $ADMIN");
}

#[test]
fn docker_stays_logged_in_over_a_new_key_and_a_restart() {
    let mut machine = Machine::start();
    let home = {
        let operator = machine.operator();
        operator.types("docker tag busybox $H/team/api:1 && registry key rotate");
        operator.types("docker push $H/team/api:1");
        operator.home
    };
    machine.server.restart();
    let operator = Person { machine: &machine, home };
    operator.types("docker push $H/team/api:1 && docker rmi $H/team/api:1 && docker pull $H/team/api:1");
    operator.types("registry key rotate && docker push $H/team/api:1 && podman pull $H/team/api:1");
}

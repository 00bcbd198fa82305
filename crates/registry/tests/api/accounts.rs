//! The account commands and `init`, over the real program: without a server, and beside one.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tempfile::TempDir;
use testkit::{
    command::{Outcome, run, tool},
    process::{Process, wait_until},
};

use crate::REGISTRY;

/// A registry that `init` made, with an address that nobody has.
struct Made {
    dir: TempDir,
    addr: String,
    answer: Value,
}

impl Made {
    #[track_caller]
    fn new(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("create a temp dir");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = free.local_addr().expect("an address").to_string();
        let root = dir.path().join("registry");
        let args = [&["init", text(&root), "--addr", &addr, "--format", "json"], more].concat();
        let answer = json(&command(&args, None).ok());
        Self { dir, addr, answer }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("registry")
    }

    fn config(&self) -> String {
        text(&self.root().join("config.yml")).to_owned()
    }

    /// Runs an account command, written as one line, on this registry.
    fn run(&self, line: &str, input: Option<&str>) -> Outcome {
        let config = self.config();
        let words: Vec<&str> = line.split_whitespace().chain(["--config", &config]).collect();
        command(&words, input)
    }

    /// Fails unless a command goes well; returns its answer.
    #[track_caller]
    fn ask(&self, line: &str) -> Value {
        json(&self.run(&format!("{line} --format json"), None).ok())
    }

    /// Fails unless the command ends with 1 and says all of this in one error.
    #[track_caller]
    fn refused(&self, line: &str, reasons: &[&str]) {
        check_refused(&self.run(line, Some("")), reasons);
    }

    fn serve(&self) -> Process {
        let mut command = tool(REGISTRY);
        command.args(["serve", &self.config()]).env("OTEL_TRACES_EXPORTER", "none");
        let log = self.dir.path().join("log");
        let process = Process::spawn("registry", command, &log, std::time::Duration::from_secs(15));
        let up = wait_until(std::time::Duration::from_secs(30), || process.log().contains("listening on"));
        assert!(up, "the server does not start: {}", process.log());
        process
    }

    fn password(&self) -> &str {
        self.answer["admin"]["password"].as_str().expect("a password was printed")
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temp dirs have plain names")
}

#[track_caller]
fn json(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"))
}

/// Runs the program; `input` is its standard input.
fn command(args: &[&str], input: Option<&str>) -> Outcome {
    let mut file = tempfile::NamedTempFile::new().expect("create a temp file");
    file.write_all(input.unwrap_or_default().as_bytes()).expect("write the input");
    let mut command = tool("sh");
    command.args(["-c", r#"input=$1; shift; exec "$@" <"$input""#, "sh", text(file.path()), REGISTRY]).args(args);
    command.env_remove("REGISTRY_CONFIGURATION_PATH").env_remove("REGISTRY_ADMIN_PASSWORD_FILE");
    run(command)
}

#[track_caller]
fn check_refused(got: &Outcome, reasons: &[&str]) {
    assert_eq!(got.code, Some(1), "{got}");
    let error = got.stderr.lines().last().unwrap_or_default();
    assert!(error.starts_with("registry: error: "), "{got}");
    for reason in reasons {
        assert!(error.contains(reason), "{reason:?} is not said: {got}");
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o777
}

#[test]
fn init_makes_a_registry_once() {
    let made = Made::new(&["--name", "registry.example", "--anonymous-pull"]);
    let root = made.root();
    assert_eq!(made.answer["admin"]["name"], "admin");
    assert!(made.password().len() >= 20);
    assert!(made.answer["authority"]["fingerprint"].as_str().is_some_and(|print| print.starts_with("sha256:")));
    assert!(made.answer["authority"]["names"].to_string().contains("registry.example"));
    assert_eq!((mode(&root), mode(&root.join("config.yml")), mode(&root.join("roadstead"))), (0o700, 0o600, 0o700));
    assert_eq!(command(&["verify-config", &made.config()], None).code, Some(0));
    let everything = || -> Vec<(PathBuf, Vec<u8>)> {
        ["config.yml", "tls/ca.pem", "tls/ca.key", "tls/server.pem", "roadstead/meta.sqlite3"]
            .map(|name| (name.into(), fs::read(root.join(name)).expect("a file of the registry")))
            .into()
    };
    let before = everything();
    for format in ["json", "table"] {
        let again = command(&["init", text(&root), "--format", format], None).ok();
        assert!(!again.text().contains(made.password()) && !again.stdout.contains("password   "), "{again}");
        assert!(again.stdout.contains(if format == "json" { "\"initialised\":false" } else { "nothing was changed" }));
    }
    assert!(everything() == before, "a second init changed something");
    let grants = made.ask("grant list");
    assert_eq!(grants["grants"][0]["subject"], "user:admin");
    assert_eq!(grants["grants"][1]["subject"], "anonymous");
    assert_eq!(made.ask("key list")["keys"].as_array().map(Vec::len), Some(1));
}

#[test]
fn init_says_what_to_keep() {
    let dir = tempfile::tempdir().expect("create a temp dir");
    let root = dir.path().join("a registry");
    let said = command(&["init", text(&root), "--admin", "root"], None).ok().stdout;
    for part in [
        "user         root",
        "password     ",
        "authority    sha256:",
        "registry trust localhost:5000 --install",
        "docker login localhost:5000 -u root",
        "docker push localhost:5000/busybox",
        "/a registry/config.yml'",
    ] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    let file = dir.path().join("password");
    let root = dir.path().join("other");
    let plain = command(&["init", text(&root), "--no-tls", "--password-file", text(&file)], None).ok().stdout;
    let password = fs::read_to_string(&file).expect("the password's file");
    assert!(!plain.contains(password.trim()) && !plain.contains("trust"), "{plain}");
    assert_eq!(mode(&file), 0o600);
    let config = fs::read_to_string(root.join("config.yml")).expect("the configuration");
    assert!(config.contains("\"127.0.0.1:5000\"") && !config.contains("authority"), "{config}");
}

#[test]
fn init_goes_on_where_it_was_interrupted() {
    let made = Made::new(&[]);
    let root = made.root();
    let config = fs::read(root.join("config.yml")).expect("the configuration");
    let authority = fs::read(root.join("tls/ca.pem")).expect("the authority");
    // The last step was not reached, and perhaps nobody saw the password.
    fs::remove_file(root.join("config.yml")).expect("remove the configuration");
    fs::write(root.join(".config.yml.77.new"), "half").expect("write a left-over");
    let again = json(&command(&["init", text(&root), "--addr", &made.addr, "--format", "json"], None).ok());
    assert_ne!(again["admin"]["password"], made.answer["admin"]["password"]);
    assert!(again["admin"]["password"].is_string());
    assert_eq!(fs::read(root.join("config.yml")).expect("the configuration"), config);
    assert_eq!(fs::read(root.join("tls/ca.pem")).expect("the authority"), authority);
    assert_eq!(made.ask("user list")["users"].as_array().map(Vec::len), Some(1));
    assert_eq!(made.ask("grant list")["grants"].as_array().map(Vec::len), Some(1));
    // Where there are others, nobody's password is changed.
    made.run("user add alice --generate", None).ok();
    fs::remove_file(root.join("config.yml")).expect("remove the configuration");
    let third = json(&command(&["init", text(&root), "--format", "json"], None).ok());
    assert!(third["admin"].is_null(), "{third}");
    // A password that is there is used, whoever wrote it.
    let file = made.dir.path().join("password");
    fs::write(&file, "correct horse\n").expect("write the password");
    let other = made.dir.path().join("other");
    command(&["init", text(&other), "--password-file", text(&file)], None).ok();
    assert_eq!(fs::read_to_string(&file).expect("the file"), "correct horse\n");
}

#[test]
fn init_gives_accounts_to_a_registry_without() {
    for auth in ["auth: {roadstead: {}}", ""] {
        let dir = tempfile::tempdir().expect("create a temp dir");
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: ':5007'}}\n{auth}\n",
            dir.path().join("data").display()
        );
        fs::write(&config, &text).expect("write a configuration");
        let list = ["user", "list", "--config", self::text(&config)];
        check_refused(&command(&list, None), &["has no accounts", "registry init"]);
        let init = ["init", self::text(dir.path()), "--format", "json"];
        let answer = json(&command(&init, None).ok());
        assert!(answer["admin"]["password"].is_string() && answer["authority"].is_null(), "{answer}");
        assert_eq!(answer["registry"], "localhost:5007");
        assert_eq!(fs::read_to_string(&config).expect("the configuration"), text);
        assert!(command(&list, None).ok().stdout.contains("admin"));
        assert_eq!(json(&command(&init, None).ok())["initialised"], false);
    }
}

#[test]
fn init_leaves_other_things_alone() {
    let dir = tempfile::tempdir().expect("create a temp dir");
    let check = |make: &dyn Fn(&Path), args: &[&str], reasons: &[&str]| {
        let root = tempfile::tempdir_in(dir.path()).expect("create a temp dir").keep();
        make(&root);
        let before = fs::read_dir(&root).map_or(0, Iterator::count);
        check_refused(&command(&[&["init", text(&root)], args].concat(), None), reasons);
        assert_eq!(fs::read_dir(&root).map_or(0, Iterator::count), before, "something was made");
    };
    let file = |name: &'static str, content: &'static str| {
        move |root: &Path| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().expect("it is in the directory")).expect("make a directory");
            fs::write(path, content).expect("write a file");
        }
    };
    check(&file("notes.txt", "x"), &[], &["holds other things: `notes.txt`", "hint"]);
    check(
        &file("docker/registry/v2/repositories/a/_manifests/x", "x"),
        &[],
        &["images of another registry server", "registry adopt"],
    );
    let open = "version: 0.1\nstorage: {filesystem: {rootdirectory: /x}}\nhttp: {addr: ':5000'}\nauth: {none: {}}\n";
    check(&file("config.yml", open), &[], &["without accounts", "auth: {roadstead: {}}"]);
    check(&file("config.yml", "{["), &[], &["no configuration that works", "verify-config"]);
    check(&|_| {}, &["--addr", "nonsense"], &["--addr nonsense"]);
    let short = dir.path().join("short");
    fs::write(&short, "short\n").expect("write a password");
    let got = command(&["init", text(&dir.path().join("new")), "--password-file", text(&short)], None);
    check_refused(&got, &["password file", "shorter than"]);
    let usage = command(&["init", "--name", "https://x"], None);
    assert_eq!(usage.code, Some(2), "{usage}");
}

#[test]
fn orders_are_carried_out_without_a_server() {
    let made = Made::new(&["--no-tls"]);
    orders(&made);
    assert!(made.root().join("roadstead/audit/audit.log").exists(), "nothing was written down");
}

#[test]
fn orders_are_carried_out_by_the_server_that_runs() {
    let made = Made::new(&["--no-tls"]);
    let _server = made.serve();
    orders(&made);
}

#[test]
fn orders_go_over_tls_to_a_server_that_is_named() {
    let made = Made::new(&[]);
    let _server = made.serve();
    let (url, ca) = (format!("https://{}", made.addr), made.root().join("tls/ca.pem"));
    let password = made.password().to_owned();
    let send = |line: &str, more: &[&str], input: &str| {
        let login = ["--server", &url, "--login-password-file", "-", "--format", "json"];
        let words: Vec<&str> = line.split_whitespace().chain(login).chain(more.iter().copied()).collect();
        command(&words, Some(input))
    };
    let trusted = ["--ca", text(&ca)];
    // The first line of standard input is the administrator's, the second the new password.
    let both = format!("{password}\ncorrect horse\n");
    assert_eq!(json(&send("user add alice", &trusted, &both).ok())["user"]["name"], "alice");
    assert_eq!(json(&send("user list", &trusted, &password).ok())["users"].as_array().map(Vec::len), Some(2));
    // Users may do for themselves what is theirs.
    let own = [&trusted[..], &["--login", "alice"]].concat();
    let token = json(&send("user token alice", &own, "correct horse").ok());
    assert!(token["token"].is_string(), "{token}");
    check_refused(&send("user token admin", &own, "correct horse"), &["administrator"]);
    check_refused(&send("user list", &[], &password), &["UnknownIssuer", "--ca FILE", "registry trust"]);
    check_refused(&send("user list", &trusted, "wrong password"), &["does not know this name with this password"]);
    check_refused(&send("user list", &trusted, ""), &["password"]);
    let plain = url.replace("https", "http");
    let words = ["user", "list", "--server", &plain, "--login-password-file", "-"];
    check_refused(&command(&words, Some(&password)), &["TLS", "https"]);
    // Whatever was done, nothing of it is in a log.
    let audit = fs::read_to_string(made.root().join("roadstead/audit/audit.log")).expect("the audit log");
    let log = fs::read_to_string(made.dir.path().join("log")).expect("the log");
    for secret in [&password, "correct horse", token["token"].as_str().expect("a token")] {
        assert!(!audit.contains(secret) && !log.contains(secret), "a secret is in a log");
    }
    assert!(audit.contains("user-add") && audit.contains("user:admin"), "{audit}");
}

/// All commands, on a registry that has only an administrator.
fn orders(made: &Made) {
    let user = made.ask("user add alice --description tester --generate");
    assert!(user["password"].is_string() && user["user"]["name"] == "alice", "{user}");
    let said = made.run("user add bob", Some("correct horse\nmore\n")).ok();
    assert!(said.stdout.contains("user `bob` was made") && !said.text().contains("horse"), "{said}");
    let file = made.dir.path().join("secret");
    fs::write(&file, "battery staple\r\n").expect("write a password");
    made.run(&format!("user passwd bob --password-file {}", text(&file)), None).ok();
    made.run("user passwd bob --password-file -", Some("correct horse")).ok();
    let made_password = made.run("user passwd bob --generate", None).ok();
    assert_eq!(made_password.stdout.lines().count(), 1, "{made_password}");
    assert!(made_password.stdout.trim().len() >= 20 && made_password.stderr.contains("shown only now"));
    // The secret is alone on standard output.
    let robot = made.run("robot create ci --allow team/*:push,delete --allow base:pull --expires 90d", None).ok();
    assert!(robot.stdout.starts_with("rsk_") && robot.stdout.lines().count() == 1, "{robot}");
    assert!(robot.stderr.contains("robot `ci` was made") && robot.stderr.contains("until"), "{robot}");
    let rotated = made.run("robot rotate ci --overlap 1h", None).ok();
    assert!(rotated.stdout.starts_with("rsk_") && rotated.stdout != robot.stdout, "{rotated}");
    let token = made.ask("user token alice --label laptop --expires 12h");
    assert!(token["token"].as_str().is_some_and(|token| token.starts_with("rsk_")), "{token}");
    assert_eq!(made.ask("user revoke-tokens alice")["revoked"], 1);
    made.ask("group add dev");
    assert_eq!(made.ask("group join dev user:alice")["group"]["members"][0], "user:alice");
    made.ask("group join dev robot:ci");
    assert!(made.run("group list", None).ok().stdout.contains("user:alice, robot:ci"));
    let rule = made.ask("grant add group:dev web/** push")["grant"]["rule"].clone();
    let explained = made.run("grant explain user:alice web/a/b pull", None).ok();
    assert!(explained.stdout.contains(&format!("allowed: user:alice may pull web/a/b, by rule {rule}")), "{explained}");
    let refused = made.run("grant explain user:alice web/a delete", None);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stdout.contains("refused: ") && refused.stdout.contains("admin"), "{refused}");
    assert_eq!(made.ask("grant list --subject robot:ci")["grants"].as_array().map(Vec::len), Some(2));
    assert_eq!(made.ask("grant list --repository team/x")["grants"].as_array().map(Vec::len), Some(2));
    made.ask("group leave dev robot:ci");
    made.ask("user disable alice");
    let disabled = made.run("grant explain user:alice web/a pull", None);
    assert!(disabled.code == Some(1) && disabled.stdout.contains("disabled"), "{disabled}");
    made.ask("user enable alice");
    made.ask(&format!("grant remove {rule}"));
    made.ask("key rotate");
    assert_eq!(made.ask("key list")["keys"].as_array().map(Vec::len), Some(2));
    // Without a terminal nobody is asked.
    made.ask("robot revoke ci");
    made.ask("group remove dev --yes");
    assert!(made.run("user remove bob", None).ok().stdout.contains("user:bob was removed"));
    let table = made.run("user list", None).ok().stdout;
    assert!(table.starts_with("NAME") && table.contains("alice") && !table.contains("bob"), "{table}");
    // What is refused says why, and what helps.
    made.refused("user add alice --generate", &["there is a user `alice` already", "hint"]);
    made.refused("user disable nobody", &["there is no user `nobody`", "user list"]);
    made.refused("user disable admin", &["nobody would be left", "grant add"]);
    made.refused("user add carol", &["no password came from standard input", "--generate"]);
    made.refused("user add carol --password-file /nowhere", &["/nowhere"]);
    made.refused("grant add users ** admin", &["`admin`", "hint"]);
    made.refused("grant remove 4711", &["there is no rule 4711", "grant list"]);
    check_refused(&made.run("user add carol", Some("short\n")), &["shorter than"]);
}

#[test]
fn slips_of_the_pen_are_usage_errors() {
    for (line, hint) in [
        ("grant add alice ** pull", "user:alice, robot:alice or group:alice"),
        ("grant add user:alice Team pull", "no repository name has"),
        ("grant add user:alice team write", "there are pull, push, delete and admin"),
        ("group join dev alice", "user:alice or robot:alice"),
        ("robot create ci --allow team", "GLOB:RIGHTS"),
        ("robot create ci --expires soon", "90d"),
        ("user ad alice", "add"),
        ("usr list", "user"),
        ("user add Alice", "lower-case"),
        // There is no such option: the command line is for all to see.
        ("user add alice --password secret", "--password-file"),
    ] {
        let got = command(&line.split_whitespace().collect::<Vec<_>>(), None);
        assert_eq!(got.code, Some(2), "{got}");
        assert!(got.stderr.contains(hint), "{hint:?} is not said: {got}");
    }
}

#[test]
fn a_place_without_accounts_is_named() {
    let made = Made::new(&["--no-tls"]);
    let config = fs::read_to_string(made.config()).expect("the configuration");
    let other = made.dir.path().join("other.yml");
    let check = |text: String, reasons: &[&str]| {
        fs::write(&other, text).expect("write the configuration");
        check_refused(&command(&["user", "list", "--config", self::text(&other)], None), reasons);
    };
    check(config.replace("roadstead: {}", "none: {}"), &["has no accounts", "registry init"]);
    let nowhere = made.dir.path().join("nowhere");
    check(config.replace(text(&made.root()), text(&nowhere)), &["has no accounts", "registry init"]);
    assert!(!nowhere.exists(), "looking made something");
    check_refused(&command(&["user", "list", "--config", "/nowhere.yml"], None), &["/nowhere.yml"]);
    // Another process works on the directory, and takes no orders.
    let lock = fs::File::options().write(true).open(made.root().join("roadstead/lock")).expect("the lock");
    lock.lock().expect("take the lock");
    made.refused("user list", &["in use by another registry process", "try again"]);
    check_refused(&command(&["user", "list", "--login", "x"], None), &["--server"]);
}

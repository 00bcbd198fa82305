//! Owns reading containers.

use super::{
    resource::{Surroundings, container_of, is_variable, key_files, object_name, place_of, variables},
    section::{Section, is_absolute},
};
use crate::{
    instance::{Container, KeyVariable, Mount, MountSource, Namespace, PullPolicy},
    path::Rid,
};

/// Options of `docker run` that keywords have, which must not be set behind their backs.
const MANAGED: &[(&str, &str)] = &[
    ("--name", "name"),
    ("--network", "netns"),
    ("--net", "netns"),
    ("--pid", "pidns"),
    ("--ipc", "ipcns"),
    ("--uts", "utsns"),
    ("--hostname", "hostname"),
    ("-h", "hostname"),
    ("--user", "user"),
    ("-u", "user"),
    ("--workdir", "cwd"),
    ("-w", "cwd"),
    ("--volume", "volume_mounts"),
    ("-v", "volume_mounts"),
    ("--mount", "volume_mounts"),
    ("--device", "devices"),
    ("--entrypoint", "entrypoint"),
    ("--env", "environment"),
    ("-e", "environment"),
    ("--privileged", "privileged"),
    ("--rm", "rm"),
    ("--restart", "restart"),
    ("--detach", "detach"),
    ("-d", "detach"),
];

pub(super) fn read(section: &Section<'_>, rid: &Rid, around: &Surroundings<'_>) -> Option<Container> {
    let image = section.required("image").and_then(|value| {
        let fits = !value.text.contains(char::is_whitespace) && !value.text.starts_with('-') && value.text.len() <= 512;
        if !fits {
            section.wrong(value.place, format!("`{}` is no image", value.text), "such as registry:2".to_owned());
        }
        fits.then_some(value.text)
    });
    let (netns, pidns) = (namespace(section, "netns", around), namespace(section, "pidns", around));
    let (ipcns, utsns) = (namespace(section, "ipcns", around), namespace(section, "utsns", around));
    let hostname = section.text("hostname");
    if let Some(value) = &hostname
        && matches!(netns, Namespace::Of(_) | Namespace::Host)
    {
        let hint = "set it for the container that has the network".to_owned();
        section.wrong(value.place, "`hostname` needs a network of the container's own", hint);
    }
    let registry_creds = section.text("registry_creds").and_then(|value| {
        let name = value.text.trim();
        // A path is understood where it means the same.
        let inside =
            name.strip_prefix(&format!("{}/sec/", around.path.namespace)).or_else(|| name.strip_prefix("sec/"));
        object_name(section, "registry_creds", &value, inside.unwrap_or(name))
    });
    let container = Container {
        name: name(section, rid, around)?,
        image: image?,
        pull_policy: match section.choice("image_pull_policy") {
            Some("always") => PullPolicy::Always,
            _ => PullPolicy::Once,
        },
        pull_timeout: section.duration("pull_timeout"),
        command: section.words("command"),
        entrypoint: section.words("entrypoint"),
        run_args: run_args(section),
        detach: section.boolean("detach"),
        rm: section.boolean("rm"),
        netns,
        pidns,
        ipcns,
        utsns,
        hostname: hostname.map(|value| value.text),
        user: section.text("user").map(|value| value.text),
        cwd: section.text("cwd").and_then(|value| section.absolute("cwd", &value)),
        privileged: section.boolean("privileged"),
        interactive: section.boolean("interactive"),
        tty: section.boolean("tty"),
        read_only: section.boolean("read_only"),
        init: section.boolean("init"),
        mounts: mounts(section, around),
        devices: section.words("devices").unwrap_or_default(),
        environment: variables(section, "environment"),
        secrets_environment: key_variables(section, "secrets_environment"),
        configs_environment: key_variables(section, "configs_environment"),
        secrets: key_files(section, "secrets", true),
        configs: key_files(section, "configs", true),
        registry_creds,
        tls: section.tristate("tls"),
    };
    Some(container)
}

/// `[namespace..]name.container.1`: two dots, because one may be part of a name.
fn name(section: &Section<'_>, rid: &Rid, around: &Surroundings<'_>) -> Option<String> {
    let Some(value) = section.text("name") else {
        let namespace = &around.path.namespace;
        let prefix = if namespace.is_root() { String::new() } else { format!("{namespace}..") };
        return Some(format!("{prefix}{}.{}.{}", around.path.name, rid.group(), rid.index()));
    };
    let mut bytes = value.text.bytes();
    let fits = bytes.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && bytes.all(|c| c.is_ascii_alphanumeric() || b"_.-".contains(&c))
        && (2..=128).contains(&value.text.len());
    if !fits {
        let hint = "letters, digits, `_`, `.` and `-`".to_owned();
        section.wrong(value.place, format!("`{}` is no name of a container", value.text), hint);
    }
    fits.then_some(value.text)
}

fn namespace(section: &Section<'_>, keyword: &str, around: &Surroundings<'_>) -> Namespace {
    let Some(value) = section.text(keyword) else { return Namespace::Default };
    match value.text.trim() {
        "host" => Namespace::Host,
        "none" => Namespace::None,
        text if text.contains('#') => {
            container_of(section, keyword, &value, around).map_or(Namespace::Default, Namespace::Of)
        }
        text if keyword == "netns" => Namespace::Named(text.to_owned()),
        text => {
            section.wrong(
                value.place,
                format!("`{keyword}`: `{text}` is nothing to share"),
                "write host or container#N".to_owned(),
            );
            Namespace::Default
        }
    }
}

fn run_args(section: &Section<'_>) -> Vec<String> {
    let words = section.words("run_args").unwrap_or_default();
    for word in &words {
        let option = word.split('=').next().unwrap_or(word);
        if let Some((_, keyword)) = MANAGED.iter().find(|(managed, _)| *managed == option) {
            let place = place_of(section, "run_args");
            section.wrong(place, format!("`run_args`: {option} is what a keyword is for"), format!("set `{keyword}`"));
        }
    }
    words
}

fn key_variables(section: &Section<'_>, keyword: &str) -> Vec<KeyVariable> {
    let Some(value) = section.text(keyword) else { return Vec::new() };
    let mut all = Vec::new();
    for word in section.words(keyword).unwrap_or_default() {
        let parts = word.split_once('=').and_then(|(variable, from)| Some((variable, from.split_once('/')?)));
        match parts {
            Some((variable, (object, key))) if is_variable(variable) && !key.is_empty() => {
                if let Some(object) = object_name(section, keyword, &value, object) {
                    all.push(KeyVariable { variable: variable.to_owned(), object, key: key.to_owned() });
                }
            }
            _ => {
                section.wrong(
                    value.place,
                    format!("`{keyword}`: `{word}` is no VARIABLE=NAME/KEY"),
                    "such as TOKEN=ci/token".to_owned(),
                );
            }
        }
    }
    all
}

fn mounts(section: &Section<'_>, around: &Surroundings<'_>) -> Vec<Mount> {
    let place = place_of(section, "volume_mounts");
    let mut all: Vec<Mount> = Vec::new();
    for word in section.words("volume_mounts").unwrap_or_default() {
        let mut parts = word.splitn(3, ':');
        let (source, destination, options) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        let Some(destination) = destination.filter(|path| is_absolute(path)) else {
            let hint = "write SOURCE:/PATH or SOURCE:/PATH:ro".to_owned();
            section.wrong(place, format!("`volume_mounts`: `{word}` has no absolute destination"), hint);
            continue;
        };
        let Some(source) = mount_source(section, source, around) else { continue };
        let (mut read_only, mut others) = (false, Vec::new());
        for option in options.unwrap_or_default().split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => read_only = true,
                "rw" => read_only = false,
                "z" | "Z" | "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate" | "nocopy" => {
                    others.push(option.to_owned());
                }
                _ => {
                    let hint = "options are ro, rw, z, Z and the propagations".to_owned();
                    section.wrong(place, format!("`volume_mounts`: `{option}` is no option"), hint);
                }
            }
        }
        if all.iter().any(|mount| mount.destination == destination) {
            let hint = "give each its own destination".to_owned();
            section.wrong(place, format!("`volume_mounts`: two mounts on {destination}"), hint);
            continue;
        }
        all.push(Mount { source, destination: destination.to_owned(), read_only, options: others });
    }
    all
}

fn mount_source(section: &Section<'_>, source: &str, around: &Surroundings<'_>) -> Option<MountSource> {
    let place = place_of(section, "volume_mounts");
    if source.starts_with('/') {
        if !is_absolute(source) {
            section.wrong(place, format!("`volume_mounts`: `{source}` goes up"), "remove ..".to_owned());
        }
        return is_absolute(source).then(|| MountSource::Host(source.to_owned()));
    }
    let (volume, path) = source.split_once('/').unwrap_or((source, ""));
    let path = path.trim_matches('/');
    let Some(rid) = around.volumes.get(volume) else {
        let all: Vec<&str> = around.volumes.keys().map(String::as_str).collect();
        let hint = match (super::nearest(volume, all.iter().copied()), all.is_empty()) {
            (Some(near), _) => format!("did you mean {near}?"),
            (None, true) => format!("add a section [volume#1] with name = {volume}"),
            (None, false) => format!("its volumes are {}", all.join(", ")),
        };
        section.wrong(place, format!("`volume_mounts`: the object has no volume `{volume}`"), hint);
        return None;
    };
    if path.split('/').any(|part| part == "..") {
        section.wrong(place, format!("`volume_mounts`: `{source}` leads out of the volume"), "remove ..".to_owned());
        return None;
    }
    Some(MountSource::Volume { rid: rid.clone(), path: path.to_owned() })
}

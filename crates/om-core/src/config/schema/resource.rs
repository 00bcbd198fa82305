//! Owns reading resources other than containers, and what all resources have in common.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    super::{diagnostic::Place, resolve::Value},
    access, container,
    section::{Section, is_absolute},
};
use crate::{
    instance::{Access, App, CniIp, Directory, Expose, KeyFile, LoopDisk, Resource, ResourceKind, VolumeClaim},
    path::{Name, ObjectPath, Rid},
};

/// What a resource may refer to.
pub(super) struct Surroundings<'a> {
    pub(super) path: &'a ObjectPath,
    /// Volumes of the object, by their names.
    pub(super) volumes: &'a BTreeMap<String, Rid>,
    pub(super) containers: &'a BTreeSet<&'a Rid>,
}

/// The longest name of an interface (linux/if.h, IFNAMSIZ less the zero).
const MAX_INTERFACE: usize = 15;

/// Reads one resource; none if something that it needs is missing or wrong, which the section says then.
pub(super) fn read(section: &Section<'_>, rid: &Rid, driver: &str, around: &Surroundings<'_>) -> Option<Resource> {
    let kind = match (rid.group(), driver) {
        ("ip", _) => read_ip(section, around).map(ResourceKind::Cni),
        ("volume", _) => read_volume(section).map(ResourceKind::Volume),
        ("disk", _) => read_loop(section).map(ResourceKind::Loop),
        ("fs", "flag") => Some(ResourceKind::Flag),
        ("fs", _) => read_directory(section).map(ResourceKind::Directory),
        ("container", _) => container::read(section, rid, around).map(Box::new).map(ResourceKind::Container),
        ("app", _) => read_app(section).map(ResourceKind::App),
        // What is said of `sync#i0` is read where it is made.
        _ => None,
    };
    let resource = Resource {
        rid: rid.clone(),
        disable: section.boolean("disable"),
        optional: section.boolean("optional"),
        standby: section.boolean("standby"),
        shared: section.boolean("shared"),
        monitor: section.boolean("monitor"),
        restart: u32::try_from(section.integer("restart", 1000)).unwrap_or(0),
        restart_delay: section.duration("restart_delay"),
        provision: section.boolean("provision"),
        unprovision: section.boolean("unprovision"),
        subset: section.text("subset").map(|value| value.text),
        tags: section.list("tags"),
        start_timeout: section.duration("start_timeout"),
        stop_timeout: section.duration("stop_timeout"),
        kind: kind?,
    };
    Some(resource)
}

/// The resource that every object with more than one node has.
pub(super) fn sync(rid: Rid, disable: bool) -> Resource {
    Resource {
        rid,
        disable,
        optional: true,
        standby: false,
        shared: false,
        monitor: false,
        restart: 0,
        restart_delay: Duration::ZERO,
        provision: false,
        unprovision: false,
        subset: None,
        tags: Vec::new(),
        start_timeout: Duration::from_secs(30),
        stop_timeout: Duration::from_secs(30),
        kind: ResourceKind::Sync,
    }
}

fn read_ip(section: &Section<'_>, around: &Surroundings<'_>) -> Option<CniIp> {
    let network = section.text("network")?.text;
    let netns = match section.text("netns") {
        None => None,
        Some(value) => Some(container_of(section, "netns", &value, around)?),
    };
    let device = section.text("ipdev")?;
    let fits = device.text.len() <= MAX_INTERFACE
        && device.text.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-.".contains(&c))
        && !device.text.starts_with('.');
    if !fits {
        let hint = format!("letters and digits, at most {MAX_INTERFACE}");
        section.wrong(device.place, format!("`{}` is no name of an interface", device.text), hint);
    }
    let exposed = section.text("expose");
    let mut expose = Vec::new();
    for word in exposed.iter().flat_map(|value| value.text.split_whitespace()) {
        match read_expose(word) {
            Some(port) => expose.push(port),
            None => {
                let place = exposed.as_ref().map(|value| value.place).unwrap_or_default();
                section.wrong(
                    place,
                    format!("`expose`: `{word}` is no port"),
                    "such as 5000/tcp or 80/tcp:8080".to_owned(),
                );
            }
        }
    }
    Some(CniIp { network, netns, ipdev: device.text, expose })
}

fn read_expose(word: &str) -> Option<Expose> {
    let (port, rest) = word.split_once('/')?;
    let (protocol, host) = rest.split_once(':').map_or((rest, None), |(protocol, host)| (protocol, Some(host)));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let host_port = match host {
        None => None,
        Some(host) => Some(number(host)?),
    };
    ["tcp", "udp"].contains(&protocol).then_some(())?;
    Some(Expose { port: number(port)?, protocol: protocol.to_owned(), host_port })
}

/// The container that a value names.
pub(super) fn container_of(
    section: &Section<'_>,
    keyword: &str,
    value: &Value,
    around: &Surroundings<'_>,
) -> Option<Rid> {
    let rid = value.text.trim().parse::<Rid>().ok().filter(|rid| around.containers.contains(rid));
    if rid.is_none() {
        let all: Vec<String> = around.containers.iter().map(ToString::to_string).collect();
        let hint = if all.is_empty() { "the object has none".to_owned() } else { format!("it has {}", all.join(", ")) };
        section.wrong(value.place, format!("`{keyword}`: `{}` is no container of this object", value.text), hint);
    }
    rid
}

fn read_volume(section: &Section<'_>) -> Option<VolumeClaim> {
    let name = section.text("name").and_then(|value| object_name(section, "name", &value, &value.text));
    let format = section.boolean("format");
    if !format {
        let place = section.text("format").map(|value| value.place).unwrap_or_default();
        section.wrong(place, "`format = false` needs a pool of devices, and there is none", "leave it out".to_owned());
    }
    let directories = section.text("directories");
    for word in directories.iter().flat_map(|value| value.text.split_whitespace()) {
        if word.split('/').any(|part| part == "..") {
            let place = directories.as_ref().map(|value| value.place).unwrap_or_default();
            section.wrong(place, format!("`directories`: `{word}` leads out of the volume"), "remove ..".to_owned());
        }
    }
    let claim = VolumeClaim {
        name: name?,
        size: section.size("size"),
        access: section.choice("access").and_then(access).unwrap_or(Access::Rwo),
        pool: section.text("pool").map(|value| value.text),
        pool_type: section.text("type").map(|value| value.text),
        format,
        shared: section.boolean("shared"),
        directories: section.list("directories"),
        user: section.text("user").map(|value| value.text),
        group: section.text("group").map(|value| value.text),
        perm: section.mode("perm"),
        dirperm: section.mode("dirperm"),
        configs: key_files(section, "configs", false),
        secrets: key_files(section, "secrets", false),
    };
    Some(claim)
}

fn read_directory(section: &Section<'_>) -> Option<Directory> {
    let path = section.required("path").and_then(|value| section.absolute("path", &value));
    let (user, group) = (section.text("user").map(|v| v.text), section.text("group").map(|v| v.text));
    let perm = section.mode("perm");
    Some(Directory { path: path?, user, group, perm })
}

fn read_loop(section: &Section<'_>) -> Option<LoopDisk> {
    let file = section.required("file").and_then(|value| section.absolute("file", &value));
    let mount_point = section.required("mnt").and_then(|value| section.absolute("mnt", &value));
    let size = section.required("size").and_then(|_| section.size("size"));
    let filesystem = section.choice("filesystem").unwrap_or("ext4").to_owned();
    Some(LoopDisk { file: file?, size: size?, mount_point: mount_point?, filesystem })
}

fn read_app(section: &Section<'_>) -> Option<App> {
    let command = |name: &str| {
        let words = section.words(name)?;
        if words.first().is_some_and(|program| is_absolute(program)) {
            return Some(words);
        }
        let place = section.text(name).map(|value| value.place).unwrap_or_default();
        section.wrong(place, format!("`{name}` begins with no absolute path"), "such as /usr/bin/sleep".to_owned());
        None
    };
    let start = section.required("start").and_then(|_| command("start"));
    let (stop, check) = (command("stop"), command("check"));
    let cwd = section.text("cwd").and_then(|value| section.absolute("cwd", &value));
    let environment = variables(section, "environment");
    Some(App { start: start?, stop, check, user: section.text("user").map(|v| v.text), cwd, environment })
}

/// `NAME=VALUE` words.
pub(super) fn variables(section: &Section<'_>, name: &str) -> Vec<(String, String)> {
    let place = place_of(section, name);
    let mut all = Vec::new();
    for word in section.words(name).unwrap_or_default() {
        match word.split_once('=') {
            Some((variable, value)) if is_variable(variable) => all.push((variable.to_owned(), value.to_owned())),
            _ => section.wrong(
                place,
                format!("`{name}`: `{word}` is no NAME=VALUE"),
                "quote a value with blanks".to_owned(),
            ),
        }
    }
    all
}

pub(super) fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"_.-".contains(&c))
}

pub(super) fn place_of(section: &Section<'_>, name: &str) -> Place {
    section.text(name).map(|value| value.place).unwrap_or_default()
}

/// The name of an object of the same namespace.
pub(super) fn object_name(section: &Section<'_>, keyword: &str, value: &Value, text: &str) -> Option<Name> {
    match text.trim().parse() {
        Ok(name) => Some(name),
        Err(error) => {
            section.wrong(
                value.place,
                format!("`{keyword}`: {error}"),
                "name an object of the same namespace".to_owned(),
            );
            None
        }
    }
}

/// `NAME/KEY:PATH` words; in containers paths are absolute.
pub(super) fn key_files(section: &Section<'_>, keyword: &str, absolute: bool) -> Vec<KeyFile> {
    let Some(value) = section.text(keyword) else { return Vec::new() };
    let mut all = Vec::new();
    for word in section.words(keyword).unwrap_or_default() {
        let split = word.split_once(':').and_then(|(from, path)| Some((from.split_once('/')?, path)));
        match split {
            Some(((object, key), path))
                if !key.is_empty() && !path.is_empty() && !path.split('/').any(|part| part == "..") =>
            {
                if absolute && !path.starts_with('/') {
                    section.wrong(
                        value.place,
                        format!("`{keyword}`: `{path}` is no absolute path"),
                        "begin with /".to_owned(),
                    );
                } else if let Some(object) = object_name(section, keyword, &value, object) {
                    all.push(KeyFile { object, key: key.to_owned(), path: path.to_owned() });
                }
            }
            _ => {
                section.wrong(
                    value.place,
                    format!("`{keyword}`: `{word}` is no NAME/KEY:PATH"),
                    "such as tls/key:/run/key".to_owned(),
                );
            }
        }
    }
    all
}

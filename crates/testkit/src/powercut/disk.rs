//! A file system that loses whatever was not synced, as far as POSIX lets it.
//!
//! **Content.** What a file's `fsync` or `fdatasync` found written before it began is durable once it has returned,
//! with the size. Any later write may be lost, kept, or torn: each sector of 512 bytes by itself; a size may grow
//! without the bytes. **Names.** A directory holds each name in versions: made, replaced by a rename, gone. The version
//! that the directory's last `fsync` found is the oldest that a crash may leave, every later one is possible, each name by
//! itself; syncing a file makes no name durable, and syncing a directory does not make its own name durable in the one
//! above. A rename replaces its target at once; its old name goes only if the new one is there.
//!
//! Orders that real file systems keep beyond that are not relied on. Metadata such as modes and times is not modelled.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::Path;

use crate::random::Random;

use super::trace::{Call, Moment};

/// What a disk writes wholly or not at all.
const SECTOR: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    File(usize),
    Directory(usize),
}

#[derive(Debug)]
enum Edit {
    Write { offset: usize, data: Vec<u8> },
    Resize(usize),
}

#[derive(Debug)]
struct FileChange {
    start: Moment,
    end: Moment,
    edit: Edit,
}

/// A version of a name.
#[derive(Debug)]
struct Version {
    start: Moment,
    end: Moment,
    node: Option<Node>,
    /// For an old name that a rename took away: the new name, which has to be there then.
    instead: Option<(usize, String, usize)>,
}

#[derive(Debug, Clone, Copy)]
struct Sync {
    start: Moment,
    end: Moment,
}

#[derive(Debug, Default)]
struct File {
    changes: Vec<FileChange>,
    syncs: Vec<Sync>,
    size: usize,
}

#[derive(Debug, Default)]
struct Directory {
    names: BTreeMap<String, Vec<Version>>,
    syncs: Vec<Sync>,
}

/// How a crash decides about what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// All of it is lost.
    Lost,
    /// All of it is there, as after a kill.
    Kept,
    /// Names are there, content is not.
    OnlyNames,
    /// Content is there, names are not.
    OnlyContent,
    /// Each write, sector and name by itself, by this seed.
    Chance(u64),
}

/// Everything that happened below a directory.
#[derive(Debug, Default)]
pub struct Disk {
    root: String,
    files: Vec<File>,
    directories: Vec<Directory>,
    /// The moments at which something changed.
    steps: Vec<Moment>,
}

/// What a descriptor stands for, and where the next plain write goes.
#[derive(Debug, Clone, Copy)]
struct Open {
    node: Node,
    position: usize,
    append: bool,
}

/// Which syncs to leave out, to see that a check can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blind {
    /// None.
    No,
    /// Those of files.
    ToFileSyncs,
    /// Those of directories.
    ToDirectorySyncs,
}

impl Disk {
    /// Replays the calls that concern what is below `root`, which is empty and durable at first. Files whose path
    /// `ignored` names are left out.
    ///
    /// # Panics
    /// At calls that the model does not know how to follow.
    pub fn replay(calls: &[Call], root: &str, blind: Blind, ignored: impl Fn(&str) -> bool) -> Self {
        let mut disk = Self { root: root.to_owned(), directories: vec![Directory::default()], ..Self::default() };
        let mut open: HashMap<u64, Open> = HashMap::new();
        // Opens count from their end, all else from its beginning.
        let mut order: Vec<(Moment, usize)> = calls
            .iter()
            .enumerate()
            .map(|(index, call)| {
                let opens = matches!(call.name.as_str(), "open" | "openat" | "openat2" | "creat" | "dup");
                (if opens { call.end } else { call.start }, index)
            })
            .collect();
        order.sort_unstable();
        for (_, index) in order {
            disk.follow(&calls[index], &mut open, blind, &ignored);
        }
        disk.steps.sort_unstable();
        disk.steps.dedup();
        disk
    }

    /// The moments at which something changed, in order.
    pub fn steps(&self) -> &[Moment] {
        &self.steps
    }

    fn follow(&mut self, call: &Call, open: &mut HashMap<u64, Open>, blind: Blind, ignored: &impl Fn(&str) -> bool) {
        let name = call.name.as_str();
        let path = |index: usize| call.path(index).filter(|path| !ignored(path));
        match name {
            "open" | "creat" | "openat" | "openat2" => {
                let at = usize::from(name.starts_with("openat"));
                let opened = path(at).and_then(|path| self.open(call, &path, &call.arguments[at + 1..].join("|")));
                match opened {
                    Some(opened) => open.insert(call.result, opened),
                    // The number may have stood for something else before.
                    None => open.remove(&call.result),
                };
            }
            "dup" | "dup2" | "dup3" => {
                let from = call.number(0).and_then(|fd| open.get(&fd).copied());
                assert!(from.is_none(), "the model does not follow `{name}` of a file");
                open.remove(&call.result);
            }
            "close" => {
                call.number(0).map(|fd| open.remove(&fd));
            }
            "lseek" => {
                if let Some(one) = call.number(0).and_then(|fd| open.get_mut(&fd)) {
                    one.position = call.result as usize;
                }
            }
            "read" => {
                if let Some(one) = call.number(0).and_then(|fd| open.get_mut(&fd)) {
                    one.position += call.result as usize;
                }
            }
            "write" | "writev" => {
                if let Some(one) = call.number(0).and_then(|fd| open.get_mut(&fd))
                    && let Node::File(file) = one.node
                {
                    let offset = if one.append { self.files[file].size } else { one.position };
                    one.position = offset + call.result as usize;
                    self.write(call, file, offset);
                }
            }
            "pwrite64" | "pwritev" | "pwritev2" => {
                if let Some(file) = opened_file(call, open) {
                    self.write(call, file, call.number(3).expect("a position") as usize);
                }
            }
            "ftruncate" => {
                if let Some(file) = opened_file(call, open) {
                    self.resize(call, file, call.number(1).expect("a length") as usize);
                }
            }
            "fsync" | "fdatasync" => {
                let sync = Sync { start: call.start, end: call.end };
                match call.number(0).and_then(|fd| open.get(&fd)).map(|one| one.node) {
                    Some(Node::File(file)) if blind != Blind::ToFileSyncs => self.files[file].syncs.push(sync),
                    Some(Node::Directory(dir)) if blind != Blind::ToDirectorySyncs => {
                        self.directories[dir].syncs.push(sync);
                    }
                    _ => return,
                }
                self.steps.push(call.end);
            }
            "mkdir" | "mkdirat" => {
                if let Some((dir, name)) = path(usize::from(name == "mkdirat")).and_then(|path| self.place(&path)) {
                    self.directories.push(Directory::default());
                    let node = Node::Directory(self.directories.len() - 1);
                    self.set(call, dir, &name, Some(node), None);
                }
            }
            "unlink" | "unlinkat" | "rmdir" => {
                if let Some((dir, name)) = path(usize::from(name == "unlinkat")).and_then(|path| self.place(&path)) {
                    self.set(call, dir, &name, None, None);
                }
            }
            "rename" | "renameat" | "renameat2" | "link" | "linkat" => {
                let (from, to) = if name.len() > 6 || name == "linkat" { (1, 3) } else { (0, 1) };
                self.relink(call, path(from), path(to), name.starts_with("rename"));
            }
            "symlink" | "symlinkat" | "truncate" | "fallocate" | "copy_file_range" | "splice" | "sync" | "syncfs" => {
                panic!("the model does not follow `{name}`");
            }
            "sendfile" => {
                assert!(opened_file(call, open).is_none(), "the model does not follow `sendfile` to a file");
            }
            _ => {}
        }
    }

    fn open(&mut self, call: &Call, path: &str, flags: &str) -> Option<Open> {
        let append = flags.contains("O_APPEND");
        let has = |flag: &str| flags.contains(flag) || call.name == "creat";
        if path == self.root {
            return Some(Open { node: Node::Directory(0), position: 0, append });
        }
        let (dir, name) = self.place(path)?;
        let node = match self.newest(dir, &name) {
            Some(node) => node,
            None if has("O_CREAT") => {
                self.files.push(File::default());
                let node = Node::File(self.files.len() - 1);
                self.set(call, dir, &name, Some(node), None);
                node
            }
            None => return None,
        };
        if let (Node::File(file), true) = (node, has("O_TRUNC"))
            && self.files[file].size > 0
        {
            self.resize(call, file, 0);
        }
        Some(Open { node, position: 0, append })
    }

    /// The directory of a path below the root as it is now, and the name in it.
    fn place(&self, path: &str) -> Option<(usize, String)> {
        let below = path.strip_prefix(&self.root)?.strip_prefix('/')?;
        let mut names: Vec<&str> = below.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
        assert!(!names.contains(&".."), "the model does not follow `{path}`");
        let last = names.pop()?;
        let mut dir = 0;
        for name in names {
            match self.newest(dir, name)? {
                Node::Directory(next) => dir = next,
                Node::File(_) => return None,
            }
        }
        Some((dir, last.to_owned()))
    }

    fn newest(&self, dir: usize, name: &str) -> Option<Node> {
        self.directories[dir].names.get(name)?.last()?.node
    }

    fn set(
        &mut self,
        call: &Call,
        dir: usize,
        name: &str,
        node: Option<Node>,
        instead: Option<(usize, String, usize)>,
    ) -> usize {
        let versions = self.directories[dir].names.entry(name.to_owned()).or_default();
        versions.push(Version { start: call.start, end: call.end, node, instead });
        let number = versions.len();
        self.steps.extend([call.start + 1, call.end + 1]);
        number
    }

    fn relink(&mut self, call: &Call, from: Option<String>, to: Option<String>, moves: bool) {
        let place = |disk: &Self, path: Option<String>| path.and_then(|path| disk.place(&path));
        let (from, to) = (place(self, from), place(self, to));
        let (Some((from_dir, from_name)), Some((to_dir, to_name))) = (from, to) else {
            return;
        };
        let node = self.newest(from_dir, &from_name);
        assert!(node.is_some(), "`{}` of something that the model does not know: {from_name}", call.name);
        let version = self.set(call, to_dir, &to_name, node, None);
        if moves {
            self.set(call, from_dir, &from_name, None, Some((to_dir, to_name, version)));
        }
    }

    fn write(&mut self, call: &Call, file: usize, offset: usize) {
        let mut data = call.bytes(1);
        data.truncate(call.result as usize);
        assert_eq!(data.len() as u64, call.result, "the trace has all bytes of a write");
        let end = offset + data.len();
        self.change(call, file, Edit::Write { offset, data });
        self.files[file].size = self.files[file].size.max(end);
    }

    fn resize(&mut self, call: &Call, file: usize, size: usize) {
        self.change(call, file, Edit::Resize(size));
        self.files[file].size = size;
    }

    fn change(&mut self, call: &Call, file: usize, edit: Edit) {
        self.files[file].changes.push(FileChange { start: call.start, end: call.end, edit });
        self.steps.extend([call.start + 1, call.end + 1]);
    }

    /// Writes what a crash at that moment leaves to an empty directory: what began before it may be there, what was
    /// synced before it is.
    pub fn crash(&self, at: Moment, fate: Fate, target: &Path) -> io::Result<()> {
        let mut random = Random::new(match fate {
            Fate::Chance(seed) => seed,
            _ => 0,
        });
        let mut chosen = self.choose_names(at, fate, &mut random);
        // Where a name went with a rename, its new name is there.
        loop {
            let mut raise = Vec::new();
            for (&(dir, name), &version) in &chosen {
                let versions = &self.directories[dir].names[name];
                for gone in versions.iter().take(version).filter_map(|version| version.instead.as_ref()) {
                    let key = (gone.0, gone.1.as_str());
                    if chosen.get(&key).is_some_and(|there| *there < gone.2) {
                        raise.push(gone);
                    }
                }
            }
            if raise.is_empty() {
                break;
            }
            for (dir, name, version) in raise {
                let there = chosen.entry((*dir, name.as_str())).or_default();
                *there = (*there).max(*version);
            }
        }
        self.lay_out(0, target, &chosen, at, fate, &mut random)
    }

    /// For each name how many of its versions a crash leaves.
    fn choose_names(&self, at: Moment, fate: Fate, random: &mut Random) -> BTreeMap<(usize, &str), usize> {
        let mut chosen = BTreeMap::new();
        for (number, directory) in self.directories.iter().enumerate() {
            let synced = last_sync(&directory.syncs, at);
            for (name, versions) in &directory.names {
                let begun = versions.iter().take_while(|version| version.start < at).count();
                let durable = versions.iter().rposition(|version| is_durable(version.end, at, synced));
                let durable = durable.map_or(0, |index| index + 1).min(begun);
                let left = match fate {
                    Fate::Lost | Fate::OnlyContent => durable,
                    Fate::Kept | Fate::OnlyNames => begun,
                    Fate::Chance(_) => durable + random.below((begun - durable) as u64 + 1) as usize,
                };
                chosen.insert((number, name.as_str()), left);
            }
        }
        chosen
    }

    fn lay_out(
        &self,
        dir: usize,
        target: &Path,
        chosen: &BTreeMap<(usize, &str), usize>,
        at: Moment,
        fate: Fate,
        random: &mut Random,
    ) -> io::Result<()> {
        for (name, versions) in &self.directories[dir].names {
            let left = chosen.get(&(dir, name.as_str())).copied().unwrap_or_default();
            let path = target.join(name);
            match left.checked_sub(1).and_then(|newest| versions[newest].node) {
                None => {}
                Some(Node::File(file)) => fs::write(path, self.files[file].content(at, fate, random))?,
                Some(Node::Directory(inner)) => {
                    fs::create_dir(&path)?;
                    self.lay_out(inner, &path, chosen, at, fate, random)?;
                }
            }
        }
        Ok(())
    }
}

fn opened_file(call: &Call, open: &HashMap<u64, Open>) -> Option<usize> {
    match call.number(0).and_then(|fd| open.get(&fd))?.node {
        Node::File(file) => Some(file),
        Node::Directory(_) => None,
    }
}

/// When the last sync began that had ended at that moment.
fn last_sync(syncs: &[Sync], at: Moment) -> Option<Moment> {
    syncs.iter().filter(|sync| sync.end < at).map(|sync| sync.start).max()
}

fn is_durable(end: Moment, at: Moment, synced: Option<Moment>) -> bool {
    end < at && synced.is_some_and(|start| end < start)
}

impl File {
    fn content(&self, at: Moment, fate: Fate, random: &mut Random) -> Vec<u8> {
        let synced = last_sync(&self.syncs, at);
        let mut bytes = Vec::new();
        for change in self.changes.iter().take_while(|change| change.start < at) {
            let durable = is_durable(change.end, at, synced);
            let kept = match fate {
                _ if durable => true,
                Fate::Kept | Fate::OnlyContent => true,
                Fate::Lost | Fate::OnlyNames => false,
                Fate::Chance(_) => match random.below(3) {
                    0 => true,
                    1 => false,
                    _ => {
                        tear(&mut bytes, &change.edit, random);
                        continue;
                    }
                },
            };
            if kept {
                apply(&mut bytes, &change.edit);
            }
        }
        bytes
    }
}

fn apply(bytes: &mut Vec<u8>, edit: &Edit) {
    match edit {
        Edit::Resize(size) => bytes.resize(*size, 0),
        Edit::Write { offset, data } => {
            let end = offset + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset..end].copy_from_slice(data);
        }
    }
}

/// Applies some sectors of a write; the size may be that of the whole write or reach only as far as they do.
fn tear(bytes: &mut Vec<u8>, edit: &Edit, random: &mut Random) {
    let Edit::Write { offset, data } = edit else {
        return;
    };
    let end = offset + data.len();
    if random.below(3) == 0 && bytes.len() < end {
        bytes.resize(end, 0);
    }
    // Either the first so many sectors, or any.
    let until = if random.below(2) == 0 { offset + random.below(data.len() as u64 + 1) as usize } else { end };
    let scattered = until == end;
    let mut from = *offset;
    while from < end {
        let next = ((from / SECTOR + 1) * SECTOR).min(end);
        if next <= until && (!scattered || random.below(2) == 0) {
            apply(bytes, &Edit::Write { offset: from, data: data[from - offset..next - offset].to_vec() });
        }
        from = next;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::trace::parse;
    use super::*;

    /// Makes a trace of short commands, one a line.
    fn trace(script: &str) -> String {
        let hex = |text: &str| text.bytes().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
        let line = |command: &str| {
            let words: Vec<&str> = command.split_whitespace().collect();
            let path = |index: usize| hex(&format!("/d/{}", words[index]));
            let word = |index: usize| words.get(index).copied().unwrap_or_default();
            match word(0) {
                "creat" => {
                    format!("openat(AT_FDCWD<{}>, \"{}\", O_WRONLY|O_CREAT, 0644) = {}", hex("/"), path(1), word(2))
                }
                "opendir" => format!("openat(AT_FDCWD<{}>, \"{}\", O_RDONLY) = {}", hex("/"), path(1), word(2)),
                "openroot" => format!("openat(AT_FDCWD<{}>, \"{}\", O_RDONLY) = {}", hex("/"), hex("/d"), word(1)),
                "write" => format!("write({}<{}>, \"{}\", 9) = {}", word(1), hex("x"), hex(word(2)), word(2).len()),
                "at" => format!(
                    "pwrite64({}<{}>, \"{}\", 9, {}) = {}",
                    word(1),
                    hex("x"),
                    hex(word(3)),
                    word(2),
                    word(3).len()
                ),
                "cut" => format!("ftruncate({}<{}>, {}) = 0", word(1), hex("x"), word(2)),
                "sync" => format!("fsync({}<{}>) = 0", word(1), hex("x")),
                "mkdir" => format!("mkdir(\"{}\", 0777) = 0", path(1)),
                "unlink" => format!("unlink(\"{}\") = 0", path(1)),
                "rename" => format!("rename(\"{}\", \"{}\") = 0", path(1), path(2)),
                other => panic!("unknown command {other}"),
            }
        };
        script.split(", ").map(|command| format!("1 1.0 {}\n", line(command))).collect()
    }

    fn shown(dir: &Path, prefix: &str, all: &mut Vec<String>) {
        let mut entries: Vec<_> = fs::read_dir(dir).expect("list").map(|entry| entry.expect("an entry")).collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                all.push(format!("{name}/"));
                shown(&entry.path(), &format!("{name}/"), all);
            } else {
                let content = fs::read(entry.path()).expect("read");
                all.push(format!("{name}={}", String::from_utf8_lossy(&content).replace('\0', "0")));
            }
        }
    }

    /// After the whole script: what is left when all is lost, and when all is kept; and whether each state of
    /// `possible` is among those that chance gives, with no others if `exactly`.
    #[track_caller]
    fn check(script: &str, lost: &str, kept: &str, possible: &[&str]) {
        let disk = Disk::replay(&parse(&trace(script)), "/d", Blind::No, |_| false);
        let end = script.split(", ").count();
        let state = |fate: Fate| {
            let dir = tempfile::tempdir().expect("create a temp dir");
            disk.crash(end, fate, dir.path()).expect("lay out");
            let mut all = Vec::new();
            shown(dir.path(), "", &mut all);
            all.join(" ")
        };
        assert_eq!(state(Fate::Lost), lost, "all is lost of {script}");
        assert_eq!(state(Fate::Kept), kept, "all is kept of {script}");
        let seen: BTreeSet<String> = (0..300).map(|seed| state(Fate::Chance(seed))).collect();
        let wanted: BTreeSet<String> = possible.iter().copied().chain([lost, kept]).map(str::to_owned).collect();
        assert_eq!(seen, wanted, "by chance, of {script}");
    }

    #[test]
    fn only_what_was_synced_is_certain() {
        check("creat a 5, write 5 hello", "", "a=hello", &["a=", "a=00000"]);
        // Content without a name is nothing; a name without content is an empty file.
        check("creat a 5, write 5 hello, sync 5", "", "a=hello", &[]);
        check("creat a 5, openroot 6, sync 6, write 5 hello", "a=", "a=hello", &["a=00000"]);
        check("creat a 5, write 5 hello, sync 5, openroot 6, sync 6", "a=hello", "a=hello", &[]);
        // Written after the sync began or without one: old or new.
        check("creat a 5, write 5 one, sync 5, openroot 6, sync 6, at 5 0 two", "a=one", "a=two", &[]);
        check("creat a 5, write 5 one, sync 5, openroot 6, sync 6, cut 5 0", "a=one", "a=", &[]);
    }

    #[test]
    fn a_rename_replaces_at_once_and_is_kept_or_not() {
        let both = "creat a 5, write 5 old, sync 5, creat b 6, write 6 new, sync 6, openroot 7, sync 7";
        check(both, "a=old b=new", "a=old b=new", &[]);
        check(&format!("{both}, rename b a"), "a=old b=new", "a=new", &["a=new b=new"]);
        check(&format!("{both}, rename b a, sync 7"), "a=new", "a=new", &[]);
        check(&format!("{both}, unlink a"), "a=old b=new", "b=new", &[]);
    }

    #[test]
    fn a_name_needs_every_directory_above_it() {
        let made = "mkdir s, creat s/a 5, write 5 x, sync 5, opendir s 6, sync 6";
        check(made, "", "s/ s/a=x", &[]);
        check(&format!("{made}, openroot 7, sync 7"), "s/ s/a=x", "s/ s/a=x", &[]);
        check("mkdir s, openroot 7, sync 7, creat s/a 5", "s/", "s/ s/a=", &[]);
    }

    #[test]
    fn writes_are_torn_at_sectors() {
        let long = "x".repeat(1024);
        let script = format!("creat a 5, openroot 6, sync 6, at 5 0 {long}");
        let disk = Disk::replay(&parse(&trace(&script)), "/d", Blind::No, |_| false);
        let sizes: BTreeSet<(usize, usize)> = (0..500)
            .map(|seed| {
                let dir = tempfile::tempdir().expect("create a temp dir");
                disk.crash(4, Fate::Chance(seed), dir.path()).expect("lay out");
                let bytes = fs::read(dir.path().join("a")).expect("the name is durable");
                (bytes.len(), bytes.iter().filter(|byte| **byte == b'x').count())
            })
            .collect();
        let expected = [(0, 0), (512, 512), (1024, 0), (1024, 512), (1024, 1024)];
        assert_eq!(sizes, expected.into());
    }

    #[test]
    fn a_blind_disk_knows_nothing_durable() {
        let script = "creat a 5, write 5 hello, sync 5, openroot 6, sync 6";
        for (blind, expected) in [(Blind::No, "a=hello"), (Blind::ToFileSyncs, "a="), (Blind::ToDirectorySyncs, "")] {
            let disk = Disk::replay(&parse(&trace(script)), "/d", blind, |_| false);
            let dir = tempfile::tempdir().expect("create a temp dir");
            disk.crash(5, Fate::Lost, dir.path()).expect("lay out");
            let mut all = Vec::new();
            shown(dir.path(), "", &mut all);
            assert_eq!(all.join(" "), expected, "{blind:?}");
        }
    }
}

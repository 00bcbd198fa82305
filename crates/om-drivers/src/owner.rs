//! Owns who has a file: names of users and groups on this node, and giving a file to them. Does not own which files.

use std::{fs, io, os::fd::AsFd};

use om_core::driver::DriverError;
use rustix::fs::{Gid, Mode, Uid, fchmod, fchown};

/// A user, a group and a mode, as a configuration has them; what is none stays as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owner<'a> {
    /// A name or a number.
    pub user: Option<&'a str>,
    /// A name or a number.
    pub group: Option<&'a str>,
    /// Permission bits.
    pub mode: Option<u32>,
}

impl Owner<'_> {
    /// Gives an open file or directory to its owner.
    ///
    /// # Errors
    /// A name that this node does not know, or a filesystem that refuses. `what` names the file.
    pub fn give(&self, file: impl AsFd, what: &str) -> Result<(), DriverError> {
        let user = self.user.map(|user| id(user, "/etc/passwd", "user")).transpose()?;
        let group = self.group.map(|group| id(group, "/etc/group", "group")).transpose()?;
        let file = file.as_fd();
        let given = (|| {
            if user.is_some() || group.is_some() {
                fchown(file, user.map(Uid::from_raw), group.map(Gid::from_raw))?;
            }
            // After the owner: a change of that takes set-id bits away.
            self.mode.map_or(Ok(()), |mode| fchmod(file, Mode::from_raw_mode(mode)))
        })();
        given.map_err(|error| {
            DriverError::failed(format!("set owner and mode of {what}: {}", io::Error::from(error)), None)
        })
    }
}

/// A user of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its number.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
    /// Its directory.
    pub home: String,
}

impl Account {
    /// The account of a name or a number.
    ///
    /// # Errors
    /// This node does not know it.
    pub fn of(user: &str) -> Result<Self, DriverError> {
        const FILE: &str = "/etc/passwd";
        let text =
            fs::read_to_string(FILE).map_err(|error| DriverError::failed(format!("read {FILE}: {error}"), None))?;
        account(&text, user).ok_or_else(|| DriverError::Missing {
            what: format!("user {user} is not in {FILE}"),
            hint: Some("make it on this node: useradd --system NAME".into()),
        })
    }
}

/// The account on the line whose first or third field is `user` (passwd(5)).
fn account(text: &str, user: &str) -> Option<Account> {
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
        (name == user || uid == user)
            .then(|| Some(Account { uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.to_owned() }))?
    })
}

fn id(name: &str, file: &str, kind: &str) -> Result<u32, DriverError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let text = fs::read_to_string(file).map_err(|error| DriverError::failed(format!("read {file}: {error}"), None))?;
    find(&text, name).ok_or_else(|| {
        let hint = format!("make it on this node, or write its number in place of {name}");
        DriverError::Missing { what: format!("{kind} {name} is not in {file}"), hint: Some(hint) }
    })
}

/// The third field of the line whose first is `name` (passwd(5), group(5)).
fn find(text: &str, name: &str) -> Option<u32> {
    let mut lines = text.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_name_and_by_number() {
        let text = "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:34:www:/var/www:/bin/false\nbad:x:no:0\n";
        let check = |user: &str, expected: Option<(u32, u32, &str)>| {
            let found = account(text, user);
            let found = found.as_ref().map(|found| (found.uid, found.gid, found.home.as_str()));
            assert_eq!(found, expected, "{user}");
        };
        check("www-data", Some((33, 34, "/var/www")));
        check("33", Some((33, 34, "/var/www")));
        check("bad", None);
        check("absent", None);
    }

    #[test]
    fn names_are_looked_up() {
        let text = "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33:www:/var/www:/bin/false\nbad:x:no:0\n";
        let check = |name: &str, expected: Option<u32>| assert_eq!(find(text, name), expected, "{name}");
        check("root", Some(0));
        check("www-data", Some(33));
        check("www", None);
        check("bad", None);
        check("", None);
    }
}

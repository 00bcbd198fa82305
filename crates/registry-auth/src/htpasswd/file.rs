//! Owns the htpasswd file: its grammar, its first content, and noticing that it changed.
//!
//! Does not own when a password is checked; see [`super::gate`].

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    prelude::BASE64_URL_SAFE_NO_PAD,
};
use ring::rand::{SecureRandom, SystemRandom};
use tracing::{error, info, warn};

use super::NewUser;
use crate::{SetupError, fuzzing::User};

/// The largest htpasswd file, in bytes: some hundred thousand users.
const MAX_FILE: u64 = 16 << 20;
/// The cost of a hash that we make, and of the stand-in while no user has one.
const DEFAULT_COST: u32 = 10;
/// The costs that are worth waiting for; the highest takes some ten seconds.
const COSTS: std::ops::RangeInclusive<u32> = 4..=17;

/// bcrypt's alphabet. Other programs leave stray bits in the last character; they carry nothing.
const BCRYPT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::BCRYPT,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// The users of one version of the file.
#[derive(Debug)]
pub(super) struct Users {
    /// The hash of each user: a canonical bcrypt hash, or `None` if nothing can match it.
    hashes: HashMap<Vec<u8>, Option<String>>,
    /// Checked in place of a missing hash, so that an unknown user takes as long as a known one.
    stand_in: String,
}

impl Users {
    /// Reads `user:hash` lines; says the number of a line without a colon.
    pub(super) fn parse(text: &[u8]) -> Result<Self, usize> {
        let mut hashes = HashMap::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let colon = line.iter().position(|byte| *byte == b':').ok_or(index + 1)?;
            hashes.insert(line[..colon].to_vec(), canonical(&line[colon + 1..]));
        }
        let mut uses = [0_u32; 32];
        for hash in hashes.values().flatten() {
            uses[cost_of(hash) as usize] += 1;
        }
        // Of equally usual costs the higher one.
        let usual = (0..32).max_by_key(|cost| (uses[*cost as usize], *cost)).unwrap_or(DEFAULT_COST);
        let cost = if uses.iter().all(|count| *count == 0) { DEFAULT_COST } else { usual };
        let stand_in = format!("$2b${cost:02}${}", ".".repeat(53));
        Ok(Self { hashes, stand_in })
    }

    /// The hash that proves `user`, empty if there is none.
    pub(super) fn hash_of(&self, user: &[u8]) -> &[u8] {
        self.hashes.get(user).and_then(Option::as_deref).unwrap_or_default().as_bytes()
    }

    /// Every user with the hash that proves them, empty if there is none; by name.
    pub(super) fn by_name(&self) -> Vec<User> {
        let mut users: Vec<_> = self.hashes.keys().map(|user| (user.clone(), self.hash_of(user).to_vec())).collect();
        users.sort();
        users
    }

    /// Whether `password` is the user's. Always costs one bcrypt run.
    pub(super) fn check(&self, user: &[u8], password: &[u8]) -> bool {
        let hash = self.hashes.get(user).and_then(Option::as_deref);
        // The library compares in constant time, and only fails on a hash that is none.
        let equal = bcrypt::verify(password, hash.unwrap_or(&self.stand_in)).unwrap_or(false);
        hash.is_some() && equal
    }
}

/// Rewrites a `$2a$`, `$2b$` or `$2y$` hash in the one spelling that the library accepts.
fn canonical(hash: &[u8]) -> Option<String> {
    let hash = str::from_utf8(hash).ok().filter(|hash| hash.len() == 60 && hash.is_ascii())?;
    if !["$2a$", "$2b$", "$2y$"].contains(&&hash[..4]) || &hash[6..7] != "$" {
        return None;
    }
    let cost: u32 = hash[4..6].bytes().all(|digit| digit.is_ascii_digit()).then(|| hash[4..6].parse().ok())??;
    let salt = BCRYPT.decode(&hash[7..29]).ok()?;
    let digest = BCRYPT.decode(&hash[29..]).ok()?;
    COSTS.contains(&cost).then(|| format!("$2b${cost:02}${}{}", BCRYPT.encode(salt), BCRYPT.encode(digest)))
}

/// The cost in a [`canonical`] hash.
fn cost_of(hash: &str) -> u32 {
    hash[4..6].parse().expect("a canonical hash has two digits of cost")
}

/// What tells one version of a file from another; the change time catches a kept modification time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            inode: (meta.dev(), meta.ino()),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// The file, and the users of its last good version.
pub(super) struct UserFile {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    users: Arc<Users>,
    stamp: Stamp,
    /// The version whose failure was reported; the inner `None` is "no file".
    reported: Option<Option<Stamp>>,
}

impl UserFile {
    /// Loads the file.
    pub(super) fn open(path: PathBuf) -> Result<Self, SetupError> {
        let (users, stamp) = load(&path)?;
        let state = State { users: Arc::new(users), stamp, reported: None };
        Ok(Self { path, state: Mutex::new(state) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The users of the file as it is now; of its last good version if it is unreadable, which is
    /// logged once per version.
    pub(super) fn current(&self) -> Arc<Users> {
        let seen = fs::metadata(&self.path).ok().map(|meta| Stamp::of(&meta));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if seen == Some(state.stamp) {
            return Arc::clone(&state.users);
        }
        let known_bad = state.reported == Some(seen);
        if known_bad && seen.is_none() {
            return Arc::clone(&state.users);
        }
        match load(&self.path) {
            Ok((users, stamp)) => {
                info!(path = %self.path.display(), users = users.hashes.len(), "read the changed htpasswd file");
                *state = State { users: Arc::new(users), stamp, reported: None };
            }
            Err(error) if !known_bad => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                error!(path = %self.path.display(), %error, cause, "keep the users of the last good htpasswd file");
                state.reported = Some(seen);
            }
            // Tried again all the same: the cause may be passing, such as too many open files.
            Err(_) => {}
        }
        Arc::clone(&state.users)
    }
}

fn load(path: &Path) -> Result<(Users, Stamp), SetupError> {
    let failed = |source| SetupError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // Taken before the content: a change during the read is then seen as one the next time.
    let stamp = Stamp::of(&file.metadata().map_err(failed)?);
    let mut text = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE {
        return Err(SetupError::TooLarge { path: path.to_owned(), limit: MAX_FILE });
    }
    let users = Users::parse(&text).map_err(|line| SetupError::Line { path: path.to_owned(), line })?;
    let useless = users.hashes.values().filter(|hash| hash.is_none()).count();
    if useless > 0 {
        warn!(
            path = %path.display(),
            users = useless,
            "{useless} users have no usable bcrypt hash and cannot log in (set them again with `htpasswd -B`)"
        );
    }
    Ok((users, stamp))
}

/// Makes the file with the user `docker` and a random password, unless it is there.
pub(super) fn create_if_missing(path: &Path, random: &SystemRandom) -> Result<Option<NewUser>, SetupError> {
    let failed = |source| SetupError::Create { path: path.to_owned(), source };
    if path.try_exists().map_err(|source| SetupError::Read { path: path.to_owned(), source })? {
        return Ok(None);
    }
    let mut secret = [0; 32];
    random.fill(&mut secret).map_err(|_| SetupError::Random)?;
    let password = BASE64_URL_SAFE_NO_PAD.encode(secret);
    let hash = bcrypt::hash(&password, DEFAULT_COST).map_err(|_| SetupError::Random)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
    match write_new(parent, path, format!("docker:{hash}\n").as_bytes()) {
        Ok(()) => Ok(Some(NewUser { user: "docker", password })),
        // Another process was faster, and told its own password.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.exists() => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Writes all of a new file, or nothing; never over another one.
fn write_new(parent: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(text).and_then(|()| file.sync_all()).and_then(|()| File::open(parent)?.sync_all());
    if written.is_err() {
        // Half a file would lock everybody out at the next start.
        let _ = fs::remove_file(path);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::Users;

    const SALT_AND_HASH: &str = "L6Bc/AlTQHyd9liGgGEZyOFLPHNgyxeEPfgYfBCVxJ7JIlwxyVU3u";

    /// Checks what a file means: `user=hash`, `user=-` for a useless hash, or the bad line.
    fn check(text: &str, expected: &str) {
        let seen = match Users::parse(text.as_bytes()) {
            Err(line) => format!("line {line}"),
            Ok(users) => {
                let mut all: Vec<String> = users
                    .hashes
                    .iter()
                    .map(|(user, hash)| format!("{}={}", String::from_utf8_lossy(user), hash.as_deref().unwrap_or("-")))
                    .collect();
                all.sort();
                all.join(" ")
            }
        };
        assert_eq!(seen, expected, "{text:?}");
    }

    #[test]
    fn grammar() {
        let hash = format!("$2b$05${SALT_AND_HASH}");
        check("", "");
        check("\n  \n# a:b\n\t# none\n", "");
        check(&format!("ann:{hash}"), &format!("ann={hash}"));
        for version in ["2a", "2y"] {
            check(&format!(" ann:${version}$05${SALT_AND_HASH} \r\n"), &format!("ann={hash}"));
        }
        check("ann:$apr1$xyz$abc\nbob:{SHA}abc=\ncid:plain\ndan:", "ann=- bob=- cid=- dan=-");
        check("a:1\n\n#\nbroken\nb:2", "line 4");
        check("a:1\na#b", "line 2");
        check(&format!("ann:old\nann:{hash}"), &format!("ann={hash}"));
        check(&format!("ann:{hash}:more"), "ann=-");
        // Stray bits in the last character of the salt carry nothing.
        let stray = hash.replacen("ZyOFL", "ZyPFL", 1);
        check(&format!("ann:{stray}"), &format!("ann={hash}"));
        for bad in ["$2x$05$", "$2$05$", "$2b$+5$", "$2b$03$", "$2b$18$", "$2b$99$", "$1b$05$"] {
            check(&format!("ann:{bad}{SALT_AND_HASH}"), "ann=-");
        }
        check("é:x\nu:é", "u=- é=-");
    }

    #[test]
    fn the_stand_in_costs_what_a_user_costs() {
        let check = |costs: &[u32], expected: u32| {
            let lines: Vec<String> =
                costs.iter().enumerate().map(|(at, cost)| format!("u{at}:$2y${cost:02}${SALT_AND_HASH}")).collect();
            let users = Users::parse(lines.join("\n").as_bytes()).unwrap();
            assert_eq!(users.stand_in[..7], format!("$2b${expected:02}$"));
            assert!(bcrypt::verify("x", &users.stand_in).is_ok() || expected > 10);
        };
        check(&[], 10);
        check(&[5], 5);
        check(&[5, 5, 12], 5);
        check(&[5, 12], 12);
    }
}

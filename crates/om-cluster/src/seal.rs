//! Owns sealed values: what may lie in the store, in backups and on the wire, and can be opened with the cluster's key
//! alone. Each value has a random key of its own, which the cluster's key wraps; both are bound to what the value is, so
//! that no value can be put in another's place.
//!
//! Form: `om1`, a zero byte, the id of the cluster's key (8 bytes), then nonce (24) and sealed key (48), then nonce (24)
//! and sealed value (its length and 16).

use std::{
    fmt,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use sha2::{Digest as _, Sha256};

const MAGIC: &[u8] = b"om1\0";
const KEY: usize = 32;
const ID: usize = 8;
const NONCE: usize = 24;
const TAG: usize = 16;
const HEAD: usize = MAGIC.len() + ID + NONCE + KEY + TAG + NONCE;

/// Bytes that sealing adds to a value.
pub const OVERHEAD: usize = HEAD + TAG;

/// What a sealed value is: it opens as nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The cluster's id.
    pub cluster: &'a str,
    /// The namespace of the object.
    pub namespace: &'a str,
    /// The object's name.
    pub name: &'a str,
    /// The key in the object.
    pub key: &'a str,
    /// Which version of the value.
    pub version: u64,
}

impl Subject<'_> {
    /// Every part with its length, so that no two subjects are the same bytes.
    fn bound(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in [self.cluster, self.namespace, self.name, self.key] {
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part.as_bytes());
        }
        bytes.extend(self.version.to_be_bytes());
        bytes
    }
}

/// A value that cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// It was not sealed here.
    #[error("it is no sealed value")]
    Form,
    /// Sealed with another cluster's key, or with one that is gone.
    #[error("it was sealed with another key of the cluster (hint: put the key file of the backup back)")]
    OtherKey,
    /// Changed, or sealed as something else.
    #[error("it was changed, or put where it does not belong")]
    Broken,
    /// No random numbers.
    #[error("get random numbers")]
    Random(#[source] getrandom::Error),
}

/// The cluster's key.
#[derive(Clone)]
pub struct ClusterKey([u8; KEY]);

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(…)")
    }
}

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read or made.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could read it.
    #[error("{} can be read by others than its owner (hint: chmod 600 {}, and change the secrets)", path.display(), path.display())]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// Not a key.
    #[error("{} has {length} bytes, a key has {KEY}", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// As many as it has.
        length: usize,
    },
    /// No random numbers.
    #[error("get random numbers")]
    Random(#[source] getrandom::Error),
}

/// Random bytes of the kernel.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

fn encrypt(key: &[u8; KEY], nonce: &[u8; NONCE], msg: &[u8], aad: &[u8]) -> Vec<u8> {
    XChaCha20Poly1305::new(key.into())
        .encrypt(&XNonce::from(*nonce), Payload { msg, aad })
        .expect("values are far shorter than what the cipher takes")
}

fn decrypt(key: &[u8; KEY], nonce: &[u8], msg: &[u8], aad: &[u8]) -> Result<Vec<u8>, SealError> {
    let nonce: [u8; NONCE] = nonce.try_into().map_err(|_| SealError::Form)?;
    XChaCha20Poly1305::new(key.into())
        .decrypt(&XNonce::from(nonce), Payload { msg, aad })
        .map_err(|_| SealError::Broken)
}

impl ClusterKey {
    /// A new key that is in no file: for a cluster in memory.
    ///
    /// # Errors
    /// If there are no random numbers.
    pub fn new() -> Result<Self, SealError> {
        random().map(Self).map_err(SealError::Random)
    }

    /// The key in the file at `path`, which only its owner may read. A new one is made, durably, if there is none.
    ///
    /// # Errors
    /// If the file cannot be read or made, is no key, or others could read it.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyFileError> {
        let io = |operation| move |source| KeyFileError::Io { operation, path: path.to_owned(), source };
        match File::open(path) {
            Ok(file) => {
                let meta = file.metadata().map_err(io("look at"))?;
                if meta.mode() & 0o077 != 0 {
                    return Err(KeyFileError::Open { path: path.to_owned() });
                }
                let mut bytes = Vec::new();
                file.take(KEY as u64 + 1).read_to_end(&mut bytes).map_err(io("read"))?;
                let length = bytes.len();
                let key = bytes.try_into().map_err(|_| KeyFileError::Length { path: path.to_owned(), length })?;
                Ok(Self(key))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = random().map_err(KeyFileError::Random)?;
                let new = path.with_extension("new");
                let mut file = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(&new)
                    .map_err(io("make"))?;
                // A file that was left behind may have had another mode.
                file.set_permissions(Permissions::from_mode(0o600)).map_err(io("protect"))?;
                file.write_all(&key).and_then(|()| file.sync_all()).map_err(io("write"))?;
                fs::rename(&new, path).map_err(io("make"))?;
                let dir = path.parent().unwrap_or(Path::new("/"));
                File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("sync the directory of"))?;
                Ok(Self(key))
            }
            Err(error) => Err(io("open")(error)),
        }
    }

    /// Tells keys apart without telling the key.
    fn id(&self) -> [u8; ID] {
        let hash = Sha256::new().chain_update(b"om cluster key id\0").chain_update(self.0).finalize();
        hash[..ID].try_into().expect("a hash is longer")
    }

    /// Seals a value as what it is.
    ///
    /// # Errors
    /// If there are no random numbers.
    pub fn seal(&self, subject: &Subject<'_>, value: &[u8]) -> Result<Vec<u8>, SealError> {
        let bound = subject.bound();
        let own: [u8; KEY] = random().map_err(SealError::Random)?;
        let (outer, inner): ([u8; NONCE], [u8; NONCE]) =
            (random().map_err(SealError::Random)?, random().map_err(SealError::Random)?);
        let mut sealed = MAGIC.to_vec();
        sealed.extend(self.id());
        sealed.extend(outer);
        sealed.extend(encrypt(&self.0, &outer, &own, &bound));
        sealed.extend(inner);
        sealed.extend(encrypt(&own, &inner, value, &bound));
        Ok(sealed)
    }

    /// Opens a value that was sealed as what it is.
    ///
    /// # Errors
    /// If it was sealed as something else, with another key, changed, or not sealed at all.
    pub fn open(&self, subject: &Subject<'_>, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let rest = sealed.strip_prefix(MAGIC).filter(|_| sealed.len() >= HEAD + TAG).ok_or(SealError::Form)?;
        let (id, rest) = rest.split_at(ID);
        if id != self.id() {
            return Err(SealError::OtherKey);
        }
        let bound = subject.bound();
        let (outer, rest) = rest.split_at(NONCE);
        let (wrapped, rest) = rest.split_at(KEY + TAG);
        let (inner, rest) = rest.split_at(NONCE);
        let own: [u8; KEY] = decrypt(&self.0, outer, wrapped, &bound)?.try_into().map_err(|_| SealError::Broken)?;
        decrypt(&own, inner, rest, &bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: Subject<'_> =
        Subject { cluster: "c", namespace: "test", name: "creds", key: "config.json", version: 3 };

    fn key() -> ClusterKey {
        ClusterKey([7; KEY])
    }

    #[test]
    fn what_was_sealed_is_opened_as_what_it_is_only() {
        let value = b"{\"auths\":{}}";
        let sealed = key().seal(&SUBJECT, value).unwrap();
        assert_eq!(key().open(&SUBJECT, &sealed).unwrap(), value);
        assert_ne!(key().seal(&SUBJECT, value).unwrap(), sealed, "never the same bytes");
        for subject in [
            Subject { cluster: "d", ..SUBJECT },
            Subject { namespace: "prod", ..SUBJECT },
            Subject { name: "other", ..SUBJECT },
            Subject { key: "config", ..SUBJECT },
            Subject { version: 2, ..SUBJECT },
            // The same letters, parted elsewhere.
            Subject { namespace: "testc", name: "reds", ..SUBJECT },
        ] {
            assert!(matches!(key().open(&subject, &sealed), Err(SealError::Broken)), "{subject:?}");
        }
        assert!(matches!(ClusterKey([8; KEY]).open(&SUBJECT, &sealed), Err(SealError::OtherKey)));
        assert_eq!(key().open(&SUBJECT, &key().seal(&SUBJECT, b"").unwrap()).unwrap(), b"");
    }

    #[test]
    fn every_changed_byte_is_found() {
        let sealed = key().seal(&SUBJECT, b"value").unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key().open(&SUBJECT, &changed).is_err(), "byte {at}");
            assert!(key().open(&SUBJECT, &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_key_file_is_its_owners() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.key");
        let made = ClusterKey::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(ClusterKey::load_or_create(&path).unwrap().0, made.0);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(ClusterKey::load_or_create(&path), Err(KeyFileError::Open { .. })));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, [0; 31]).unwrap();
        assert!(matches!(ClusterKey::load_or_create(&path), Err(KeyFileError::Length { length: 31, .. })));
        assert_eq!(format!("{made:?}"), "ClusterKey(…)");
    }
}

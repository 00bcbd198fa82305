//! Owns which namespaces have shown that they may use an image that needs credentials. An engine has one store of images
//! for all, and would run for anybody what one namespace's credentials have pulled. Does not own pulls.
//!
//! An image that nobody here pulled with a namespace's credentials is open to all of the node.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write as _},
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use om_core::path::Namespace;
use serde::{Deserialize, Serialize};

/// With more images than this in mind, those that the engine does not have any more are forgotten.
const MANY: usize = 1_000;

/// A record of pulls with credentials, on disk.
pub struct Grants {
    file: PathBuf,
    book: Mutex<Option<Book>>,
}

/// By image: its id, or its name while it is being pulled.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Book {
    images: BTreeMap<String, BTreeSet<String>>,
}

impl Grants {
    /// Kept in this file, which may not exist yet.
    pub fn new(file: PathBuf) -> Self {
        Self { file, book: Mutex::default() }
    }

    /// Whether a namespace may use an image that the engine has, without asking its registry.
    ///
    /// # Errors
    /// If the record does not read.
    pub fn is_open(&self, id: &str, name: &str, namespace: &Namespace) -> io::Result<bool> {
        self.with(|book| {
            let known = [id, name].into_iter().filter_map(|key| book.images.get(key));
            let open = known.into_iter().all(|namespaces| namespaces.contains(namespace.as_str()));
            (open, false)
        })
    }

    /// A pull with a namespace's credentials begins: until it is known what came, the name is closed to others.
    ///
    /// # Errors
    /// If the record cannot be read or written.
    pub fn begin(&self, name: &str, namespace: &Namespace) -> io::Result<()> {
        self.with(|book| {
            let new = !book.images.contains_key(name);
            if new {
                book.images.insert(name.to_owned(), BTreeSet::from([namespace.to_string()]));
            }
            ((), new)
        })
    }

    /// A pull with a namespace's credentials brought this image.
    ///
    /// # Errors
    /// If the record cannot be read or written.
    pub fn granted(&self, id: &str, name: &str, namespace: &Namespace) -> io::Result<()> {
        self.with(|book| {
            let begun = book.images.remove(name).is_some();
            let new = book.images.entry(id.to_owned()).or_default().insert(namespace.to_string());
            ((), begun || new)
        })
    }

    /// A pull with what all of the node may use brought this image.
    ///
    /// # Errors
    /// If the record cannot be read or written.
    pub fn opened(&self, id: &str, name: &str) -> io::Result<()> {
        self.with(|book| {
            let found = [id, name].into_iter().filter(|key| book.images.remove(*key).is_some()).count();
            ((), found > 0)
        })
    }

    /// Whether so many are kept in mind that [`Grants::keep`] is due.
    ///
    /// # Errors
    /// If the record cannot be read.
    pub fn is_long(&self) -> io::Result<bool> {
        self.with(|book| (book.images.len() > MANY, false))
    }

    /// Forgets images that are not among these ids.
    ///
    /// # Errors
    /// If the record cannot be read or written.
    pub fn keep(&self, ids: &BTreeSet<String>) -> io::Result<()> {
        self.with(|book| {
            book.images.retain(|key, _| !key.starts_with("sha256:") || ids.contains(key));
            ((), true)
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Book) -> (T, bool)) -> io::Result<T> {
        let mut held = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let mut book = match &*held {
            Some(book) => book.clone(),
            None => self.read()?,
        };
        let (result, changed) = act(&mut book);
        if changed {
            self.write(&book)?;
        }
        *held = Some(book);
        Ok(result)
    }

    fn read(&self) -> io::Result<Book> {
        match fs::read(&self.file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Book::default()),
            Err(error) => Err(error),
        }
    }

    fn write(&self, book: &Book) -> io::Result<()> {
        let dir = self.file.parent().ok_or(io::ErrorKind::InvalidInput)?;
        fs::create_dir_all(dir)?;
        let new = self.file.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(book)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.file)?;
        File::open(dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_one_namespace_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b): (Namespace, Namespace) = ("a".parse().unwrap(), "b".parse().unwrap());
        let grants = || Grants::new(dir.path().join("grants.json"));
        let check = |namespace: &Namespace, open: bool| {
            assert_eq!(grants().is_open("sha256:1", "reg/app", namespace).unwrap(), open, "{namespace}");
        };
        check(&a, true);
        grants().begin("reg/app", &a).unwrap();
        check(&b, false);
        grants().granted("sha256:1", "reg/app", &a).unwrap();
        check(&a, true);
        check(&b, false);
        grants().granted("sha256:1", "reg/app", &b).unwrap();
        check(&b, true);
        grants().opened("sha256:1", "reg/app").unwrap();
        check(&"c".parse().unwrap(), true);
        grants().granted("sha256:1", "reg/app", &a).unwrap();
        grants().keep(&BTreeSet::new()).unwrap();
        check(&b, true);
        assert!(!grants().is_long().unwrap());
    }
}

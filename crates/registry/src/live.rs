//! Owns the newest directory in memory, and the one way to change it: plan on the newest, replace
//! it in the store if it still is the newest, publish it, return.
//!
//! Does not own who may change what (`admin`), nor how a directory is stored (`Directories`).

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use registry_core::{
    directory::{Directories, Directory, Edit, EditError},
    store::{Refusal, StoreError},
};
use tokio::sync::OwnedMutexGuard;

/// How often a change is planned anew when another process was faster.
const ATTEMPTS: usize = 5;

/// Is told of every directory that takes the place of another, in their order. Called while others
/// wait: it has to be quick.
type Subscriber = Box<dyn Fn(&Arc<Directory>) + Send + Sync>;

/// The newest directory.
pub(crate) struct LiveDirectory {
    store: Arc<dyn Directories>,
    current: RwLock<Arc<Directory>>,
    /// The stored version of `current`. Whoever holds the lock is changing it.
    version: Arc<tokio::sync::Mutex<u64>>,
    subscribers: Mutex<Vec<Subscriber>>,
}

/// Why a directory stays as it was. `E` is the planner's reason.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unchanged<E> {
    /// The planner refused.
    #[error(transparent)]
    Planned(E),
    /// The plan contradicts the directory.
    #[error("change accounts or rules")]
    Refused(#[source] EditError),
    /// The store failed, or was changed by others again and again.
    #[error("change accounts or rules")]
    Store(#[source] StoreError),
}

/// Why there is no new directory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitialiseError {
    /// There is one already, which stays as it is.
    #[error("there are accounts already")]
    Exists,
    /// What was to be in it contradicts itself.
    #[error("make the first accounts")]
    Refused(#[from] EditError),
    /// The store failed.
    #[error("make the first accounts")]
    Store(#[source] StoreError),
}

impl LiveDirectory {
    /// The stored directory; `None` if none was ever made.
    pub(crate) async fn open(store: Arc<dyn Directories>) -> Result<Option<Arc<Self>>, StoreError> {
        let loaded = store.load().await?;
        Ok(loaded.map(|(version, directory)| Self::new(store, version, directory)))
    }

    /// Makes the first directory, with these edits in it; only where there is none.
    pub(crate) async fn initialise(
        store: Arc<dyn Directories>,
        issuer: String,
        edits: &[Edit],
        now: i64,
    ) -> Result<Arc<Self>, InitialiseError> {
        if store.load().await.map_err(InitialiseError::Store)?.is_some() {
            return Err(InitialiseError::Exists);
        }
        let directory = Directory::new(issuer).edited(edits, now)?;
        let version = store.save(0, directory.clone()).await.map_err(|error| match error {
            StoreError::Refused(Refusal::DirectoryChanged) => InitialiseError::Exists,
            error => InitialiseError::Store(error),
        })?;
        Ok(Self::new(store, version, directory))
    }

    fn new(store: Arc<dyn Directories>, version: u64, directory: Directory) -> Arc<Self> {
        Arc::new(Self {
            store,
            current: RwLock::new(Arc::new(directory)),
            version: Arc::new(tokio::sync::Mutex::new(version)),
            subscribers: Mutex::default(),
        })
    }

    /// The newest directory.
    pub(crate) fn current(&self) -> Arc<Directory> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Calls `subscriber` now, and again with every directory that follows, before the change that
    /// made it is answered.
    pub(crate) fn subscribe(&self, subscriber: impl Fn(&Arc<Directory>) + Send + Sync + 'static) {
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscriber(&self.current());
        subscribers.push(Box::new(subscriber));
    }

    /// Changes the directory as `plan` says, durably, and returns the plan's answer. The plan is
    /// made on the newest directory, and made anew if that turns out to be an older one; without
    /// edits nothing is written.
    ///
    /// Dropping the future leaves the change undone, or done and published.
    pub(crate) async fn edit<A, E>(
        self: &Arc<Self>,
        plan: impl Fn(&Directory) -> Result<(Vec<Edit>, A), E>,
        now: i64,
    ) -> Result<A, Unchanged<E>> {
        let mut failed = StoreError::Refused(Refusal::DirectoryChanged);
        for _ in 0..ATTEMPTS {
            let version = Arc::clone(&self.version).lock_owned().await;
            let current = self.current();
            let (edits, answer) = plan(&current).map_err(Unchanged::Planned)?;
            if edits.is_empty() {
                return Ok(answer);
            }
            let next = current.edited(&edits, now).map_err(Unchanged::Refused)?;
            match self.replace(version, next).await {
                Ok(()) => return Ok(answer),
                Err(error @ StoreError::Refused(Refusal::DirectoryChanged)) => failed = error,
                Err(error) => return Err(Unchanged::Store(error)),
            }
        }
        Err(Unchanged::Store(failed))
    }

    /// Saves and publishes in a task of its own: a caller who goes away in between must not leave
    /// memory behind the store.
    async fn replace(self: &Arc<Self>, mut version: OwnedMutexGuard<u64>, next: Directory) -> Result<(), StoreError> {
        let live = Arc::clone(self);
        let work = tokio::spawn(async move {
            match live.store.save(*version, next.clone()).await {
                Ok(saved) => {
                    *version = saved;
                    live.publish(next);
                    Ok(())
                }
                Err(error) => {
                    // Whatever is there now, memory follows it.
                    if let Ok(Some((stored, directory))) = live.store.load().await
                        && stored != *version
                    {
                        *version = stored;
                        live.publish(directory);
                    }
                    Err(error)
                }
            }
        });
        work.await.expect("it is not aborted, and neither stores nor subscribers panic")
    }

    fn publish(&self, directory: Directory) {
        let directory = Arc::new(directory);
        let subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&directory);
        for subscriber in &*subscribers {
            subscriber(&directory);
        }
    }
}

impl fmt::Debug for LiveDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveDirectory").finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        future::ready,
        sync::{
            Arc, Mutex,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use registry_core::{
        account::Kind,
        directory::{Directories, Directory, Edit, EditError},
        store::{Answer, Refusal, StoreError},
    };
    use registry_store::meta::memory::MemoryMetadata;

    use super::{InitialiseError, LiveDirectory, Unchanged};

    /// A store in memory whose next saves can be made to fail or to lose a race.
    #[derive(Default)]
    pub(crate) struct Shelf {
        pub(crate) state: Mutex<Option<(u64, Directory)>>,
        pub(crate) races: AtomicUsize,
        pub(crate) broken: AtomicUsize,
    }

    impl Directories for Shelf {
        fn load(&self) -> Answer<'_, Option<(u64, Directory)>> {
            Box::pin(ready(Ok(self.state.lock().unwrap().clone())))
        }

        fn save(&self, expected: u64, directory: Directory) -> Answer<'_, u64> {
            Box::pin(async move {
                tokio::task::yield_now().await;
                if take(&self.broken) {
                    return Err(StoreError::Poisoned);
                }
                let mut state = self.state.lock().unwrap();
                if take(&self.races) {
                    // Somebody else is faster.
                    let (version, directory) = state.clone().unwrap();
                    let edit = user(&format!("rival{version}"));
                    *state = Some((version + 1, directory.edited(&[edit], 0).unwrap()));
                }
                if state.as_ref().map_or(0, |(version, _)| *version) != expected {
                    return Err(Refusal::DirectoryChanged.into());
                }
                *state = Some((expected + 1, directory));
                Ok(expected + 1)
            })
        }
    }

    fn take(count: &AtomicUsize) -> bool {
        count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }

    pub(crate) fn user(name: &str) -> Edit {
        Edit::AddAccount { name: name.parse().unwrap(), kind: Kind::User, description: String::new() }
    }

    fn names(directory: &Directory) -> Vec<String> {
        let mut names: Vec<String> = directory.accounts().map(|account| account.name.to_string()).collect();
        names.sort();
        names
    }

    async fn opened(shelf: &Arc<Shelf>) -> Arc<LiveDirectory> {
        LiveDirectory::initialise(shelf.clone(), "test".into(), &[user("root")], 0).await.unwrap()
    }

    async fn add(live: &Arc<LiveDirectory>, name: &str) -> Result<(), Unchanged<EditError>> {
        live.edit(|_| Ok((vec![user(name)], ())), 1).await
    }

    #[tokio::test]
    async fn it_is_made_once_and_opened_again() {
        let shelf = Arc::new(Shelf::default());
        assert!(LiveDirectory::open(shelf.clone()).await.unwrap().is_none());
        let live = opened(&shelf).await;
        add(&live, "bob").await.unwrap();
        let again = LiveDirectory::initialise(shelf.clone(), "other".into(), &[], 0).await;
        assert!(matches!(again, Err(InitialiseError::Exists)));
        let reopened = LiveDirectory::open(shelf).await.unwrap().unwrap();
        assert_eq!(reopened.current(), live.current());
        assert_eq!(names(&reopened.current()), ["bob", "root"]);
    }

    #[tokio::test]
    async fn edits_at_once_all_land_and_subscribers_see_each() {
        let shelf = Arc::new(Shelf::default());
        let live = opened(&shelf).await;
        let seen: Arc<Mutex<Vec<usize>>> = Arc::default();
        live.subscribe({
            let seen = seen.clone();
            move |directory| seen.lock().unwrap().push(directory.accounts().count())
        });
        let edits: Vec<_> = (0..8)
            .map(|number| {
                let live = live.clone();
                tokio::spawn(async move {
                    let name = format!("user{number}");
                    add(&live, &name).await.unwrap();
                    // It is published before the edit is answered.
                    assert!(names(&live.current()).contains(&name));
                })
            })
            .collect();
        for edit in edits {
            edit.await.unwrap();
        }
        assert_eq!(*seen.lock().unwrap(), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(shelf.state.lock().unwrap().as_ref().unwrap().1, *live.current());
    }

    #[tokio::test]
    async fn two_that_share_a_store_lose_nothing() {
        let store = Arc::new(MemoryMetadata::default());
        let one = LiveDirectory::initialise(store.clone(), "test".into(), &[user("root")], 0).await.unwrap();
        let two = LiveDirectory::open(store.clone()).await.unwrap().unwrap();
        let (first, second) = tokio::join!(add(&one, "bob"), add(&two, "carol"));
        first.unwrap();
        second.unwrap();
        let (_, stored) = store.load().await.unwrap().unwrap();
        assert_eq!(names(&stored), ["bob", "carol", "root"]);
        add(&one, "dave").await.unwrap();
        assert_eq!(names(&one.current()), ["bob", "carol", "dave", "root"]);
    }

    #[tokio::test]
    async fn another_process_that_is_faster_is_taken_into_account() {
        let shelf = Arc::new(Shelf::default());
        let live = opened(&shelf).await;
        shelf.races.store(2, Ordering::SeqCst);
        add(&live, "bob").await.unwrap();
        assert_eq!(names(&live.current()), ["bob", "rival1", "rival2", "root"]);
        shelf.races.store(99, Ordering::SeqCst);
        let error = add(&live, "eve").await.unwrap_err();
        assert!(matches!(error, Unchanged::Store(StoreError::Refused(Refusal::DirectoryChanged))), "{error:?}");
        shelf.races.store(0, Ordering::SeqCst);
        assert_eq!(*live.current(), shelf.state.lock().unwrap().as_ref().unwrap().1, "memory follows the store");
    }

    #[tokio::test]
    async fn what_fails_changes_nothing() {
        let shelf = Arc::new(Shelf::default());
        let live = opened(&shelf).await;
        let before = live.current();
        shelf.broken.store(1, Ordering::SeqCst);
        assert!(matches!(add(&live, "bob").await, Err(Unchanged::Store(StoreError::Poisoned))));
        assert!(matches!(add(&live, "root").await, Err(Unchanged::Refused(_))));
        assert!(Arc::ptr_eq(&before, &live.current()));
        assert_eq!(shelf.state.lock().unwrap().as_ref().unwrap().0, 1);
        // No edits, no write.
        live.edit(|_| Ok::<_, EditError>((Vec::new(), ())), 1).await.unwrap();
        assert_eq!(shelf.state.lock().unwrap().as_ref().unwrap().0, 1);
    }

    #[tokio::test]
    async fn a_caller_who_goes_away_leaves_memory_and_store_alike() {
        for polls in 1..6 {
            let shelf = Arc::new(Shelf::default());
            let live = opened(&shelf).await;
            let mut edit = Box::pin(add(&live, "bob"));
            for _ in 0..polls {
                if poll_once(&mut edit).await {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(edit);
            add(&live, "carol").await.unwrap();
            assert_eq!(shelf.state.lock().unwrap().as_ref().unwrap().1, *live.current(), "{polls}");
        }
    }

    /// Polls once; whether it is done.
    async fn poll_once<F: Future + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|cx| std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_ready())).await
    }
}

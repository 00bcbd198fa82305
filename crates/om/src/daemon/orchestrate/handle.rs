//! Owns what the rest of the daemon asks of the loop: the requests, how they are refused, and the handle that sends them.

use std::sync::{Arc, PoisonError, RwLock};

use om_core::{
    path::{NodeName, ObjectPath},
    view::{Failure, Job, View},
};
use tokio::sync::{mpsc, oneshot};

/// A request that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The object is not there, or cannot be used.
    #[error("{0} is not there, or its configuration cannot be used (hint: om {0} validate config)")]
    Unknown(ObjectPath),
    /// Something is done to it already.
    #[error("{path} is {doing} (hint: wait, or om {path} abort)")]
    Busy {
        /// The object.
        path: ObjectPath,
        /// What is done.
        doing: &'static str,
    },
    /// It was begun, and failed.
    #[error("{}", .0.message)]
    Failed(Failure),
    /// The daemon stops.
    #[error("the daemon stops")]
    Stopping,
}

/// What became of a request.
pub type Answered = Result<(), Refused>;

/// What the loop is asked for.
pub(super) enum Request {
    /// Objects are to be looked at; none: all.
    Look { paths: Option<Vec<ObjectPath>>, done: Option<mpsc::Sender<()>> },
    /// A job of this node's instance.
    Run { path: ObjectPath, job: Box<Job>, done: oneshot::Sender<Answered> },
    /// This node is frozen since then, or not at all.
    Freeze { since: Option<u64>, done: oneshot::Sender<Answered> },
    /// The configuration of the cluster is another one.
    Reread { members: Vec<NodeName> },
    /// Whatever runs resources was away.
    Interrupted,
}

/// The node's engine, as the rest of the daemon sees it. Clones share it.
#[derive(Clone)]
pub struct Engine {
    pub(super) view: Arc<RwLock<View>>,
    pub(super) requests: mpsc::Sender<Request>,
}

impl Engine {
    /// Reads what the node knows. The reader must be quick: the loop waits.
    pub fn read<T>(&self, reader: impl FnOnce(&View) -> T) -> T {
        reader(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says that an object may have changed, or without one that anything may have; it is looked at soon.
    pub fn touch(&self, path: Option<&ObjectPath>) {
        // A full queue is full of work that leads to looking anyway, and the poll follows.
        let _ = self.requests.try_send(Request::Look { paths: path.map(|path| vec![path.clone()]), done: None });
    }

    /// Says that whatever runs resources is there again: what ended with it is started again.
    pub fn interrupted(&self) {
        // The queue is full where nothing else is done than this; the poll follows.
        let _ = self.requests.try_send(Request::Interrupted);
    }

    /// Looks at objects, and returns when what was seen is in the view.
    ///
    /// # Errors
    /// The daemon stops.
    pub async fn refresh(&self, paths: Vec<ObjectPath>) -> Answered {
        // Every object has a copy of the sender until it was looked at; the last one's end is the end.
        let (done, mut wait) = mpsc::channel(1);
        self.send(Request::Look { paths: Some(paths), done: Some(done) }).await?;
        while wait.recv().await.is_some() {}
        if self.requests.is_closed() { Err(Refused::Stopping) } else { Ok(()) }
    }

    /// Does a job on this node's instance, whatever is wanted of the object, and returns when it is done.
    ///
    /// # Errors
    /// It is busy, or the job failed.
    pub async fn run(&self, path: &ObjectPath, job: Job) -> Answered {
        let (done, wait) = oneshot::channel();
        self.send(Request::Run { path: path.clone(), job: Box::new(job), done }).await?;
        wait.await.map_err(|_| Refused::Stopping)?
    }

    /// The configuration of the cluster was changed: these are its nodes now, and what refers to it means something else.
    ///
    /// # Errors
    /// The daemon stops.
    pub async fn reread(&self, members: Vec<NodeName>) -> Answered {
        self.send(Request::Reread { members }).await
    }

    /// Freezes or thaws this node.
    ///
    /// # Errors
    /// The store did not take it.
    pub async fn freeze_node(&self, since: Option<u64>) -> Answered {
        let (done, wait) = oneshot::channel();
        self.send(Request::Freeze { since, done }).await?;
        wait.await.map_err(|_| Refused::Stopping)?
    }

    async fn send(&self, request: Request) -> Answered {
        self.requests.send(request).await.map_err(|_| Refused::Stopping)
    }
}

//! Owns what the engine asks of the cluster's shared state, in its own words: the trait [`Truth`]. Typed repositories on
//! [`crate::kv`] answer it, and the simulator's memory does. Every change compares with what was read.

use std::sync::Arc;

use crate::{
    kv::{Answer, Rev},
    path::{NodeName, ObjectPath},
    view::{At, Owner, Report, Session, Want},
};

/// The configuration of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Grows with every change.
    pub generation: u64,
    /// The text.
    pub text: Arc<str>,
}

/// Something that is so now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// An object's configuration; none: there is no such object.
    Object(ObjectPath, Option<At<Object>>),
    /// What is wanted of an object; none: nothing.
    Want(ObjectPath, Option<At<Want>>),
    /// Who owns an object; none: nobody.
    Owner(ObjectPath, Option<At<Owner>>),
    /// What a node says of its instance; none: nothing.
    Report(ObjectPath, NodeName, Option<Report>),
    /// A node's sign of life.
    Session(NodeName, Option<At<Session>>),
}

/// News of the shared state. Dropping it ends it.
pub trait News: Send {
    /// What changed, in order; none: too much was missed, list again.
    fn next(&mut self) -> Answer<'_, Option<Vec<Fact>>>;
}

/// The shared state as the engine uses it. A change answers whether it was made; `false`: something else was there.
pub trait Truth: Send + Sync {
    /// All that is so, and the revision it is of.
    fn list(&self) -> Answer<'_, (Vec<Fact>, Rev)>;
    /// What changes after a revision.
    fn watch(&self, from: Rev) -> Box<dyn News>;
    /// Changes what is wanted of an object that is there. `seen` is revision 0 where nothing was.
    fn want<'a>(&'a self, path: &'a ObjectPath, seen: Rev, want: Want) -> Answer<'a, bool>;
    /// Changes who owns an object. With `session` only while that session is unchanged: a node's name, and its
    /// revision.
    fn own<'a>(
        &'a self,
        path: &'a ObjectPath,
        seen: Option<Rev>,
        owner: Owner,
        session: Option<(NodeName, Rev)>,
    ) -> Answer<'a, bool>;
    /// Says how an instance of this node is; none: it is no more.
    fn report<'a>(&'a self, path: &'a ObjectPath, node: &'a NodeName, report: Option<Report>) -> Answer<'a, ()>;
    /// Renews, begins or ends a session.
    fn session<'a>(&'a self, node: &'a NodeName, seen: Option<Rev>, session: Session) -> Answer<'a, Option<Rev>>;
    /// Removes an object with all that is known of it, if its configuration and its want were not changed.
    fn forget<'a>(&'a self, path: &'a ObjectPath, generation: u64, want: Rev) -> Answer<'a, bool>;
}

//! Shared truth of a cluster: keys, watches, sealed secrets. The only crate that names a key of the store.

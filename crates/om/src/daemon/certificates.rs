//! Owns certificates of services: the cluster's authority, which is made once and kept sealed, and what it issues for a
//! service's names in the cluster's DNS. Does not own how they come into containers.

use std::collections::BTreeSet;

use om_cluster::{
    Store, StoreError,
    store::{Expect, New},
};
use om_core::{
    config::Document,
    driver::Secret,
    path::{Kind, NodeName, ObjectPath},
};
use serde::{Deserialize, Serialize};
use service::{
    authority::{AuthorityError, Held, HeldError, Pair},
    tls::name::{Name, NameError},
};
use time::OffsetDateTime;

/// Key of the certificate, followed by its authority's, in the service's `sec` object.
const CERTIFICATE: &str = "certificate";
/// Key of the private key there.
const PRIVATE_KEY: &str = "private_key";
/// Says in its configuration whose it is, before the path.
const COMMENT: &str = "certificate of ";

/// A certificate that was not issued.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The store did not take or give it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The authority cannot be used.
    #[error(transparent)]
    Held(#[from] HeldError),
    /// It could not be made.
    #[error(transparent)]
    Make(#[from] AuthorityError),
    /// A name of the service is none for certificates.
    #[error("issue a certificate for {name}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// The record of the authority does not read.
    #[error("use the certificate authority of the cluster: its record cannot be read")]
    Record,
}

/// The authority as it is kept.
#[derive(Serialize, Deserialize)]
struct Record {
    certificate: String,
    key: String,
}

/// The cluster's authority.
#[derive(Debug)]
pub struct Certificates {
    held: Held,
}

impl Certificates {
    /// The authority of the cluster, made if there is none.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub async fn open(store: &Store, cluster: &str) -> Result<Self, CertificateError> {
        let kept = match store.authority().await? {
            Some(kept) => kept,
            None => {
                let Pair { certificate, key } = Held::make(&format!("Cluster {cluster}"), now())?;
                let record = serde_json::to_vec(&Record { certificate, key }).map_err(|_| CertificateError::Record)?;
                store.keep_authority(&Secret(record)).await?
            }
        };
        let record: Record = serde_json::from_slice(&kept.0).map_err(|_| CertificateError::Record)?;
        let pair = Pair { certificate: record.certificate, key: record.key };
        Ok(Self { held: Held::read(&pair)? })
    }

    /// The authority's certificate: PEM.
    pub fn authority(&self) -> String {
        self.held.certificate()
    }

    /// A service's certificate, issued if there is none or the old one has to be renewed.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub async fn of(
        &self,
        store: &Store,
        path: &ObjectPath,
        cluster: &str,
        nodes: &[NodeName],
    ) -> Result<Pair, CertificateError> {
        let names = names(path, cluster, nodes)?;
        let object = object(path)?;
        let text = |bytes: Secret| String::from_utf8(bytes.0).unwrap_or_default();
        let found = match (store.value(&object, CERTIFICATE).await?, store.value(&object, PRIVATE_KEY).await?) {
            (Some(certificate), Some(key)) => Some(Pair { certificate: text(certificate.bytes), key: text(key.bytes) }),
            _ => None,
        };
        let due = self.held.due(found.as_ref(), &names, now())?;
        match (due, found) {
            (None, Some(pair)) => Ok(pair),
            (reason, _) => {
                let pair = self.held.issue(&names, now())?;
                let new = New {
                    path: object.clone(),
                    text: format!("[DEFAULT]\ncomment = {COMMENT}{}\n", path.fqn()),
                    want: None,
                };
                match store.create(&[new]).await {
                    Ok(_) | Err(StoreError::Exists(_)) => {}
                    Err(error) => return Err(error.into()),
                }
                // One that is cut between the two does not fit its key, and is issued again.
                store.put_value(&object, PRIVATE_KEY, pair.key.as_bytes(), Expect::Any).await?;
                store.put_value(&object, CERTIFICATE, pair.certificate.as_bytes(), Expect::Any).await?;
                let reason = reason.map(|reason| reason.to_string()).unwrap_or_default();
                tracing::info!(object.path = %path, "issued a certificate: {reason}");
                Ok(pair)
            }
        }
    }

    /// Whose certificate the object with this configuration has; none: it has none of ours.
    pub fn owner(text: &str) -> Option<ObjectPath> {
        Document::parse(text).ok()?.get("DEFAULT", "comment")?.strip_prefix(COMMENT)?.parse().ok()
    }
}

/// The object that has a service's certificate: `registry.tls`, or a number where that is too long.
fn object(path: &ObjectPath) -> Result<ObjectPath, CertificateError> {
    let short = format!("{}.tls", path.name);
    let name = short.parse().or_else(|_| {
        let sum = path
            .name
            .as_str()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        format!("tls-{sum:016x}").parse()
    });
    let name = name.map_err(|_| CertificateError::Record)?;
    Ok(ObjectPath { namespace: path.namespace.clone(), kind: Kind::Sec, name })
}

/// What a service is called: in the zone, on each node, and inside its own containers.
fn names(path: &ObjectPath, cluster: &str, nodes: &[NodeName]) -> Result<BTreeSet<Name>, CertificateError> {
    let service = format!("{}.{}.svc", path.name, path.namespace);
    let mut names = vec![format!("{service}.{cluster}"), "localhost".to_owned(), "127.0.0.1".to_owned()];
    names.extend(nodes.iter().map(|node| format!("{service}.{node}.node.{cluster}")));
    let one = |name: String| name.parse().map_err(|source| CertificateError::Name { name, source });
    names.into_iter().map(one).collect()
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_service_keeps_its_certificate() {
        let store = Store::in_memory().await.unwrap();
        let first = Certificates::open(&store, "homepool2").await.unwrap();
        let again = Certificates::open(&store, "homepool2").await.unwrap();
        assert_eq!(first.authority(), again.authority());
        let path: ObjectPath = "test/registry".parse().unwrap();
        let nodes = ["aubergine".parse().unwrap()];
        let issued = first.of(&store, &path, "homepool2", &nodes).await.unwrap();
        assert_eq!(again.of(&store, &path, "homepool2", &nodes).await.unwrap(), issued);
        let renamed = first.of(&store, &path, "other", &nodes).await.unwrap();
        assert_ne!(renamed, issued);
        let object: ObjectPath = "test/sec/registry.tls".parse().unwrap();
        assert_eq!(store.keys(&object).await.unwrap().len(), 2);
        let text = store.config(&object).await.unwrap().unwrap().text;
        assert_eq!(Certificates::owner(&text), Some(path));
    }
}

//! Owns what fuzzing sees of the parsers in this crate: each takes what a stranger sends, and gives
//! what came of it as plain data.
//!
//! No part of the crate's interface: it changes whenever a parser does. What has to hold is in
//! `fuzz/src`.

use std::{collections::BTreeMap, net::IpAddr};

use registry_core::{
    access::Access,
    account::AccountId,
    directory::{Directory, SigningKey},
};
use serde_json::{Map, Value};

use crate::{
    admin::{
        authority::{Actor, Proof, authorize},
        order,
        plan::{Fresh, plan},
    },
    api::{
        route::{self, NoRoute, Query, Route},
        token::{self, Given},
    },
    config,
    proxies::{Network, Proxies},
};

/// A configuration that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Configuration {
    /// What the server would go by; `None` if there are errors.
    pub config: Option<String>,
    /// How many problems are errors.
    pub errors: usize,
    /// What `verify-config` prints for people.
    pub table: String,
    /// What `verify-config` prints for programs.
    pub json: Value,
}

/// Reads a configuration, as `verify-config` and `serve` do.
pub fn config(text: &str, env: &BTreeMap<String, String>) -> Configuration {
    let loaded = config::load("config.yml", text, env);
    Configuration {
        config: loaded.config.map(|config| format!("{config:?}")),
        errors: loaded.diagnostics.iter().filter(|problem| problem.is_error()).count(),
        table: loaded.report.table(),
        json: loaded.report.json(),
    }
}

/// The path that has the same route as `path`, which is decoded, and is written as this registry
/// writes it.
///
/// # Errors
/// The code to answer, and what is wrong.
pub fn route(path: &str, prefix: &str) -> Result<String, (&'static str, String)> {
    let path = match route::parse(path, prefix) {
        Ok(Route::Root) => "/".to_owned(),
        Ok(Route::Base) => "/v2/".to_owned(),
        Ok(Route::Catalog) => "/v2/_catalog".to_owned(),
        Ok(Route::Tags(name)) => format!("/v2/{name}/tags/list"),
        Ok(Route::Manifest(name, reference)) => format!("/v2/{name}/manifests/{reference}"),
        Ok(Route::Blob(name, digest)) => format!("/v2/{name}/blobs/{digest}"),
        Ok(Route::Uploads(name)) => format!("/v2/{name}/blobs/uploads/"),
        Ok(Route::Upload(name, id)) => format!("/v2/{name}/blobs/uploads/{}", id.as_str()),
        Ok(Route::Referrers(name, digest)) => format!("/v2/{name}/referrers/{digest}"),
        Ok(Route::Token) => route::TOKEN.to_owned(),
        Ok(Route::Keys) => "/.well-known/jwks.json".to_owned(),
        Ok(Route::Admin) => crate::api::admin::PATH.to_owned(),
        Ok(Route::Healthz) => return Ok("/healthz".to_owned()),
        Ok(Route::Readyz) => return Ok("/readyz".to_owned()),
        Err(NoRoute::NotFound) => return Err(("", String::new())),
        Err(NoRoute::Malformed(code, what)) => return Err((code.as_str(), what)),
    };
    Ok(format!("{prefix}{path}"))
}

/// A text without its `%xx`, if they are right.
pub fn decode(text: &str) -> Option<String> {
    route::decode(text).map(std::borrow::Cow::into_owned)
}

/// A text as the value of a parameter.
pub fn encode(text: &str) -> String {
    route::encode(text)
}

/// The parameters of a query or a form.
pub fn query(text: &str) -> Vec<(String, String)> {
    Query::parse(Some(text)).into_pairs()
}

/// A form that asks for a token.
#[derive(Debug, PartialEq, Eq)]
pub struct Form {
    /// The name and the password, or the refresh token alone.
    pub proof: Vec<String>,
    /// What for.
    pub wanted: Vec<Access>,
    /// Whether a refresh token is asked for.
    pub offline: bool,
}

/// Reads the form of `POST /token`.
pub fn form(body: &[u8]) -> Option<Form> {
    let token::Request { proof, wanted, offline } = token::read_form(body).ok()?;
    let proof = match proof {
        Given::Password(name, password) => vec![name, password],
        Given::Refresh(token) => vec![token],
        Given::Header(_) | Given::Nothing => Vec::new(),
    };
    Some(Form { proof, wanted, offline })
}

/// Whether an address is in a network, if that is one.
pub fn trusts(network: &str, address: IpAddr) -> Option<bool> {
    network.parse::<Network>().ok().map(|network| network.holds(address))
}

/// The address of a client behind proxies in these networks, if they are all networks.
pub fn client(trusted: &[&str], peer: Option<IpAddr>, forwarded_for: Option<&str>) -> Option<Option<IpAddr>> {
    let networks: Result<Vec<Network>, _> = trusted.iter().map(|network| network.parse()).collect();
    Some(Proxies::new(networks.ok()?).client(peer, forwarded_for))
}

/// An order to access control.
#[derive(Clone, Debug)]
pub struct Order(order::Order);

impl Order {
    /// Reads an order.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(json: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(json).map(Self).map_err(|error| error.to_string())
    }

    /// The order as it is sent.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(&self.0).expect("an order is an object of texts and numbers")
    }

    /// What the audit log says of it.
    pub fn audited(&self) -> Map<String, Value> {
        self.0.audited()
    }

    /// What becomes of `directory` if `account`, or root where there is none, gives the order; and
    /// the answer. What is made for an order has the marks `made-hash`, `made-secret`, `made-key`.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn carry_out(
        &self,
        directory: &Directory,
        account: Option<(AccountId, bool)>,
        now: i64,
    ) -> Result<(Directory, Value), String> {
        let actor = match account {
            None => Actor::Local,
            Some((id, by_password)) => Actor::Account(id, if by_password { Proof::Password } else { Proof::Secret }),
        };
        let authority = authorize(&self.0, actor, directory).map_err(|error| error.what)?;
        let fresh = match self.0 {
            order::Order::UserAdd { .. } | order::Order::UserPasswd { .. } => {
                Fresh::Password { hash: "made-hash".to_owned(), made: None }
            }
            order::Order::UserToken { .. } | order::Order::RobotCreate { .. } | order::Order::RobotRotate { .. } => {
                Fresh::Secret { text: "made-secret".to_owned(), hash: [1; 32] }
            }
            order::Order::KeyRotate {} => {
                Fresh::Key(SigningKey { id: "made-key".to_owned(), pkcs8: Vec::new(), created_at: now })
            }
            _ => Fresh::Nothing,
        };
        let (edits, answer) = plan(&self.0, directory, &authority, &fresh, now).map_err(|error| error.what)?;
        assert!(self.0.changes() || edits.is_empty(), "an order that only asks changes nothing");
        let edited = directory.edited(&edits, now).map_err(|error| error.to_string())?;
        Ok((edited, answer))
    }
}

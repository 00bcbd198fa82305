//! The `http` section: listeners, addresses, TLS.

use std::path::{Path, PathBuf};

use service::{authority::server_files_in, tls::name::NameError};

use super::{
    Address, CipherSuite, ClientAuth, ClientCertificates, Diagnostic, Found, Listen, Tls, View, address, web_url,
};
use crate::config::keys;
use crate::config::settings::{Authority, Debug, Http};

/// Reads `http`. An authority of the server's own is another source of a certificate.
pub(super) fn read(http: &View<'_>, authority: &View<'_>, found: &mut Found) -> Http {
    let host = http.get("host");
    let base = host.text().and_then(|text| match web_url(text, false) {
        Ok(_) if text.contains(['?', '#']) => {
            found.push(host.error("must not contain a query or a fragment"));
            None
        }
        Ok(base) => Some(base.to_owned()),
        Err(problem) => {
            found.push(host.error(problem).hint("write the address clients use, such as https://registry.example.com"));
            None
        }
    });
    let headers = http.get("headers");
    for entry in headers.entries() {
        let name = entry.key.to_ascii_lowercase();
        if matches!(name.as_str(), "content-length" | "transfer-encoding" | "connection") {
            let path = headers.get(&entry.key).path;
            found.push(Diagnostic::error(&entry.place, &path, "the server sets this header itself").hint("remove it"));
        }
    }
    Http {
        listen: listen(http, found),
        prefix: prefix(&http.get("prefix"), found),
        host: base,
        relative_urls: http.get("relativeurls").flag(false),
        drain_timeout: http.get("draintimeout").duration(),
        headers: headers.headers(found),
        tls: tls(&http.get("tls"), authority, found),
        debug: debug(&http.get("debug"), found),
        http2: !http.get("http2").get("disabled").flag(false),
        h2c: http.get("h2c").get("enabled").flag(false),
    }
}

fn listen(http: &View<'_>, found: &mut Found) -> Listen {
    let (net, addr) = (http.get("net"), http.get("addr"));
    let everywhere = Address { host: String::new(), port: 5000 };
    match (net.text(), addr.text()) {
        (Some("unix"), Some(path)) => return Listen::Unix(path.to_owned()),
        (Some("unix"), None) => found.push(addr.error("is missing").hint("name the socket's path")),
        (Some("tcp") | None, None) => {
            found.push(addr.warning("is not set, port 5000 is used").hint("write `addr: :5000` below `http`"));
        }
        (Some("tcp") | None, Some(text)) => return Listen::Tcp(tcp(&addr, text, found)),
        (Some(_), _) => found.push(net.error("must be `tcp` or `unix`")),
    }
    Listen::Tcp(everywhere)
}

/// Reads `host:port`, reporting what is wrong with it.
pub(super) fn tcp(view: &View<'_>, text: &str, found: &mut Found) -> Address {
    address(text).unwrap_or_else(|problem| {
        let error = view.error(problem);
        found.push(match text.chars().all(|c| c.is_ascii_digit()) {
            true => error.hint(format!("write `:{text}`")),
            false => error.hint("write `host:port`, `:port` or `[::1]:port`"),
        });
        Address { host: String::new(), port: 0 }
    })
}

fn prefix(view: &View<'_>, found: &mut Found) -> String {
    let Some(text) = view.text() else {
        return String::new();
    };
    let odd = |c: char| !(c.is_ascii_alphanumeric() || "-._~/".contains(c));
    if !text.starts_with('/') || text.contains("//") || text.chars().any(odd) {
        found.push(view.error("must be a plain path that begins with a slash").hint("write it as `/my/registry/`"));
    }
    text.trim_end_matches('/').to_owned()
}

fn debug(debug: &View<'_>, found: &mut Found) -> Option<Debug> {
    let metrics = debug.get("prometheus");
    let (enabled, path) = (metrics.get("enabled"), metrics.get("path"));
    let on = enabled.flag(false);
    let addr = debug.get("addr");
    if path
        .text()
        .is_some_and(|text| !text.starts_with('/') || text.chars().any(|c| c.is_whitespace() || c.is_control()))
    {
        found.push(path.error("must begin with a slash"));
    }
    let Some(text) = addr.text() else {
        if on {
            found.push(enabled.no_effect("`http.debug.addr` is not set").hint("write `addr: :5001` below `debug`"));
        }
        return None;
    };
    Some(Debug {
        address: tcp(&addr, text, found),
        metrics_path: on.then(|| path.text().unwrap_or("/metrics").to_owned()),
    })
}

/// Suites of the original that have no forward secrecy or no authenticated encryption.
const OLD_SUITES: [&str; 11] = [
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
];

fn tls(tls: &View<'_>, authority: &View<'_>, found: &mut Found) -> Option<Tls> {
    let (certificate, key) = (tls.get("certificate"), tls.get("key"));
    let tls13_only = tls.get("minimumtls").text().is_some_and(|text| text.eq_ignore_ascii_case("tls1.3"));
    let cipher_suites = suites(&tls.get("ciphersuites"), tls13_only, found);
    let clients = clients(tls, found);
    if authority.node.is_some() {
        for given in [&certificate, &key] {
            if given.is_set() {
                found.push(
                    given
                        .error(format!(
                            "a second certificate, besides that of `roadstead.authority` at {}",
                            authority.place
                        ))
                        .hint("remove this one, or the section `roadstead.authority`"),
                );
            }
        }
        let (certificate, key) = server_files_in(Path::new(authority.get("directory").text().unwrap_or_default()));
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        return Some(Tls { certificate: text(certificate), key: text(key), clients, tls13_only, cipher_suites });
    }
    match (certificate.text(), key.text()) {
        (Some(certificate), Some(key)) => {
            Some(Tls { certificate: certificate.to_owned(), key: key.to_owned(), clients, tls13_only, cipher_suites })
        }
        (Some(_), None) => {
            found.push(key.error("is missing").hint("name the private key of http.tls.certificate"));
            None
        }
        (None, Some(_)) => {
            found.push(
                certificate
                    .error("is missing")
                    .hint("name the certificate of http.tls.key; without it the registry would speak plain HTTP"),
            );
            None
        }
        (None, None) => {
            if clients.is_some() {
                found.push(
                    tls.get("clientcas")
                        .error("asks for client certificates, but TLS is not switched on")
                        .hint("set http.tls.certificate and http.tls.key"),
                );
            }
            None
        }
    }
}

/// Reads `roadstead.authority`.
pub(super) fn authority(authority: &View<'_>, found: &mut Found) -> Option<Authority> {
    authority.node?;
    let directory = authority.get("directory");
    let mut names = Vec::new();
    for item in authority.get("names").items() {
        match item.text().map(str::parse) {
            Some(Ok(name)) => names.push(name),
            Some(Err(problem)) => {
                let problem: NameError = problem;
                found.push(item.error(problem.to_string()));
            }
            None => {}
        }
    }
    let Some(text) = directory.text() else {
        let hint = "name the directory that keeps its files, such as /var/lib/registry-tls";
        found.push(directory.error("is missing").hint(hint));
        return None;
    };
    Some(Authority { directory: text.to_owned(), names })
}

fn clients(tls: &View<'_>, found: &mut Found) -> Option<ClientCertificates> {
    let authorities = tls.get("clientcas").texts();
    let mode = tls.get("clientauth");
    if authorities.is_empty() {
        if mode.is_set() {
            found.push(mode.no_effect("`http.tls.clientcas` is empty, so no client certificate is asked for"));
        }
        return None;
    }
    let mode = match mode.text().map(str::to_ascii_lowercase).as_deref() {
        Some("request-client-cert") => ClientAuth::Request,
        Some("require-any-client-cert") => ClientAuth::RequireAny,
        Some("verify-client-cert-if-given") => ClientAuth::VerifyIfGiven,
        _ => ClientAuth::RequireAndVerify,
    };
    Some(ClientCertificates { authorities, mode })
}

fn suites(listed: &View<'_>, tls13_only: bool, found: &mut Found) -> Vec<CipherSuite> {
    let mut chosen = Vec::new();
    let mut misspelled = false;
    for item in listed.items() {
        let Some(name) = item.text() else { continue };
        if let Some(suite) = CipherSuite::ALL.into_iter().find(|suite| suite.name == name) {
            chosen.push(suite);
        } else if OLD_SUITES.contains(&name) {
            found.push(item.no_effect("this suite is too weak and is never negotiated"));
        } else {
            let near = keys::closest(name, CipherSuite::ALL.into_iter().map(|suite| suite.name));
            misspelled = true;
            let problem = item.error("no such cipher suite");
            found.push(match near {
                Some(near) => problem.hint(format!("did you mean `{near}`?")),
                None => problem.hint("docs/configuration.md lists the names"),
            });
        }
    }
    if listed.is_set() && tls13_only {
        found.push(listed.no_effect("TLS 1.3 always offers its three suites"));
    } else if listed.is_set() && chosen.is_empty() && !misspelled {
        found.push(listed.error("leaves no suite to negotiate").hint("remove the key for a safe choice"));
    }
    let any = chosen.is_empty();
    CipherSuite::ALL
        .into_iter()
        .filter(|suite| suite.is_tls13() || (!tls13_only && (any || chosen.contains(suite))))
        .collect()
}

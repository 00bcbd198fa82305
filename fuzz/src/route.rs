//! What holds for the paths and queries of requests, one a line.

use registry::fuzzing::{decode, encode, query, route};

use super::text;

const PREFIX: &str = "/p/q";

/// A path has one route, the same below any prefix, and what the registry writes leads back to it.
pub fn check(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let (path, parameters) = text.split_once('\n').unwrap_or((text, ""));
    assert_eq!(decode(&encode(path)).as_deref(), Some(path));
    if let Some(path) = decode(path) {
        leads_back(&path);
    }
    let pairs = query(parameters);
    assert!(pairs.len() <= parameters.split('&').count());
    let again: Vec<String> = pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    assert_eq!(query(&again.join("&")), pairs);
}

fn leads_back(path: &str) {
    match route(path, "") {
        Ok(written) => {
            assert!(written.bytes().all(|c| c.is_ascii_graphic() && c != b'%'), "{written:?}");
            assert!(!written.split('/').any(|part| part == ".." || part == "."), "{written:?}");
            assert_eq!(route(&written, ""), Ok(written.clone()));
            // Health is asked for by machines that know no prefix.
            if !["/healthz", "/readyz"].contains(&path) {
                assert_eq!(route(&format!("{PREFIX}{path}"), PREFIX), Ok(format!("{PREFIX}{written}")));
            }
        }
        Err((_, what)) => assert!(what.len() < 1024 && !what.contains(char::is_control), "{what:?}"),
    }
    if let Ok(written) = route(path, PREFIX) {
        assert!(written.starts_with(PREFIX) && path.starts_with(PREFIX) || ["/healthz", "/readyz"].contains(&path));
    }
}

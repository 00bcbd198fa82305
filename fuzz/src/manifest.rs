//! What holds for manifests: the first line is the content type, the rest the document.

use registry_core::{
    digest::Digest,
    manifest::{self, Kind, Role},
};
use serde_json::Value;

use super::text;

/// A document is taken for the same manifest however it came, has the links of its kind, and its
/// entry in a list of referrers says what it says.
pub fn check(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (head, body) = data.split_at(at);
    let Some(content_type) = text(head) else { return };
    let Ok(parsed) = manifest::parse(body, Some(content_type).filter(|text| !text.is_empty())) else { return };
    assert!(manifest::is_manifest(&parsed.media_type));
    for link in &parsed.links {
        assert_eq!(link.role == Role::Child, parsed.kind == Kind::Index, "{link:?}");
        assert!(i64::try_from(link.size).is_ok());
    }
    assert!(parsed.links.iter().filter(|link| link.role == Role::Config).count() <= 1);

    // Its own type is what it is served as, and it is taken again as the same.
    let again = manifest::parse(body, Some(&parsed.media_type)).expect("it was one just now");
    assert_eq!(again, parsed);
    // Nothing depends on which of two values a reader takes. Fields that are not looked at may hold what
    // only some readers refuse: half a surrogate pair, a number beyond every type.
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        let plain = manifest::parse(value.to_string().as_bytes(), Some(&parsed.media_type));
        assert_eq!(plain.expect("the same document"), parsed);
    }

    let digest: Digest = format!("sha256:{}", "a".repeat(64)).parse().expect("a digest");
    let shown: Value = serde_json::from_str(&parsed.referrer_descriptor(&digest, 7)).expect("it is JSON");
    assert_eq!(shown["mediaType"], parsed.media_type.as_str());
    assert_eq!(shown["digest"], digest.to_string());
    assert_eq!(shown["artifactType"].as_str(), parsed.artifact_type.as_deref());
    let annotations = shown["annotations"].as_object().map_or(0, serde_json::Map::len);
    assert_eq!(annotations, parsed.annotations.len());
}

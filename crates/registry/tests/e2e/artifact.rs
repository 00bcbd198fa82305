//! Artifacts that refer to an image (signatures, SBOMs), pushed with nothing but curl.

use std::fs;

use serde_json::json;
use testkit::command::{self, tool};
use testkit::image::{OCI_INDEX, OCI_MANIFEST, descriptor, sha256};

use crate::plain_registry;

/// What curl got.
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let lines = self.headers.lines().filter_map(|line| line.split_once(':'));
        let mut found = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map_or("", |(_, value)| value.trim())
    }
}

/// Runs `curl` with `args`.
#[track_caller]
pub(crate) fn curl(args: &[&str]) -> Answer {
    let dir = tempfile::tempdir().expect("create a temp dir");
    let (headers, body) = (dir.path().join("headers"), dir.path().join("body"));
    let mut command = tool("curl");
    command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "60"]);
    command.args(["--write-out", "%{http_code}", "--dump-header"]).arg(&headers);
    command.arg("--output").arg(&body).args(args);
    let status = command::run(command).ok().stdout;
    Answer {
        status: status.trim().parse().expect("curl writes the status"),
        headers: fs::read_to_string(headers).expect("curl writes the headers"),
        // Without a body curl creates no file.
        body: fs::read(body).unwrap_or_default(),
    }
}

#[test]
fn an_artifact_is_found_through_its_subject() {
    let server = plain_registry();
    let dir = tempfile::tempdir().expect("create a temp dir");
    let repo = format!("{}/v2/team/api", server.url());
    let upload = |content: &[u8], args: &[&str]| {
        let file = dir.path().join("upload");
        fs::write(&file, content).expect("write the upload");
        let data = format!("@{}", file.display());
        curl(&[&["--data-binary", data.as_str()], args].concat())
    };
    let push_blob = |content: &[u8]| {
        let opened = curl(&["-X", "POST", &format!("{repo}/blobs/uploads/")]);
        assert_eq!(opened.status, 202);
        let location = opened.header("location");
        let mark = if location.contains('?') { '&' } else { '?' };
        let target = format!("{location}{mark}digest={}", sha256(content));
        let kind = "Content-Type: application/octet-stream";
        assert_eq!(upload(content, &["-X", "PUT", "-H", kind, &target]).status, 201);
    };
    let push_manifest = |manifest: &str, reference: &str| {
        let kind = format!("Content-Type: {OCI_MANIFEST}");
        let target = format!("{repo}/manifests/{reference}");
        let put = upload(manifest.as_bytes(), &["-X", "PUT", "-H", &kind, &target]);
        assert_eq!(put.status, 201, "{}", String::from_utf8_lossy(&put.body));
        put
    };

    push_blob(b"{}");
    push_blob(b"the signature");
    let empty = descriptor("application/vnd.oci.empty.v1+json", b"{}");
    let image = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": empty, "layers": [empty],
    })
    .to_string();
    push_manifest(&image, "1.0");
    let subject = descriptor(OCI_MANIFEST, image.as_bytes());
    for kind in ["application/vnd.test.signature", "application/vnd.test.sbom"] {
        let artifact = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": kind,
            "config": empty, "layers": [descriptor("text/plain", b"the signature")],
            "subject": subject, "annotations": {"made.by": "test"},
        })
        .to_string();
        let put = push_manifest(&artifact, &sha256(artifact.as_bytes()));
        assert_eq!(put.header("oci-subject"), sha256(image.as_bytes()));
    }

    let check = |query: &str, expected: &[&str]| {
        let target = format!("{repo}/referrers/{}{query}", sha256(image.as_bytes()));
        let got = curl(&[&target]);
        assert_eq!((got.status, got.header("content-type")), (200, OCI_INDEX), "{query}");
        let index: serde_json::Value = serde_json::from_slice(&got.body).expect("an index");
        let entries = index["manifests"].as_array().expect("an index lists manifests");
        let mut kinds: Vec<_> = entries.iter().map(|entry| entry["artifactType"].as_str().unwrap_or("none")).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, expected, "{query}");
        assert!(entries.iter().all(|entry| entry["annotations"]["made.by"] == "test"), "{index}");
        got
    };
    check("", &["application/vnd.test.sbom", "application/vnd.test.signature"]);
    let filtered = "?artifactType=application/vnd.test.sbom";
    let got = check(filtered, &["application/vnd.test.sbom"]);
    assert_eq!(got.header("oci-filters-applied"), "artifactType");
}

//! Uploads that are interrupted, by either side.

use testkit::image::sha256;
use testkit::random::{Random, seed};

use crate::plain_registry;

#[test]
fn an_upload_goes_on_after_the_server_was_killed() {
    let mut server = plain_registry();
    let content = Random::new(seed()).bytes(900_000);
    let digest = sha256(&content);
    let client = server.client();
    let location = client.start_upload("team/api").expect("open an upload");
    let location = client.patch(&location, 0, &content[..400_000]).expect("send the first part");
    server.kill9();
    server.start_again();

    let status = client.get(&location).expect("an answer");
    assert_eq!(status.status, 204, "{}", status.text());
    let last: usize = status.header("range").trim_start_matches("0-").parse().expect("0-<last>");
    assert_eq!(last, 399_999);
    let rest = status.header("location");
    let rest = client.patch(rest, last + 1, &content[last + 1..800_000]).expect("go on");
    client.finish(&rest, &content[800_000..], &digest).expect("close the upload");
    let got = client.get(&format!("/v2/team/api/blobs/{digest}")).expect("get the blob");
    assert_eq!((got.status, sha256(&got.body)), (200, digest));
}

#[test]
fn a_small_upload_that_died_with_the_server_begins_again() {
    let mut server = plain_registry();
    let content = Random::new(seed()).bytes(2_000);
    let client = server.client();
    let location = client.start_upload("team/api").expect("open an upload");
    let location = client.patch(&location, 0, &content[..1_000]).expect("send the first part");
    server.kill9();
    server.start_again();

    let status = client.get(&location).expect("an answer");
    assert_eq!((status.status, status.error_code().as_str()), (404, "BLOB_UPLOAD_UNKNOWN"));
    client.push_blob("team/api", &content).expect("begin again");

    // One that ends in order keeps even those.
    let location = client.start_upload("team/api").expect("open an upload");
    let location = client.patch(&location, 0, &content[..1_500]).expect("send the first part");
    server.restart();
    let rest = client.patch(&location, 1_500, &content[1_500..]).expect("go on");
    client.finish(&rest, b"", &sha256(&content)).expect("close the upload");
}

#[test]
fn a_blob_that_does_not_match_its_digest_is_refused_and_not_kept() {
    let server = plain_registry();
    let client = server.client();
    let (right, wrong) = (sha256(b"expected"), b"something else");
    let location = client.start_upload("team/api").expect("open an upload");
    let error = client.finish(&location, wrong, &right).expect_err("the digest is wrong");
    let testkit::client::PushError::Refused(response) = error else {
        panic!("an answer should come: {error:?}");
    };
    assert_eq!((response.status, response.error_code().as_str()), (400, "DIGEST_INVALID"));
    for digest in [right, sha256(wrong)] {
        let path = format!("/v2/team/api/blobs/{digest}");
        assert_eq!(client.head(&path).expect("an answer").status, 404);
    }
}

//! What holds for the forms that ask for tokens: the body of `POST /token`.

use registry::fuzzing::{Form, encode, form};
use registry_core::access::{Access, Resource};

/// A form that is taken names somebody, and asks for the same in its usual spelling.
pub fn check(data: &[u8]) {
    let Some(read) = form(data) else { return };
    assert!(!read.proof.is_empty() && read.proof.iter().all(|part| !part.is_empty()));
    assert!(read.wanted.is_sorted_by(|a, b| a < b));
    assert_eq!(form(usual(&read).as_bytes()), Some(read));
}

fn usual(form: &Form) -> String {
    let mut text = match &form.proof[..] {
        [name, password] => {
            format!("grant_type=password&username={}&password={}", encode(name), encode(password))
        }
        [token] => format!("grant_type=refresh_token&refresh_token={}", encode(token)),
        _ => panic!("no form has such a proof"),
    };
    for rights in form.wanted.chunk_by(|a, b| a.resource == b.resource) {
        text.push_str("&scope=");
        text.push_str(&encode(&spell(rights)));
    }
    if form.offline {
        text.push_str("&access_type=offline");
    }
    text
}

/// The scope of rights on one resource.
fn spell(rights: &[Access]) -> String {
    let actions: Vec<&str> = rights.iter().map(|right| right.action.as_str()).collect();
    let actions = actions.join(",");
    match &rights[0].resource {
        Resource::Repository(name) => format!("repository:{name}:{actions}"),
        Resource::Catalog => format!("registry:catalog:{actions}"),
    }
}

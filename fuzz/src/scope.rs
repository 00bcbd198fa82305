//! What holds for the scopes of a token request: one parameter a line.

use registry_auth::scope::{MAX_BYTES, MAX_SCOPES, parse};
use registry_core::access::{Access, Resource};

use super::text;

/// What is wanted was spelled in the request, has one form, and does not depend on what stands
/// beside it.
pub fn check(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let parameters: Vec<&str> = text.split('\n').collect();
    let Ok(wanted) = parse(parameters.iter().copied()) else {
        assert!(text.len() > MAX_BYTES || text.split([' ', '\n']).count() > MAX_SCOPES, "within the limits");
        return;
    };
    assert!(wanted.is_sorted_by(|a, b| a < b), "sorted, nothing twice: {wanted:?}");
    let spelled: Vec<String> = wanted.iter().map(spell).collect();
    for (access, spelling) in wanted.iter().zip(&spelled) {
        if let Resource::Repository(name) = &access.resource {
            assert!(text.contains(name.as_str()), "{name} was not asked for");
        }
        assert!(text.contains(access.action.as_str()), "{} was not asked for", access.action);
        assert_eq!(parse([spelling.as_str()]).as_deref(), Ok(std::slice::from_ref(access)));
    }
    let mut one_by_one: Vec<Access> =
        parameters.iter().flat_map(|one| parse([*one]).expect("less than all of them")).collect();
    one_by_one.sort();
    one_by_one.dedup();
    assert_eq!(one_by_one, wanted);
}

fn spell(access: &Access) -> String {
    match &access.resource {
        Resource::Repository(name) => format!("repository:{name}:{}", access.action),
        Resource::Catalog => format!("registry:catalog:{}", access.action),
    }
}

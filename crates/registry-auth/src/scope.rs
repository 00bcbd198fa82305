//! Owns the scopes of a token request: which rights the text asks for.
//!
//! Does not own which of them the caller gets.

use registry_core::access::{Access, Action, Resource};

/// The most scopes of one request.
pub const MAX_SCOPES: usize = 64;
/// The most bytes of all scope parameters of one request. A token with as many rights still fits
/// into [`crate::token::MAX_TOKEN`].
pub const MAX_BYTES: usize = 8 << 10;

/// A request for more than one token should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// More than [`MAX_SCOPES`].
    #[error("read the scope: more than {MAX_SCOPES} scopes (ask for several tokens)")]
    TooMany,
    /// More than [`MAX_BYTES`].
    #[error("read the scope: longer than {MAX_BYTES} bytes (ask for several tokens)")]
    TooLong,
}

/// The rights that the scope parameters of a request ask for, sorted and without duplicates. Each
/// parameter holds scopes such as `repository:team/api:pull,push`, separated by spaces. What we do
/// not understand asks for nothing, because granting less than asked is no error.
/// Source: distribution, `docs/content/spec/auth/scope.md`.
pub fn parse<'a>(parameters: impl IntoIterator<Item = &'a str>) -> Result<Vec<Access>, ScopeError> {
    let (mut wanted, mut bytes, mut scopes) = (Vec::new(), 0, 0);
    for parameter in parameters {
        bytes += parameter.len();
        if bytes > MAX_BYTES {
            return Err(ScopeError::TooLong);
        }
        for scope in parameter.split(' ').filter(|scope| !scope.is_empty()) {
            scopes += 1;
            if scopes > MAX_SCOPES {
                return Err(ScopeError::TooMany);
            }
            wanted.extend(understood(scope).into_iter().flatten());
        }
    }
    wanted.sort();
    wanted.dedup();
    Ok(wanted)
}

/// The rights of one scope. A name may hold colons by the grammar (`localhost:5000/x`), so the
/// type ends at the first and the actions begin after the last; ours hold none.
fn understood(scope: &str) -> Option<impl Iterator<Item = Access>> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let resource = resource(kind, name)?;
    Some(actions.split(',').filter_map(action).map(move |action| Access { resource: resource.clone(), action }))
}

/// What a type and a name mean, if they are of ours.
pub(crate) fn resource(kind: &str, name: &str) -> Option<Resource> {
    match (without_class(kind), name) {
        ("repository", name) => name.parse().ok().map(Resource::Repository),
        ("registry", "catalog") => Some(Resource::Catalog),
        _ => None,
    }
}

/// The action that is spelled so.
pub(crate) fn action(text: &str) -> Option<Action> {
    [Action::Pull, Action::Push, Action::Delete, Action::All].into_iter().find(|action| action.as_str() == text)
}

/// `repository` of `repository(plugin)`: the class says what kind of image is meant, not which
/// repository. Source: distribution, `docs/content/spec/auth/scope.md`.
fn without_class(kind: &str) -> &str {
    match kind.strip_suffix(')').and_then(|kind| kind.split_once('(')) {
        Some((kind, class))
            if !class.is_empty() && class.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()) =>
        {
            kind
        }
        _ => kind,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, prop, proptest};
    use registry_core::access::Resource;

    use super::{MAX_BYTES, MAX_SCOPES, ScopeError, parse};
    use crate::challenge::scope_of;

    fn check(parameters: &[&str], expected: &str) {
        let wanted: Vec<String> = parse(parameters.iter().copied()).unwrap().iter().map(scope_of).collect();
        assert_eq!(wanted.join(" "), expected, "{parameters:?}");
    }

    #[test]
    fn scopes_ask_for_what_we_understand() {
        check(&[], "");
        check(&["", " ", "   "], "");
        check(&["repository:team/api:pull,push"], "repository:team/api:pull repository:team/api:push");
        check(&["repository:b:pull repository:a:pull"], "repository:a:pull repository:b:pull");
        check(
            &["repository:b:pull", "  repository:a:push,pull "],
            "repository:a:pull repository:a:push repository:b:pull",
        );
        check(&["repository:a:pull,pull repository:a:pull", "repository:a:pull"], "repository:a:pull");
        check(&["repository:a:*"], "repository:a:*");
        check(&["repository:a:delete"], "repository:a:delete");
        check(&["registry:catalog:*"], "registry:catalog:*");
        check(&["repository(plugin):team/p:pull"], "repository:team/p:pull");
        // One that asks for nothing does not spoil the others.
        check(&["nonsense repository:a:pull,fly,push"], "repository:a:pull repository:a:push");
    }

    #[test]
    fn what_we_do_not_understand_asks_for_nothing() {
        for bad in [
            "repository",
            "repository:a",
            "repository:a:",
            "repository:a:,",
            "repository::pull",
            ":a:pull",
            "::",
            ":",
            "repository:../x:pull",
            "repository:a/../b:pull",
            "repository:./a:pull",
            "repository:/a:pull",
            "repository:a/:pull",
            "repository:a%2fb:pull",
            "repository:a%2Fb:pull",
            "repository:a\\b:pull",
            "repository:Team/api:pull",
            "repository:größe:pull",
            "repository:*:pull",
            "repository:team/*:pull",
            "repository:team/**:pull",
            "repository:a\0:pull",
            "repository:a\tb:pull",
            "repository:a:pull\n",
            "\trepository:a:pull",
            "repository:localhost:5000/x:pull",
            "repository:reg.test:5000/x:pull,push",
            "repository:a:pull:push",
            "repository:a:PULL",
            "repository:a:pull;push",
            "Repository:a:pull",
            "repository():a:pull",
            "repository(Plugin):a:pull",
            "repository(plugin:a:pull",
            "(plugin)repository:a:pull",
            "registry:other:*",
            "registry:catalog",
            "admin:a:*",
            "aws:arn:aws:iam:pull",
        ] {
            check(&[bad], "");
        }
        check(&[&format!("repository:{}:pull", "a".repeat(256))], "");
    }

    #[test]
    fn a_request_has_limits() {
        let outcome = |parameters: Vec<String>| parse(parameters.iter().map(String::as_str)).map(|wanted| wanted.len());
        let many = |count: usize| (0..count).map(|n| format!("repository:a{n}:pull")).collect::<Vec<_>>();
        assert_eq!(outcome(many(MAX_SCOPES)), Ok(MAX_SCOPES));
        assert_eq!(outcome(many(MAX_SCOPES + 1)), Err(ScopeError::TooMany));
        assert_eq!(outcome(vec![many(MAX_SCOPES + 1).join(" ")]), Err(ScopeError::TooMany));
        assert_eq!(outcome(vec!["x ".repeat(MAX_SCOPES + 1)]), Err(ScopeError::TooMany));
        assert_eq!(outcome(vec![" ".repeat(MAX_BYTES)]), Ok(0));
        assert_eq!(outcome(vec![" ".repeat(MAX_BYTES + 1)]), Err(ScopeError::TooLong));
        assert_eq!(outcome(vec![" ".repeat(MAX_BYTES), "x".to_owned()]), Err(ScopeError::TooLong));
        let actions = vec!["pull,push"; 800].join(",");
        assert_eq!(outcome(vec![format!("repository:a:{actions}")]), Ok(2));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// No right comes of a text that does not spell it.
        #[test]
        fn nothing_that_was_not_asked(
            texts in prop::collection::vec(
                "((repository|registry|repo)(\\(plugin\\))?:(a|a/b|catalog|A|\\.\\./x|a%2fb|h:1/x)?:(pull|push|delete|\\*|,|x){0,4} ?){0,3}|.{0,40}",
                0..4,
            ),
        ) {
            let Ok(wanted) = parse(texts.iter().map(String::as_str)) else { return Ok(()) };
            assert!(wanted.is_sorted() && wanted.windows(2).all(|pair| pair[0] != pair[1]));
            for access in wanted {
                let name = match &access.resource {
                    Resource::Repository(name) => name.as_str(),
                    Resource::Catalog => "catalog",
                };
                let spelled = |scope: &str| {
                    let (head, actions) = scope.rsplit_once(':').unwrap_or_default();
                    head.ends_with(&format!(":{name}")) && actions.split(',').any(|action| action == access.action.as_str())
                };
                assert!(texts.iter().flat_map(|text| text.split(' ')).any(spelled), "{access:?} of {texts:?}");
            }
        }
    }
}

//! What is written can be read, and what is damaged is said to be.

use proptest::{
    collection::vec,
    option,
    prelude::{Just, Strategy, any, prop_oneof, proptest},
    sample::select,
};
use registry_core::{
    account::{AccountId, Kind, PrincipalName},
    directory::{Directory, Edit, SigningKey, SubjectName},
    policy::{Right, Rights},
};

use super::{DocumentError, decode, encode};

fn names() -> impl Strategy<Value = PrincipalName> {
    select(vec!["a", "b.c", "d@e-f"]).prop_map(|name| name.parse().unwrap())
}

fn kinds() -> impl Strategy<Value = Kind> {
    select(vec![Kind::User, Kind::Robot])
}

fn subjects() -> impl Strategy<Value = SubjectName> {
    prop_oneof![
        (kinds(), names()).prop_map(|(kind, name)| SubjectName::Account(kind, name)),
        names().prop_map(SubjectName::Group),
        Just(SubjectName::Users),
        Just(SubjectName::Anonymous),
    ]
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let text = || "\\PC{0,12}";
    let rights = vec(select(&Right::ALL[..]), 0..4).prop_map(|rights| rights.into_iter().collect::<Rights>());
    let globs = select(vec!["**", "team/*", "team/api", "a/b-*/**"]).prop_map(|glob| glob.parse().unwrap());
    let add =
        (names(), kinds(), text()).prop_map(|(name, kind, description)| Edit::AddAccount { name, kind, description });
    let secret = (kinds(), names(), any::<[u8; 32]>(), text(), option::of(any::<i64>()))
        .prop_map(|(kind, name, hash, label, expires_at)| Edit::AddSecret { kind, name, hash, label, expires_at });
    let key = (text(), vec(any::<u8>(), 0..50), any::<i64>())
        .prop_map(|(id, pkcs8, created_at)| Edit::AddKey(SigningKey { id, pkcs8, created_at }));
    let edit = prop_oneof![
        3 => add,
        1 => (kinds(), names()).prop_map(|(kind, name)| Edit::RemoveAccount(kind, name)),
        1 => (kinds(), names(), any::<bool>()).prop_map(|(kind, name, off)| Edit::SetDisabled(kind, name, off)),
        2 => (names(), ".{0,40}").prop_map(|(name, hash)| Edit::SetPassword(name, hash)),
        3 => secret,
        1 => (kinds(), names(), any::<i64>()).prop_map(|(kind, name, at)| Edit::EndSecrets(kind, name, at)),
        2 => names().prop_map(Edit::AddGroup),
        1 => names().prop_map(Edit::RemoveGroup),
        2 => (names(), kinds(), names()).prop_map(|(group, kind, name)| Edit::AddMember(group, kind, name)),
        3 => (subjects(), globs, rights).prop_map(|(subject, glob, rights)| Edit::AddRule(subject, glob, rights)),
        1 => key,
    ];
    vec(edit, 0..60)
}

proptest! {
    #[test]
    fn what_is_written_can_be_read(issuer in ".{0,20}", now in any::<i64>(), edits in edits()) {
        let mut directory = Directory::new(issuer);
        for edit in edits {
            // What is refused in this small world changes nothing.
            directory = directory.edited(&[edit], now).unwrap_or(directory);
        }
        let text = encode(directory.clone()).unwrap();
        assert_eq!(decode(text.as_bytes()).unwrap(), directory, "{text}");
        let half = text.char_indices().nth(text.chars().count() / 2).unwrap().0;
        assert!(matches!(decode(&text.as_bytes()[..half]), Err(DocumentError::Damaged(_))));
    }
}

fn sample() -> Directory {
    let name = |name: &str| -> PrincipalName { name.parse().unwrap() };
    let account = |text: &str, kind| Edit::AddAccount { name: name(text), kind, description: "it's \"x\"".into() };
    let rule = |subject: &str, glob: &str, rights: &str| {
        Edit::AddRule(subject.parse().unwrap(), glob.parse().unwrap(), rights.parse().unwrap())
    };
    let edits = [
        account("root", Kind::User),
        Edit::SetPassword(name("root"), "$argon2id$hunter2".into()),
        account("ci", Kind::Robot),
        Edit::AddSecret {
            kind: Kind::Robot,
            name: name("ci"),
            hash: [0xab; 32],
            label: "main".into(),
            expires_at: Some(900),
        },
        Edit::AddGroup(name("dev")),
        Edit::AddMember(name("dev"), Kind::User, name("root")),
        rule("user:root", "**", "admin"),
        rule("group:dev", "dev/*", "pull,push"),
        rule("anonymous", "public/**", "pull"),
        Edit::AddKey(SigningKey { id: "k1".into(), pkcs8: vec![1, 2, 255], created_at: 100 }),
    ];
    Directory::new("here".into()).edited(&edits, 100).unwrap()
}

/// The form that databases have: it stays readable, or gets a number of its own.
#[test]
fn the_form_is_kept() {
    let text = concat!(
        r#"{"format":1,"issuer":"here","next":9,"accounts":["#,
        r#"{"id":1,"name":"root","kind":"user","disabled":false,"description":"it's \"x\"","created_at":100,"#,
        r#""credentials":[{"id":2,"verifier":{"password":"$argon2id$hunter2"},"label":"","created_at":100}]},"#,
        r#"{"id":3,"name":"ci","kind":"robot","disabled":false,"description":"it's \"x\"","created_at":100,"#,
        r#""credentials":[{"id":4,"verifier":{"secret_sha256":"abababababababababababababababababababababababababababababababab"},"#,
        r#""label":"main","created_at":100,"expires_at":900}]}],"#,
        r#""groups":[{"id":5,"name":"dev","members":[1]}],"#,
        r#""rules":[{"id":6,"subject":{"account":1},"repositories":"**","rights":["admin"],"created_at":100},"#,
        r#"{"id":7,"subject":{"group":5},"repositories":"dev/*","rights":["pull","push"],"created_at":100},"#,
        r#"{"id":8,"subject":"anonymous","repositories":"public/**","rights":["pull"],"created_at":100}],"#,
        r#""keys":[{"id":"k1","pkcs8":"AQL/","created_at":100}]}"#,
    );
    assert_eq!(encode(sample()).unwrap(), text);
    assert_eq!(decode(text.as_bytes()).unwrap(), sample());
}

#[test]
fn damage_is_named_and_no_secret_is() {
    let check = |from: &str, to: &str, expected: &str| {
        let text = encode(sample()).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        let error = decode(text.replacen(from, to, 1).as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("backup"), "{from} -> {to}: {error}");
        for secret in ["hunter2", "abab", "AQL"] {
            assert!(!error.contains(secret), "{from} -> {to}: {error}");
        }
    };
    check(r#""format":1"#, r#""format":2"#, "they have format 2, this server knows 1: run the newer server");
    check(r#""format":1,"#, r#""format":2,"extra":{},"#, "they have format 2");
    check(r#""format":1"#, r#""format":0"#, "there is no format 0");
    check(r#""format":1,"#, "", "not as this format has it");
    check("{", "", "not as this format has it");
    check(":100}", ":100", "this is no JSON, line 1 column");
    check("]}]", "]", "the document ends early, line 1 column");
    check(r#""issuer":"here","#, "", "not as this format has it");
    check(r#""issuer""#, r#""issuer2""#, "not as this format has it");
    check(r#""password":"#, r#""password2":"#, "not as this format has it");
    check(r#""id":2"#, r#""id":"$argon2id$hunter2""#, "not as this format has it");
    check("\"abab", "\"xbab", "credential 4 is not 64 hex digits");
    check("\"abab", "\"+bab", "credential 4 is not 64 hex digits");
    check("\"abab", "\"éab", "credential 4 is not 64 hex digits");
    check("\"abab", "\"ab", "credential 4 is not 64 hex digits");
    check(r#""name":"ci""#, r#""name":"CI""#, "account 3 has no good name");
    check(r#""name":"dev""#, r#""name":"""#, "group 5 has no good name");
    check("dev/*", "dev//", "rule 7 has no good repositories");
    check(r#"["pull","push"]"#, r#"["pull","own"]"#, "rule 7 has no good rights");
    check("AQL/", "AQL*", "a signing key is not base64");
    check(r#""id":4"#, r#""id":9"#, "id 9 is not below 9, the next");
    check(r#""id":3"#, r#""id":1"#, "id 1 is there twice");
    check(r#""id":8"#, r#""id":4"#, "id 4 is there twice");
    check(r#""name":"ci""#, r#""name":"root""#, "account 3 has the name of another one");
    check(r#""next":9"#, r#""next":18446744073709551615"#, "above all that can have been given");
    check(r#""members":[1]"#, r#""members":[4]"#, "group 5 has the member 4");
    check(r#"{"group":5}"#, r#"{"group":1}"#, "rule 7 is for somebody who does not exist");
    check(r#"{"account":1}"#, r#"{"account":5}"#, "rule 6 is for somebody who does not exist");
}

#[test]
fn what_could_not_be_read_is_not_written() {
    let mut parts = sample().into_parts();
    parts.accounts.retain(|account| account.id != AccountId(1));
    let error = encode(Directory::from_parts(parts)).unwrap_err();
    assert!(matches!(&error, DocumentError::Contradiction(what) if what.contains("member 1")), "{error}");
    let mut parts = sample().into_parts();
    parts.issuer = "x".repeat(super::MAX_BYTES);
    assert!(matches!(encode(Directory::from_parts(parts)), Err(DocumentError::TooLong(_))));
}

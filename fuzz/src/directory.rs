//! What holds for the stored directory of accounts and rules.

use registry_core::{
    account::{Kind, PrincipalName},
    directory::Edit,
    policy::{Policy, RepoGlob, Right},
};
use registry_store::fuzzing::{decode, encode};

/// What can be read can be written, is the same when it is read again, and can be edited and asked.
pub fn check(data: &[u8]) {
    let directory = match decode(data) {
        Ok(directory) => directory,
        Err(why) => return assert!(why.len() < 1024 && !why.contains(char::is_control), "{why:?}"),
    };
    let text = encode(directory.clone()).expect("what was read can be written");
    let again = decode(text.as_bytes()).expect("what was written can be read");
    assert_eq!(again, directory);
    assert_eq!(encode(again).as_ref(), Ok(&text));

    let policy = Policy::new(&directory);
    let name = "team/api".parse().expect("a name");
    let callers = directory.accounts().map(|account| (Some(account.id), account.disabled)).chain([(None, false)]);
    for (who, disabled) in callers {
        for right in Right::ALL {
            let rule = policy.decide(who, &name, right);
            assert_eq!(rule.is_some(), policy.allows(who, &name, right));
            assert!(!disabled || rule.is_none(), "a disabled account has no rights");
        }
        if policy.may_administer(who, &RepoGlob::everything()) {
            assert!(policy.allows(who, &name, Right::Admin));
        }
    }

    let newcomer: PrincipalName = "newcomer".parse().expect("a name");
    let add = Edit::AddAccount { name: newcomer.clone(), kind: Kind::User, description: String::new() };
    if let Ok(edited) = directory.edited(&[add], 0) {
        let added = edited.account_named(Kind::User, &newcomer).expect("it was added just now").id;
        assert!(directory.account(added).is_none(), "an id that was used before");
        encode(edited).expect("what was edited can be written");
    }
}

//! Owns how values of the account commands are written: times, scopes of robots, subjects.

use registry_core::{
    account::PrincipalName,
    directory::SubjectName,
    policy::{RepoGlob, Rights},
};

/// The longest time that can be asked for, in seconds: a hundred years.
const MOST: u64 = 100 * 365 * DAY;
const DAY: u64 = 24 * 60 * 60;

/// A time in seconds, above zero.
pub(crate) fn lifetime(text: &str) -> Result<u64, String> {
    match overlap(text)? {
        0 => Err("must be above zero".to_owned()),
        seconds => Ok(seconds),
    }
}

/// A time in seconds: a number and one of `s`, `m`, `h`, `d`, `w`.
pub(crate) fn overlap(text: &str) -> Result<u64, String> {
    let units = [("s", 1), ("m", 60), ("h", 60 * 60), ("d", DAY), ("w", 7 * DAY)];
    let (number, unit) = units
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))
        .filter(|(number, _)| !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit()))
        .ok_or("write a number and a unit, such as 45s, 30m, 12h, 90d or 2w")?;
    let seconds = number.parse().ok().and_then(|number: u64| number.checked_mul(unit));
    seconds.filter(|seconds| *seconds <= MOST).ok_or_else(|| "is more than a hundred years".to_owned())
}

/// What a robot may do where: `GLOB:RIGHTS`.
pub(crate) fn scope(text: &str) -> Result<(RepoGlob, Rights), String> {
    let (glob, rights) = text.rsplit_once(':').ok_or("write GLOB:RIGHTS, such as team/*:push,delete")?;
    let glob = glob.parse().map_err(|error: registry_core::policy::GlobError| error.to_string())?;
    let rights = rights.parse().map_err(|error: registry_core::policy::RightError| error.to_string())?;
    Ok((glob, rights))
}

/// Whom a rule is for.
pub(crate) fn subject(text: &str) -> Result<SubjectName, String> {
    if text.parse::<PrincipalName>().is_ok() && text != "users" && text != "anonymous" {
        return Err(match text {
            "user" | "everyone" | "all" | "*" => "write `users` for all users, or `anonymous` for everybody".to_owned(),
            name => format!("say what it is: user:{name}, robot:{name} or group:{name}"),
        });
    }
    text.parse().map_err(|error: registry_core::directory::SubjectNameError| error.to_string())
}

/// Who can be in a group.
pub(crate) fn member(text: &str) -> Result<SubjectName, String> {
    if text.parse::<PrincipalName>().is_ok() {
        return Err(format!("say what it is: user:{text} or robot:{text}"));
    }
    match subject(text)? {
        member @ SubjectName::Account(..) => Ok(member),
        _ => Err("only users and robots can be in a group: write user:NAME or robot:NAME".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let check = |text: &str, want: Option<u64>| assert_eq!(overlap(text).ok(), want, "{text:?}");
        for (text, want) in
            [("90d", 7_776_000), ("12h", 43_200), ("30m", 1800), ("45s", 45), ("2w", 1_209_600), ("0s", 0)]
        {
            check(text, Some(want));
        }
        let most = format!("{}d", 100 * 365);
        check(&most, Some(MOST));
        for bad in
            ["", "d", "90", "-1d", "+1d", "1.5h", "90 d", "90D", "1y", "1h30m", "36501d", "99999999999999999999s"]
        {
            check(bad, None);
        }
        assert!(lifetime("0s").is_err());
    }

    #[test]
    fn scopes() {
        let check = |text: &str, want: &str| {
            let seen = match scope(text) {
                Ok((glob, rights)) => format!("{glob} {rights}"),
                Err(error) => error,
            };
            assert!(seen.contains(want), "{text:?}: {seen}");
        };
        check("team/*:push,delete", "team/* push,delete");
        check("**:delete, pull", "** pull,delete");
        check("team/*", "write GLOB:RIGHTS");
        check("team/*:", "is no right");
        check("team/*:write", "`write` is no right");
        check("Team:pull", "no repository name has");
        check(":pull", "empty component");
    }

    #[test]
    fn subjects() {
        let check = |text: &str, want: &str| {
            let seen = subject(text).map_or_else(|error| error, |subject| subject.to_string());
            assert!(seen.contains(want), "{text:?}: {seen}");
        };
        for text in ["user:alice", "robot:ci", "group:dev", "users", "anonymous"] {
            check(text, text);
        }
        check("alice", "user:alice, robot:alice or group:alice");
        check("everyone", "`anonymous`");
        check("user:", "a name is 1 to");
        check("team:dev", "names nobody");
        assert!(member("user:alice").is_ok() && member("robot:ci").is_ok());
        assert_eq!(member("alice").unwrap_err(), "say what it is: user:alice or robot:alice");
        assert!(member("group:dev").is_err() && member("users").is_err());
    }
}

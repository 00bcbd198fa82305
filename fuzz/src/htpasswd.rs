//! What holds for htpasswd files.

use registry_auth::fuzzing::{User, htpasswd};

/// A file means the same after it was written down again, and the line that is blamed is the first
/// without a colon.
pub fn check(data: &[u8]) {
    let lines = || data.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let says_something = |line: &&[u8]| !line.is_empty() && !line.starts_with(b"#");
    match htpasswd(data) {
        Err(number) => {
            let first = lines().position(|line| says_something(&line) && !line.contains(&b':'));
            assert_eq!(first.map(|index| index + 1), Some(number));
        }
        Ok(users) => {
            assert!(users.len() <= lines().filter(says_something).count());
            for (user, hash) in &users {
                assert!(!user.contains(&b':'));
                assert!(hash.is_empty() || hash.len() == 60 && hash.starts_with(b"$2b$"), "{hash:?}");
            }
            let line = |(user, hash): &User| [user, b":".as_slice(), hash, b"\n"].concat();
            let again: Vec<u8> = users.iter().flat_map(line).collect();
            assert_eq!(htpasswd(&again), Ok(users));
        }
    }
}

//! Owns random bytes for salts, secrets and token names.
//!
//! Does not own what is made of them.

use ring::rand::{SecureRandom, SystemRandom};

/// `N` random bytes of the kernel; `N` is at most 256.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    const { assert!(N <= 256) };
    let mut bytes = [0; N];
    // Source: getrandom(2), "Interruption by a signal handler" and "BUGS".
    SystemRandom::new().fill(&mut bytes).expect("the kernel always gives 256 random bytes once it has started");
    bytes
}

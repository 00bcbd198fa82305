//! Runs `roadstead_fuzz::htpasswd` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roadstead_fuzz::htpasswd::check(data));

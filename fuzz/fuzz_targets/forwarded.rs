//! Runs `roadstead_fuzz::forwarded` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roadstead_fuzz::forwarded::check(data));

//! Runs `roadstead_fuzz::manifest` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roadstead_fuzz::manifest::check(data));

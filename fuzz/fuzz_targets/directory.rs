//! Runs `roadstead_fuzz::directory` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roadstead_fuzz::directory::check(data));

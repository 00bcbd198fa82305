//! Runs `roadstead_fuzz::scope` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roadstead_fuzz::scope::check(data));

//! Runs `roadstead_fuzz::name` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roadstead_fuzz::name::check(data));

//! Runs `roadstead_fuzz::order` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roadstead_fuzz::order::check(data));

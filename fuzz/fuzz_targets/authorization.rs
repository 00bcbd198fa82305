//! Runs `roadstead_fuzz::authorization` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roadstead_fuzz::authorization::check(data));

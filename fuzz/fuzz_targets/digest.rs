//! Runs `roadstead_fuzz::digest` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roadstead_fuzz::digest::check(data));

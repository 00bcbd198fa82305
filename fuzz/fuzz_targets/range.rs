//! Runs `roadstead_fuzz::range` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roadstead_fuzz::range::check(data));

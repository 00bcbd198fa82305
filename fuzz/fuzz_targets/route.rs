//! Runs `roadstead_fuzz::route` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roadstead_fuzz::route::check(data));

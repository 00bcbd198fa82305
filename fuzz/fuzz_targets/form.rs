//! Runs `roadstead_fuzz::form` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roadstead_fuzz::form::check(data));

//! Runs the target of `acr_pull_webhook::fuzz` that has the name of this binary.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| acr_pull_webhook::fuzz::run(env!("CARGO_BIN_NAME"), data));

//! Fuzzes the parser of TREC runs.

#![no_main]

#[path = "../../crates/eval/tests/fuzz/parses.rs"]
mod parses;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = parses::run(bytes);
});

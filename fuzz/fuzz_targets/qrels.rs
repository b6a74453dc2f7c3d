//! Fuzzes the parser of judgements.

#![no_main]

#[path = "../../crates/eval/tests/fuzz/parses.rs"]
mod parses;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = parses::qrels(bytes);
});

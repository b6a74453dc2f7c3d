//! Fuzzes the reader of a corpus in JSONL.

#![no_main]

#[path = "../../crates/corpus/tests/fuzz/reads.rs"]
mod reads;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = reads::corpus("jsonl", bytes);
});

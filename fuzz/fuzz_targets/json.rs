//! Fuzzes the reader of a corpus in one JSON array.

#![no_main]

#[path = "../../crates/corpus/tests/fuzz/reads.rs"]
mod reads;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = reads::corpus("json", bytes);
});

//! Fuzzes the parser of a journal's line.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = hyperrag_store::fuzz::journal(bytes);
});

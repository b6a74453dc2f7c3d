//! Fuzzes the parser of a store's notes.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = hyperrag_store::fuzz::notes(bytes);
});

//! Fuzzes the parser of a shard's header.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = hyperrag_store::fuzz::header(bytes);
});

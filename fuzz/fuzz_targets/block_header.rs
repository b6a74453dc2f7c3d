//! Fuzzes the parser of a block's head.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = hyperrag_store::fuzz::block_header(bytes);
});

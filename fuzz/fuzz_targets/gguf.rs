//! Fuzzes the parser of the header of a GGUF file.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = hyperrag_model::testing::fuzz::gguf(bytes);
});

//! Fuzzes the parser of `config.json`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = hyperrag_model::testing::fuzz::config(bytes);
});

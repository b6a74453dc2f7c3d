//! Fuzzes the rendering of chat templates.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = hyperrag_model::testing::fuzz::chat(bytes);
});

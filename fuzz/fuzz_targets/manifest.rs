//! Fuzzes the parser of manifests.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = hyperrag_store::fuzz::manifest(bytes);
});

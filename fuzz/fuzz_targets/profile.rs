//! Fuzzes the parser of profiles in TOML.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = hyperrag_core::Profile::from_toml(text);
});

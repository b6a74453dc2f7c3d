//! Fuzzes the parser of calibrations.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = hyperrag_store::fuzz::calibration(bytes);
});

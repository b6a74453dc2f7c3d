//! Fuzzes the reader of a whole shard.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = hyperrag_store::fuzz::shard(bytes);
});

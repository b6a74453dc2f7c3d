//! Measures the checksum of a block's layers against a bare sum of the same bytes, which is the roofline. Run
//! it by `cargo bench -p hyperrag-store`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Size of a layer of 256 positions of SmolLM2-135M in bf16, in bytes.
const LAYER_BYTES: usize = 256 * 768;

fn checksum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    // All layers of a block, so that they come from beyond the second-level cache.
    let block: Vec<u8> = (0..30 * LAYER_BYTES).map(|i| (i * 31 % 251) as u8).collect();
    group.throughput(Throughput::Bytes(block.len() as u64));
    group.bench_function("crc32", |b| {
        b.iter(|| block.chunks(LAYER_BYTES).map(crc32fast::hash).fold(0, |a, b| a ^ black_box(b)));
    });
    group.bench_function("bare sum", |b| {
        b.iter(|| {
            let words = black_box(&block).chunks_exact(8);
            words.map(|w| u64::from_le_bytes(w.try_into().unwrap())).fold(0, u64::wrapping_add)
        });
    });
    group.bench_function("blake3", |b| b.iter(|| blake3::hash(black_box(&block))));
}

criterion_group!(benches, checksum);
criterion_main!(benches);

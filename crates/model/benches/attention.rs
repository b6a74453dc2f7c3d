//! `cargo bench --workspace --bench attention`: attention over stored blocks on one thread, at the sizes of
//! SmolLM2-135M, and reading of stored rows. Throughput is in floating-point operations a second (1 Gelem/s
//! is 1 GFLOP/s), or in bytes. The roofline is `memory`, which copies beyond all caches.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hyperrag_core::KvDtype;
use hyperrag_model::testing::attention::Attention;
use hyperrag_model::{ComputeDtype, Kernel};

fn attention(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attention");
    for (stored, rows) in [(256, 20), (512, 20)] {
        for dtype in [ComputeDtype::F32, ComputeDtype::Bf16] {
            for kv_dtype in KvDtype::ALL {
                let kernel = Kernel::best();
                let mut attention = Attention::new(kernel, dtype, kv_dtype, stored, rows);
                group.throughput(Throughput::Elements(attention.flops()));
                let id = BenchmarkId::new(format!("{kv_dtype}-{dtype}"), stored);
                group.bench_function(id, |b| b.iter(|| black_box(attention.run()[0])));
            }
        }
    }
}

/// Times reads of stored rows. Throughput is in bytes as stored.
fn unpacking(criterion: &mut Criterion) {
    const DIM: usize = 64;
    const COUNT: usize = 256;
    let mut group = criterion.benchmark_group("unpack");
    for kv_dtype in KvDtype::ALL {
        let size = kv_dtype.row_bytes(DIM);
        let mut bytes = vec![0; COUNT * size];
        let row: Vec<f32> = (0..DIM).map(|i| (i as f32).sin()).collect();
        bytes.chunks_exact_mut(size).for_each(|bytes| kv_dtype.encode(&row, bytes));
        let mut out = vec![0.0; DIM];
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(kv_dtype.to_string(), |b| {
            b.iter(|| {
                for bytes in bytes.chunks_exact(size) {
                    kv_dtype.decode(black_box(bytes), &mut out);
                    black_box(&mut out);
                }
            });
        });
    }
    let (from, mut to) = (vec![1_u8; 64 << 20], vec![0_u8; 64 << 20]);
    group.throughput(Throughput::Bytes(from.len() as u64));
    group.bench_function("memory", |b| b.iter(|| to.copy_from_slice(black_box(&from))));
}

criterion_group!(benches, attention, unpacking);
criterion_main!(benches);

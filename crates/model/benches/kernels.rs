//! `cargo bench -p hyperrag-model`: the kernels of the CPU path on one thread, at the sizes of
//! SmolLM2-135M. Throughput is in floating-point operations a second (1 Gelem/s is 1 GFLOP/s).
//!
//! The roofline: `peak` multiplies within the first-level cache, `memory` copies beyond all caches.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hyperrag_kv::Element;
use hyperrag_model::bench::{Attention, Product};
use hyperrag_model::{Compute, Kernel};

/// Number of rows of a task, see `TASK_ROWS` of the decoder.
const ROWS: usize = 256;
/// Name, inputs and outputs of the decoder's layers, and of a column group of the LM head.
const LAYERS: [(&str, usize, usize); 5] = [
    ("qkv", 576, 960),
    ("output", 576, 576),
    ("gate_up", 576, 3072),
    ("down", 1536, 576),
    ("head", 576, 1024),
];

fn products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("product");
    // The portable kernel comes last. It is not timed beside others, which would take most of an hour.
    let kernels = Kernel::available();
    for &kernel in &kernels[..(kernels.len() - 1).max(1)] {
        for compute in [Compute::F32, Compute::Bf16, Compute::Int8] {
            let mut bench = |name: &str, mut product: Product| {
                group.throughput(Throughput::Elements(product.flops()));
                let id = BenchmarkId::new(name, format!("{}-{compute}", kernel.name()));
                group.bench_function(id, |b| b.iter(|| black_box(product.run()[0])));
            };
            bench("peak", Product::new(kernel, compute, 24, 192, 32));
            for (name, inputs, outputs) in LAYERS {
                bench(name, Product::new(kernel, compute, ROWS, inputs, outputs));
            }
        }
    }
}

fn attention(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attention");
    for (stored, rows) in [(256, 20), (512, 20)] {
        for compute in [Compute::F32, Compute::Bf16] {
            for element in Element::ALL {
                let kernel = Kernel::best();
                let mut attention = Attention::new(kernel, compute, element, stored, rows);
                group.throughput(Throughput::Elements(attention.flops()));
                let id = BenchmarkId::new(format!("{element}-{compute}"), stored);
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
    for element in Element::ALL {
        let size = element.row_bytes(DIM);
        let mut bytes = vec![0; COUNT * size];
        let row: Vec<f32> = (0..DIM).map(|i| (i as f32).sin()).collect();
        bytes.chunks_exact_mut(size).for_each(|bytes| element.encode(&row, bytes));
        let mut out = vec![0.0; DIM];
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(element.to_string(), |b| {
            b.iter(|| {
                for bytes in bytes.chunks_exact(size) {
                    element.decode(black_box(bytes), &mut out);
                    black_box(&mut out);
                }
            });
        });
    }
    let (from, mut to) = (vec![1_u8; 64 << 20], vec![0_u8; 64 << 20]);
    group.throughput(Throughput::Bytes(from.len() as u64));
    group.bench_function("memory", |b| b.iter(|| to.copy_from_slice(black_box(&from))));
}

criterion_group!(benches, products, attention, unpacking);
criterion_main!(benches);

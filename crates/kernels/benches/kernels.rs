//! `cargo bench --workspace --bench kernels`: products of the CPU on one thread, at the sizes of
//! SmolLM2-135M. Throughput is in floating-point operations a second (1 Gelem/s is 1 GFLOP/s). The
//! roofline is `peak`, which multiplies within the first-level cache.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hyperrag_kernels::cpu::gemm::epilogue::OutputRows;
use hyperrag_kernels::cpu::gemm::pack_lhs::PackedLhs;
use hyperrag_kernels::cpu::gemm::pack_rhs::PackedWeights;
use hyperrag_kernels::dtype::ComputeDtype;
use hyperrag_kernels::isa::Kernel;
use hyperrag_kernels::lanes::Lanes;
use hyperrag_kernels::memory::aligned::Floats;

/// Rows of a task, see `TASK_ROWS` of the decoder.
const ROWS: usize = 256;
/// Name, inputs and outputs of the decoder's layers, and of a column group of the LM head.
const LAYERS: [(&str, usize, usize); 5] = [
    ("qkv", 576, 960),
    ("output", 576, 576),
    ("gate_up", 576, 3072),
    ("down", 1536, 576),
    ("head", 576, 1024),
];

/// Values between -1 and 1 that look random.
fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 % 10_007) as f32 / 5003.5) - 1.0).collect()
}

/// Rows times the weights of a linear layer, on one thread.
struct Product {
    kernel: Kernel,
    x: PackedLhs,
    weights: PackedWeights,
    out: Floats,
    rows: usize,
    upcast: Vec<Lanes>,
    flops: u64,
}

impl Product {
    /// A layer of `inputs` and `outputs`.
    fn new(
        kernel: Kernel,
        dtype: ComputeDtype,
        rows: usize,
        inputs: usize,
        outputs: usize,
    ) -> Self {
        let mut weights = PackedWeights::zeroed(outputs, inputs, dtype).expect("memory");
        weights.fill(0, &values(inputs * outputs));
        let mut x = PackedLhs::default();
        x.start(kernel, kernel.lhs_format(dtype), rows, inputs).set_all(&values(rows * inputs));
        let flops = 2 * (rows * inputs * outputs) as u64;
        Self { kernel, x, weights, out: Floats::default(), rows, upcast: Vec::new(), flops }
    }

    /// Computes it once.
    fn run(&mut self) -> &[f32] {
        let Self { kernel, x, weights, out, rows, upcast, .. } = self;
        let columns = weights.outputs();
        let size = *rows * columns;
        let values = out.take(size);
        let rows = OutputRows::put(*kernel, values, columns);
        weights.product(*kernel, x, weights.panels(), upcast, rows);
        out.get(size)
    }

    /// Floating-point operations of a run.
    fn flops(&self) -> u64 {
        self.flops
    }
}

fn products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("product");
    // The portable kernel comes last, and is not timed beside others: it would take most of an hour.
    let kernels = Kernel::available();
    for &kernel in &kernels[..(kernels.len() - 1).max(1)] {
        for dtype in [ComputeDtype::F32, ComputeDtype::Bf16, ComputeDtype::Int8] {
            let mut bench = |name: &str, mut product: Product| {
                group.throughput(Throughput::Elements(product.flops()));
                let id = BenchmarkId::new(name, format!("{}-{dtype}", kernel.name()));
                group.bench_function(id, |b| b.iter(|| black_box(product.run()[0])));
            };
            bench("peak", Product::new(kernel, dtype, 24, 192, 32));
            for (name, inputs, outputs) in LAYERS {
                bench(name, Product::new(kernel, dtype, ROWS, inputs, outputs));
            }
        }
    }
}

criterion_group!(benches, products);
criterion_main!(benches);

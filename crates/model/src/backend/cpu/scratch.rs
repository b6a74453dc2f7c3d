//! Buffers of forward passes and of threads, kept between passes. They know no layer.

use std::sync::{Mutex, MutexGuard};

use hyperrag_kernels::cpu::attention::softmax::Softmax;
use hyperrag_kernels::cpu::gemm::pack_lhs::PackedLhs;
use hyperrag_kernels::lanes::Lanes;
use hyperrag_kernels::memory::aligned::Floats;

/// Buffers of one forward pass, kept between passes: fresh memory costs page faults, which halved
/// the speed of the prototype.
#[derive(Default)]
pub(crate) struct Workspace {
    /// Residual stream, `[row][hidden]`.
    pub(crate) x: Floats,
    /// Q, K and V of all rows in a layer, `[row][(heads + 2 kv_heads) * head_dim]`.
    pub(crate) qkv: Floats,
    /// Attention's output, `[sequence][KV head][row][group * head_dim]`.
    pub(crate) attended: Floats,
    /// K and V that later layers read, `[row][2 kv_heads * head_dim]`: of layers that see everything, and of
    /// local ones.
    pub(crate) shared: [Floats; 2],
    /// Inputs that tokens give to all layers, `[row][layer][dim]`.
    pub(crate) inputs: Floats,
    /// For a pass of one row, whose products are shared.
    pub(crate) scratch: Scratch,
}

/// Buffers of one thread.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) keys: Vec<Lanes>,
    pub(crate) values: Vec<Lanes>,
    /// Row of K or V.
    pub(crate) row: Floats,
    pub(crate) softmax: Softmax,
    pub(crate) wide: Floats,
    pub(crate) narrow: Floats,
    /// Rows of K or V rounded to bf16.
    pub(crate) rounded: Vec<u32>,
    pub(crate) bytes: Vec<u8>,
    /// Gates of what tokens give to a layer, and what they give.
    pub(crate) gates: [Vec<Lanes>; 2],
    /// K and V of a layer of a block, as they were read.
    pub(crate) layer: Vec<u8>,
    /// Left sides of products.
    pub(crate) lhs: PackedLhs,
    pub(crate) activated: PackedLhs,
    /// Panels of bf16 in f32.
    pub(crate) upcast: Vec<Lanes>,
    /// Whether products of one row are shared by the threads. Who waits for them may meanwhile be given
    /// a task that needs the thread's own scratch, so this must be none of the pool's.
    pub(crate) split_gemv: bool,
}

/// One [`Scratch`] a thread of the pool. A task locks its thread's own and never waits for other
/// tasks while it holds it, so the locks are free.
pub(crate) struct ScratchPool(Vec<Mutex<Scratch>>);

impl ScratchPool {
    pub(crate) fn new(threads: usize) -> Self {
        Self((0..threads).map(|_| Mutex::default()).collect())
    }

    pub(crate) fn get(&self) -> MutexGuard<'_, Scratch> {
        let thread = rayon::current_thread_index().unwrap_or(0);
        self.0[thread % self.0.len()].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Cuts `slice` into pieces of the given lengths, one after the other.
pub(crate) fn split<T>(
    mut slice: &mut [T],
    lengths: impl IntoIterator<Item = usize>,
) -> Vec<&mut [T]> {
    let mut pieces = Vec::new();
    for length in lengths {
        let (piece, rest) = slice.split_at_mut(length);
        pieces.push(piece);
        slice = rest;
    }
    pieces
}

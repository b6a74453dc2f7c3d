//! Products of bf16 and of int8 by AMX, whose registers are tiles of 16 rows of 64 bytes.
//!
//! The order of a sum of bf16 is the instruction's: of every 32 inputs the even and the odd ones are
//! added apart, by fused multiply-adds in order, then to each other, and that to the sum. Denormals
//! count as zero. Sums of int8 are exact.

use std::arch::asm;
use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
use std::cell::Cell;
use std::marker::PhantomData;

use crate::cpu::gemm::blocking::{
    AMX_ROWS as ROWS, AMX_TILE_ROWS as TILE_ROWS, K_STEPS_MULTIPLE, PANELS, scales_of,
};
use crate::cpu::gemm::epilogue::{Destination, Epilogue, StoreOp, Tile};
use crate::cpu::microkernel::avx512;
use crate::lanes::{Lanes, PANEL, Pairs, Quads};

/// Two panels of so many steps of tiles, 40 KiB, have room in the first-level cache.
const KEPT_STEPS: usize = 20;
/// Lines, 256 KiB, that were packed just now and still are in the second-level cache.
const KEPT_LINES: usize = 4096;

/// All eight tiles with 16 rows of 64 bytes.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIG: TileConfig = {
    let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
    let mut tile = 0;
    while tile < 8 {
        (row_bytes[tile], rows[tile]) = (64, 16);
        tile += 1;
    }
    TileConfig { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
};

/// Computes `Kernel::product_of_pairs`; the rows of `a` go on to a multiple of [`ROWS`].
#[expect(unsafe_code, reason = "a function compiled for an instruction set")]
pub(crate) fn product<'b>(
    a: &[Pairs],
    rows: usize,
    panels: usize,
    panel: impl Fn(usize) -> &'b [Pairs],
    epilogue: impl Epilogue,
) {
    // SAFETY: `Kernel::available` offers AMX only where the machine has it, and AVX-512 with BF16.
    unsafe { each_block(a, rows, panels, panel, epilogue) };
}

/// Computes `Kernel::product_of_quads`; the rows of `a` go on to a multiple of [`ROWS`].
#[expect(unsafe_code, reason = "a function compiled for an instruction set")]
pub(crate) fn product_of_quads<'b>(
    a: &[Quads],
    scales: &[f32],
    panels: usize,
    panel: impl Fn(usize) -> &'b [Quads],
    epilogue: impl Epilogue,
) {
    let steps = |p| &panel(p)[1..];
    let columns = |p| scales_of(panel(p));
    let epilogue = Scaled { rows: scales, columns, epilogue };
    // SAFETY: as above.
    unsafe { each_block(a, scales.len(), panels, steps, epilogue) };
}

/// Gives the epilogue what the integers stand for.
struct Scaled<'s, C, S> {
    rows: &'s [f32],
    columns: C,
    epilogue: S,
}

impl<'b, C: Fn(usize) -> &'b Lanes, S: Epilogue> Epilogue for Scaled<'_, C, S> {
    fn take(&mut self, mut tile: Tile<'_>) {
        for (sums, panel) in tile.sums.iter_mut().zip(tile.panel..) {
            if !sums.is_empty() {
                avx512::scale(sums, &self.rows[tile.row..], (self.columns)(panel));
            }
        }
        self.epilogue.take(tile);
    }

    fn destination(&mut self, row: usize, panel: usize, rows: usize) -> Option<Destination<'_>> {
        self.epilogue.destination(row, panel, rows)
    }
}

/// Covers a product with blocks: 32 rows of `A` and two panels of `B`, or what there is of them. Compiled
/// for AVX-512, so that what the epilogue does can be part of it: a call for each step would take too long.
///
/// The steps are cut into parts whose panels have room in the first-level cache while all rows are multiplied
/// by them; the sums so far wait in the second. The order of a sum stays the same.
#[expect(unsafe_code, reason = "instructions that the compiler does not know")]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512bf16")]
fn each_block<'b, S: Step + 'b, E: Epilogue>(
    a: &[S],
    rows: usize,
    panels: usize,
    panel: impl Fn(usize) -> &'b [S],
    epilogue: E,
) {
    const { assert!(size_of::<S>() == 64) };
    let k_steps = panel(0).len();
    assert!(k_steps.is_multiple_of(K_STEPS_MULTIPLE), "whole tiles");
    let (steps, blocks) = (k_steps / K_STEPS_MULTIPLE, rows.div_ceil(ROWS));
    assert!(a.len() >= blocks * ROWS * steps, "A has fewer rows than its tiles");
    // The next panels are fetched by all blocks of rows, each its share, unless all of them have room.
    let share = (PANELS * K_STEPS_MULTIPLE).div_ceil(blocks.max(1));
    let ahead_a_step = if panels * k_steps > KEPT_LINES { share } else { 0 };
    let parts = if blocks > 1 { steps.div_ceil(KEPT_STEPS) } else { 1 };
    let mut buffer = SO_FAR.take();
    if parts > 1 && buffer.len() < blocks {
        buffer.resize(blocks, ZERO);
    }
    let so_far = buffer.as_mut_ptr();
    let mut buffers = [ZERO; 2];
    let [sums, before] = buffers.each_mut();
    let mut ends = Ends { epilogue, sums, before, waiting: Waiting::default() };
    // SAFETY: AMX is there. The configuration has the layout of palette 1.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(readonly, nostack)) };
    for first in (0..panels).step_by(PANELS) {
        let width = PANELS.min(panels - first);
        let b = [first, first + width - 1].map(&panel);
        assert!(b.iter().all(|panel| panel.len() == k_steps), "panels are as deep as A");
        let b = b.map(<[_]>::as_ptr);
        let mut ahead = b[0].wrapping_add(PANELS * k_steps);
        for part in 0..parts {
            let (from, to) = (part * steps / parts, (part + 1) * steps / parts);
            let b = b.map(|b| b.wrapping_add(from * K_STEPS_MULTIPLE));
            for row in (0..rows).step_by(ROWS) {
                let a = [0, TILE_ROWS]
                    .map(|more| a[(row + more) * steps + from * K_STEPS_MULTIPLE..].as_ptr());
                let so_far = Out::sums(so_far.wrapping_add(row / ROWS));
                let start = (part > 0).then_some(so_far.panels);
                let block = Block { a, b, steps: to - from, start, ahead, ahead_a_step };
                ahead = ahead.wrapping_add(block.steps * ahead_a_step);
                // SAFETY: the tiles are configured, a block is what they read, and a part has place for the
                // sums so far of all blocks of rows.
                unsafe {
                    if part + 1 < parts {
                        multiply(block, so_far, OutputPrefetch::NONE, || ends.hand_on(to - from));
                    } else {
                        let height = (rows - row).min(ROWS);
                        ends.finish(block, Waiting { row, panel: first, height, width, taken: 0 });
                    }
                }
            }
        }
    }
    ends.hand_on(1);
    // SAFETY: as above. An idle tile state need not be saved when threads are switched.
    unsafe { asm!("tilerelease", options(nomem, nostack)) };
    SO_FAR.set(buffer);
}

/// Sums of a block, for each panel those of its rows.
type BlockSums = [[Lanes; ROWS]; PANELS];

const ZERO: BlockSums = [[Lanes::ZERO; ROWS]; PANELS];

thread_local! {
    /// A buffer for the sums so far of all blocks of rows, while their steps are taken in parts.
    static SO_FAR: Cell<Vec<BlockSums>> = const { Cell::new(Vec::new()) };
}

/// Ends blocks: what becomes of their sums.
struct Ends<'s, E> {
    epilogue: E,
    sums: &'s mut BlockSums,
    /// Sums of the block before, which wait for the epilogue.
    before: &'s mut BlockSums,
    waiting: Waiting,
}

impl<E: Epilogue> Ends<'_, E> {
    /// Multiplies a block whose sums are complete then, and gives them to the epilogue, now or later.
    ///
    /// # Safety
    /// The contract is that of [`multiply`].
    #[inline(always)]
    #[expect(unsafe_code, reason = "instructions that the compiler does not know")]
    unsafe fn finish<S: Step>(&mut self, block: Block<S>, mut of: Waiting) {
        let steps = block.steps;
        if E::TAKES_FEW {
            let out = Out::sums(&raw mut *self.sums);
            // SAFETY: by the contract.
            unsafe { multiply(block, out, OutputPrefetch::NONE, || self.hand_on(steps)) };
            debug_assert_eq!(self.waiting.taken, self.waiting.height, "a block hands on all rows");
            self.waiting = of;
            std::mem::swap(&mut self.sums, &mut self.before);
            return;
        }
        let whole = of.height == ROWS && of.width == PANELS;
        let destination =
            if whole { self.epilogue.destination(of.row, of.panel, ROWS) } else { None };
        let prefetch = destination
            .as_ref()
            .map_or(OutputPrefetch::NONE, |destination| OutputPrefetch::of(destination, steps));
        let destination =
            destination.filter(|destination| S::ARE_FLOATS && destination.op == StoreOp::Put);
        let put = destination.is_some();
        let out = destination.map_or_else(|| Out::sums(&raw mut *self.sums), Out::at);
        // SAFETY: by the contract.
        unsafe { multiply(block, out, prefetch, || ()) };
        if !put {
            of.hand_on(ROWS, self.sums, &mut self.epilogue);
        }
    }

    /// Gives the epilogue as many rows as it must take with each of so many steps to have all of them.
    #[inline(always)]
    fn hand_on(&mut self, steps: usize) {
        let rows = ROWS.div_ceil(steps).next_power_of_two();
        self.waiting.hand_on(rows, self.before, &mut self.epilogue);
    }
}

/// Sums of a block that the epilogue has not all taken. It takes them while the tiles multiply the next block,
/// a few rows with each step: more at once, and the tiles would wait (an activation is hidden like this, and
/// its product 1.2 times as fast).
#[derive(Default)]
struct Waiting {
    row: usize,
    panel: usize,
    /// Rows that there are.
    height: usize,
    /// Panels that there are.
    width: usize,
    /// Rows that the epilogue took.
    taken: usize,
}

impl Waiting {
    /// Gives the epilogue the next rows of the sums.
    #[inline(always)]
    fn hand_on(&mut self, rows: usize, sums: &mut BlockSums, epilogue: &mut impl Epilogue) {
        if self.taken >= self.height {
            return;
        }
        let now = self.taken..self.height.min(self.taken + rows);
        let row = self.row + now.start;
        self.taken = now.end;
        let [low, high] = sums;
        let high = if self.width == PANELS { &mut high[now.clone()] } else { &mut [] };
        epilogue.take(Tile { row, panel: self.panel, sums: [&mut low[now], high] });
    }
}

/// Memory that the tiles of a block read.
struct Block<S> {
    /// The steps of 16 rows each, as [`PackedLhs`](crate::cpu::gemm::pack_lhs::PackedLhs) has them.
    a: [*const S; 2],
    /// Steps of 16 rows in each panel, as many.
    b: [*const S; PANELS],
    steps: usize,
    /// The sums that these are added to.
    start: Option<[*mut f32; PANELS]>,
    /// Memory that is fetched into the second-level cache meanwhile, so many lines with each step. The weights
    /// do not fit there, and what the processor fetches ahead by itself ends with each page.
    ahead: *const S,
    ahead_a_step: usize,
}

/// Destination of the sums of 32 rows and two panels.
struct Out<'a> {
    panels: [*mut f32; PANELS],
    /// Sums from a row to the next.
    stride: usize,
    of: PhantomData<&'a mut [f32]>,
}

impl<'a> Out<'a> {
    #[inline]
    fn sums(block: *mut BlockSums) -> Self {
        let low: *mut f32 = block.cast();
        Self { panels: [low, low.wrapping_add(ROWS * PANEL)], stride: PANEL, of: PhantomData }
    }

    #[inline]
    fn at(Destination { values, stride, .. }: Destination<'a>) -> Self {
        assert!(values.len() >= (ROWS - 1) * stride + PANELS * PANEL, "place for all sums");
        let first = values.as_mut_ptr();
        Self { panels: [first, first.wrapping_add(PANEL)], stride, of: PhantomData }
    }
}

/// The memory that sums belong to, 128 bytes of each of 32 rows, to be fetched for writing, so many rows
/// with each step: without it the stores wait for the second-level cache.
struct OutputPrefetch {
    next: *const f32,
    stride: usize,
    rows: usize,
    rows_a_step: usize,
}

impl OutputPrefetch {
    const NONE: Self = Self { next: std::ptr::null(), stride: 0, rows: 0, rows_a_step: 0 };

    #[inline]
    fn of(destination: &Destination<'_>, steps: usize) -> Self {
        let (next, rows_a_step) = (destination.values.as_ptr(), ROWS.div_ceil(steps));
        Self { next, stride: destination.stride, rows: ROWS, rows_a_step }
    }

    #[inline(always)]
    #[expect(unsafe_code, reason = "an instruction that the compiler does not know")]
    fn fetch(&mut self) {
        for _ in 0..self.rows_a_step.min(self.rows) {
            // SAFETY: to fetch is a hint, which changes nothing, wherever it points.
            unsafe {
                asm!(
                    "prefetchw [{next}]",
                    "prefetchw [{next} + 64]",
                    next = in(reg) self.next,
                    options(nostack, readonly, preserves_flags),
                );
            }
            self.next = self.next.wrapping_add(self.stride);
            self.rows -= 1;
        }
    }
}

/// The sums of a block: four tiles, by two of `A` and two of `B`. The tiles keep them from one piece of
/// assembly to the next, for no code that the compiler makes uses tiles. After each step is done what is to
/// be done `meanwhile`, which must multiply nothing.
///
/// # Safety
/// AMX is there and configured; of the block, each of `a` and `b` points to `steps` times 16 rows of 64
/// bytes.
#[inline(always)]
#[expect(unsafe_code, reason = "instructions that the compiler does not know")]
unsafe fn multiply<S: Step>(
    block: Block<S>,
    out: Out<'_>,
    mut prefetch: OutputPrefetch,
    mut meanwhile: impl FnMut(),
) {
    let Block { mut a, mut b, steps, start, mut ahead, ahead_a_step } = block;
    // SAFETY: by the contract. `Out` is place for all sums.
    unsafe {
        match start {
            None => asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nomem, nostack, preserves_flags),
            ),
            Some([low, high]) => asm!(
                "tileloadd tmm0, [{low} + {row_bytes}*1]",
                "tileloadd tmm1, [{high} + {row_bytes}*1]",
                "tileloadd tmm2, [{low} + {row_bytes}*1 + 1024]",
                "tileloadd tmm3, [{high} + {row_bytes}*1 + 1024]",
                low = in(reg) low,
                high = in(reg) high,
                row_bytes = in(reg) 64_usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, readonly, preserves_flags),
            ),
        }
        for _ in 0..steps {
            S::multiply(a, b);
            for line in 0..ahead_a_step {
                _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(line).cast());
            }
            ahead = ahead.wrapping_add(ahead_a_step);
            prefetch.fetch();
            meanwhile();
            a = a.map(|a| a.add(K_STEPS_MULTIPLE));
            b = b.map(|b| b.add(K_STEPS_MULTIPLE));
        }
        asm!(
            "tilestored [{c0} + {row_bytes}*1], tmm0",
            "tilestored [{c1} + {row_bytes}*1], tmm1",
            "tilestored [{c2} + {row_bytes}*1], tmm2",
            "tilestored [{c3} + {row_bytes}*1], tmm3",
            c0 = in(reg) out.panels[0],
            c1 = in(reg) out.panels[1],
            c2 = in(reg) out.panels[0].add(TILE_ROWS * out.stride),
            c3 = in(reg) out.panels[1].add(TILE_ROWS * out.stride),
            row_bytes = in(reg) size_of::<f32>() * out.stride,
            options(nostack, preserves_flags),
        );
    }
}

/// 64 bytes of a row.
trait Step: Sized {
    /// True if their sums are floats, not integers.
    const ARE_FLOATS: bool;

    /// Adds the products of two tiles of `A` with two of `B` to the four tiles of sums.
    ///
    /// # Safety
    /// AMX is there and configured; each of `a` and `b` points to 16 rows of 64 bytes.
    #[expect(unsafe_code, reason = "instructions that the compiler does not know")]
    unsafe fn multiply(a: [*const Self; 2], b: [*const Self; 2]);
}

/// The instructions of a step. `tileloaddt1` passes by the first-level cache: rows of `A` would drive out
/// the panels there, which the next rows need again (a product is 1.2 to 1.4 times as fast).
macro_rules! multiply {
    ($multiply:literal, $a:ident, $b:ident) => {
        asm!(
            "tileloadd tmm6, [{b0} + {row_bytes}*1]",
            "tileloaddt1 tmm4, [{a0} + {row_bytes}*1]",
            "tileloadd tmm7, [{b1} + {row_bytes}*1]",
            concat!($multiply, " tmm0, tmm4, tmm6"),
            "tileloaddt1 tmm5, [{a1} + {row_bytes}*1]",
            concat!($multiply, " tmm1, tmm4, tmm7"),
            concat!($multiply, " tmm2, tmm5, tmm6"),
            concat!($multiply, " tmm3, tmm5, tmm7"),
            a0 = in(reg) $a[0],
            a1 = in(reg) $a[1],
            b0 = in(reg) $b[0],
            b1 = in(reg) $b[1],
            row_bytes = in(reg) 64_usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, readonly, preserves_flags),
        )
    };
}

macro_rules! step {
    ($step:ty, $are_floats:literal, $multiply:literal) => {
        #[expect(unsafe_code, reason = "instructions that the compiler does not know")]
        impl Step for $step {
            const ARE_FLOATS: bool = $are_floats;

            #[inline(always)]
            unsafe fn multiply(a: [*const Self; 2], b: [*const Self; 2]) {
                // SAFETY: by the contract. Only tiles are written.
                unsafe { multiply!($multiply, a, b) };
            }
        }
    };
}

step!(Pairs, true, "tdpbf16ps");
step!(Quads, false, "tdpbssd");

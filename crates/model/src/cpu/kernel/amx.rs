//! Products of bf16 and of int8 by AMX, whose registers are tiles of 16 rows of 64 bytes.
//!
//! The order of a sum of bf16 is the instruction's: of every 32 inputs the even and the odd ones are
//! added apart, by fused multiply-adds in order, then to each other, and that to the sum. Denormals
//! count as zero. Sums of int8 are exact.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

use super::{Lanes, PANEL, PANELS, Pairs, Quads, Sink, Sums, Tile, avx512, scales_of};

/// Rows of a tile: an operand has their steps side by side, so that a tile is 1 KiB in one piece.
pub(super) const TILE_ROWS: usize = 16;
/// Rows of a product's `A` are filled up to a multiple of this: two tiles.
pub(super) const ROWS: usize = 2 * TILE_ROWS;
/// Pairs, or fours, of inputs of a tile; `A` and `B` are filled up to a multiple with zeros.
pub(super) const DEPTH: usize = 16;
/// Lines of the next panels that are fetched with a step: the instructions in `tiles!`.
const AHEAD: usize = 6;

/// Whether the machine has the instructions and the system lets this process use them.
pub(super) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_instructions() && may_use_tiles())
}

fn has_instructions() -> bool {
    /// AMX-BF16, AMX-TILE and AMX-INT8 of leaf 7 (Intel SDM volume 2, CPUID).
    const NEEDED: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    __cpuid_count(0, 0).eax >= 7 && __cpuid_count(7, 0).edx & NEEDED == NEEDED
}

/// Asks Linux for the registers, which a process has only on demand (arch_prctl(2),
/// ARCH_REQ_XCOMP_PERM). Threads of the process have them too.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "a system call")]
fn may_use_tiles() -> bool {
    const ARCH_PRCTL: u64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    let result: i64;
    // SAFETY: the call touches no memory of the process; it overwrites rcx and r11 only.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn may_use_tiles() -> bool {
    false
}

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

/// As `Kernel::product_of_pairs`; the rows of `a` go on to a multiple of [`ROWS`].
#[expect(unsafe_code, reason = "a call into assembly")]
pub(super) fn product<'b>(
    a: &[Pairs],
    rows: usize,
    panels: usize,
    panel: impl Fn(usize) -> &'b [Pairs],
    mut sink: impl Sink,
) {
    let mut sums = [[Lanes::ZERO; ROWS]; PANELS];
    each_block(a, rows, panels, panel, |block| {
        let whole = block.height == ROWS && block.width == PANELS;
        let place = if whole { sink.place(block.row, block.panel, ROWS) } else { None };
        if let Some((out, stride)) = place {
            assert!(out.len() >= (ROWS - 1) * stride + PANELS * PANEL, "place for all sums");
            // SAFETY: a block is what the tiles read; what they write is within `out`.
            unsafe { tiles_of_pairs(&block, out.as_mut_ptr(), PANEL, stride) };
        } else {
            // SAFETY: as above, within the sums.
            unsafe { tiles_of_pairs(&block, sums.as_mut_ptr().cast(), ROWS * PANEL, PANEL) };
            sink.take(block.tile(&mut sums));
        }
    });
}

/// As `Kernel::product_of_quads`; the rows of `a` go on to a multiple of [`ROWS`].
#[expect(unsafe_code, reason = "a call into assembly")]
pub(super) fn product_of_quads<'b>(
    a: &[Quads],
    scales: &[f32],
    panels: usize,
    panel: impl Fn(usize) -> &'b [Quads],
    mut sink: impl Sink,
) {
    let (mut sums, mut scaled) = ([[Sums::ZERO; ROWS]; PANELS], [[Lanes::ZERO; ROWS]; PANELS]);
    let steps = |p| &panel(p)[1..];
    each_block(a, scales.len(), panels, steps, |block| {
        // SAFETY: as above.
        unsafe { tiles_of_quads(&block, sums.as_mut_ptr().cast(), ROWS * PANEL, PANEL) };
        let rows = &scales[block.row..][..block.height];
        for ((sums, scaled), p) in sums.iter().zip(&mut scaled).zip(block.panel..panels) {
            avx512::scale(sums, rows, scales_of(panel(p)), scaled);
        }
        sink.take(block.tile(&mut scaled));
    });
}

/// 32 rows of `A` and two panels of `B`, or what there is of them.
struct Block<S> {
    row: usize,
    height: usize,
    panel: usize,
    width: usize,
    /// The steps of 32 rows, as an operand lays them.
    a: *const S,
    /// As many steps of 16 rows in each panel.
    b: [*const S; PANELS],
    steps: usize,
    /// What is fetched into the second-level cache meanwhile, [`AHEAD`] lines with each step. The weights
    /// do not fit there, and what the processor fetches ahead by itself ends with each page.
    ahead: *const S,
}

impl<S> Block<S> {
    fn tile<'s>(&self, [low, high]: &'s mut [[Lanes; ROWS]; PANELS]) -> Tile<'s> {
        let high = if self.width == PANELS { &mut high[..self.height] } else { &mut [] };
        Tile { row: self.row, panel: self.panel, sums: [&mut low[..self.height], high] }
    }
}

/// Covers a product with blocks, with the tiles configured. A step `S` has 64 bytes.
#[expect(unsafe_code, reason = "instructions that the compiler does not know")]
fn each_block<'b, S: 'b>(
    a: &[S],
    rows: usize,
    panels: usize,
    panel: impl Fn(usize) -> &'b [S],
    mut block: impl FnMut(Block<S>),
) {
    const { assert!(size_of::<S>() == 64) };
    let depth = panel(0).len();
    assert!(depth.is_multiple_of(DEPTH), "whole tiles");
    let steps = depth / DEPTH;
    assert!(a.len() >= rows.next_multiple_of(ROWS) * steps, "A has fewer rows than its tiles");
    // SAFETY: `Kernel::available` offers AMX only where the machine has it. The configuration has
    // the layout of palette 1.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(readonly, nostack)) };
    for first in (0..panels).step_by(PANELS) {
        let width = PANELS.min(panels - first);
        let b = [first, first + width - 1].map(&panel);
        assert!(b.iter().all(|panel| panel.len() == depth), "panels are as deep as A");
        let b = b.map(<[_]>::as_ptr);
        for row in (0..rows).step_by(ROWS) {
            let (height, a) = ((rows - row).min(ROWS), a[row * steps..].as_ptr());
            // Each block of rows fetches its share of the next panels.
            let ahead = b[0].wrapping_add(PANELS * depth + row / ROWS * steps * AHEAD);
            block(Block { row, height, panel: first, width, a, b, steps, ahead });
        }
    }
    // SAFETY: as above. An idle tile state need not be saved when threads are switched.
    unsafe { asm!("tilerelease", options(nomem, nostack)) };
}

/// 32 rows by two panels: four tiles of sums, two of `A`, two of `B`.
macro_rules! tiles {
    ($name:ident, $step:ty, $sum:ty, $multiply:literal) => {
        /// # Safety
        /// AMX is there and configured; of the block, `a` points to 32 rows of `steps` steps, each of `b` to
        /// `steps` times 16 rows of 64 bytes, and `c` to 32 rows of 16 sums, `stride` sums apart, as does
        /// what is `second` sums further on.
        #[inline(always)]
        #[expect(unsafe_code, reason = "instructions that the compiler does not know")]
        unsafe fn $name(block: &Block<$step>, c: *mut $sum, second: usize, stride: usize) {
            let Block { a, b, steps, ahead, .. } = *block;
            // SAFETY: by the contract. Only the named registers and `c` are written.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    "tileloadd tmm6, [{b0} + {row_bytes}*1]",
                    "tileloadd tmm4, [{a0} + {row_bytes}*1]",
                    "tileloadd tmm7, [{b1} + {row_bytes}*1]",
                    concat!($multiply, " tmm0, tmm4, tmm6"),
                    "tileloadd tmm5, [{a1} + {row_bytes}*1]",
                    concat!($multiply, " tmm1, tmm4, tmm7"),
                    concat!($multiply, " tmm2, tmm5, tmm6"),
                    concat!($multiply, " tmm3, tmm5, tmm7"),
                    "prefetcht1 [{ahead}]",
                    "prefetcht1 [{ahead} + 64]",
                    "prefetcht1 [{ahead} + 128]",
                    "prefetcht1 [{ahead} + 192]",
                    "prefetcht1 [{ahead} + 256]",
                    "prefetcht1 [{ahead} + 320]",
                    "add {ahead}, 384",
                    "add {a0}, 1024",
                    "add {a1}, 1024",
                    "add {b0}, 1024",
                    "add {b1}, 1024",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{c0} + {c_stride}*1], tmm0",
                    "tilestored [{c1} + {c_stride}*1], tmm1",
                    "tilestored [{c2} + {c_stride}*1], tmm2",
                    "tilestored [{c3} + {c_stride}*1], tmm3",
                    a0 = inout(reg) a => _,
                    a1 = inout(reg) a.add(TILE_ROWS * steps) => _,
                    b0 = inout(reg) b[0] => _,
                    b1 = inout(reg) b[1] => _,
                    row_bytes = in(reg) 64_usize,
                    c0 = in(reg) c,
                    c1 = in(reg) c.add(second),
                    c2 = in(reg) c.add(TILE_ROWS * stride),
                    c3 = in(reg) c.add(TILE_ROWS * stride + second),
                    c_stride = in(reg) 4 * stride,
                    steps = inout(reg) steps => _,
                    ahead = inout(reg) ahead => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

tiles!(tiles_of_pairs, Pairs, f32, "tdpbf16ps");
tiles!(tiles_of_quads, Quads, i32, "tdpbssd");

//! Products of bf16 and of int8 by AMX, whose registers are tiles of 16 rows of 64 bytes.
//!
//! The order of a sum of bf16 is the instruction's: of every 32 inputs the even and the odd ones are
//! added apart, by fused multiply-adds in order, then to each other, and that to the sum. Denormals
//! count as zero. Sums of int8 are exact.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

use super::{Lanes, PANEL, Pairs, Quads, Sums, avx512, scales_of};

/// Rows of a tile: an operand has their steps side by side, so that a tile is 1 KiB in one piece.
pub(super) const TILE_ROWS: usize = 16;
/// Rows of a product's `A` are filled up to a multiple of this: two tiles.
pub(super) const ROWS: usize = 2 * TILE_ROWS;
/// Pairs, or fours, of inputs of a tile; `A` and `B` are filled up to a multiple with zeros.
pub(super) const DEPTH: usize = 16;
/// Panels that are multiplied at once.
const PANELS: usize = 2;

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

/// `C = A B` as `Kernel::product_of_pairs`; the rows of `a` go on to a multiple of [`ROWS`].
#[expect(unsafe_code, reason = "a call into assembly")]
pub(super) fn product<'b>(
    a: &[Pairs],
    rows: usize,
    panel: impl Fn(usize) -> &'b [Pairs],
    c: &mut [f32],
    c_stride: usize,
    columns: usize,
) {
    let mut sums = [[Lanes::ZERO; PANELS]; ROWS];
    each_block(a, rows, panel, columns, |block| {
        let Block { height, width, .. } = block;
        let start = block.row * c_stride + block.column;
        let whole = height == ROWS && width == PANELS * PANEL;
        let (out, stride) = match whole {
            true => (&mut c[start..][..(ROWS - 1) * c_stride + width], c_stride),
            false => (bytemuck::cast_slice_mut(sums.as_flattened_mut()), PANELS * PANEL),
        };
        // SAFETY: a block is what the tiles read, and 32 rows of 32 floats `stride` apart are within
        // `out`.
        unsafe { tiles_of_pairs(block.a, block.b, block.steps, out.as_mut_ptr(), stride) };
        if !whole {
            for (i, sums) in sums[..height].iter().enumerate() {
                let sums: &[f32] = bytemuck::cast_slice(sums);
                c[start + i * c_stride..][..width].copy_from_slice(&sums[..width]);
            }
        }
    });
}

/// `C = A B` as `Kernel::product_of_quads`; the rows of `a` go on to a multiple of [`ROWS`].
#[expect(unsafe_code, reason = "a call into assembly")]
pub(super) fn product_of_quads<'b>(
    a: &[Quads],
    scales: &[f32],
    panel: impl Fn(usize) -> &'b [Quads],
    c: &mut [f32],
    c_stride: usize,
    columns: usize,
) {
    let mut sums = [[Sums::ZERO; PANELS]; ROWS];
    let steps = |p| &panel(p)[1..];
    each_block(a, scales.len(), steps, columns, |block| {
        let Block { row, height, column, width, .. } = block;
        let out: &mut [i32] = bytemuck::cast_slice_mut(sums.as_flattened_mut());
        let stride = PANELS * PANEL;
        // SAFETY: a block is what the tiles read, and `out` has 32 rows of 32 integers.
        unsafe { tiles_of_quads(block.a, block.b, block.steps, out.as_mut_ptr(), stride) };
        let columns = block.panels.map(|p| scales_of(panel(p)));
        let (rows, out) = (&scales[row..][..height], &mut c[row * c_stride + column..]);
        avx512::scale(&sums[..height], rows, columns, out, c_stride, width);
    });
}

/// 32 rows of `A` and two panels of `B`, or what there is of them.
struct Block<S> {
    row: usize,
    height: usize,
    column: usize,
    width: usize,
    panels: [usize; PANELS],
    /// The steps of 32 rows, as an operand lays them.
    a: *const S,
    /// As many steps of 16 rows in each panel.
    b: [*const S; PANELS],
    steps: usize,
}

/// Covers `C` with blocks, with the tiles configured. A step `S` has 64 bytes.
#[expect(unsafe_code, reason = "instructions that the compiler does not know")]
fn each_block<'b, S: 'b>(
    a: &[S],
    rows: usize,
    panel: impl Fn(usize) -> &'b [S],
    columns: usize,
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
    for column in (0..columns).step_by(PANELS * PANEL) {
        let width = (columns - column).min(PANELS * PANEL);
        let first = column / PANEL;
        let panels = [first, first + width.div_ceil(PANEL) - 1];
        let b = panels.map(&panel);
        assert!(b.iter().all(|panel| panel.len() == depth), "panels are as deep as A");
        for row in (0..rows).step_by(ROWS) {
            let height = (rows - row).min(ROWS);
            let (a, b) = (a[row * steps..].as_ptr(), b.map(<[_]>::as_ptr));
            block(Block { row, height, column, width, panels, a, b, steps });
        }
    }
    // SAFETY: as above. An idle tile state need not be saved when threads are switched.
    unsafe { asm!("tilerelease", options(nomem, nostack)) };
}

/// 32 rows by two panels: four tiles of sums, two of `A`, two of `B`.
macro_rules! tiles {
    ($name:ident, $step:ty, $sum:ty, $multiply:literal) => {
        /// # Safety
        /// AMX is there and configured; `a` points to 32 rows of `steps` steps, each of `b` to `steps`
        /// times 16 rows of 64 bytes, and `c` to 32 rows of 32 sums, `stride` sums apart.
        #[inline(always)]
        #[expect(unsafe_code, reason = "instructions that the compiler does not know")]
        unsafe fn $name(
            a: *const $step,
            b: [*const $step; 2],
            steps: usize,
            c: *mut $sum,
            stride: usize,
        ) {
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
                    "add {a0}, 1024",
                    "add {a1}, 1024",
                    "add {b0}, 1024",
                    "add {b1}, 1024",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{c0} + {c_stride}*1], tmm0",
                    "tilestored [{c0} + {c_stride}*1 + 64], tmm1",
                    "tilestored [{c1} + {c_stride}*1], tmm2",
                    "tilestored [{c1} + {c_stride}*1 + 64], tmm3",
                    a0 = inout(reg) a => _,
                    a1 = inout(reg) a.add(TILE_ROWS * steps) => _,
                    b0 = inout(reg) b[0] => _,
                    b1 = inout(reg) b[1] => _,
                    row_bytes = in(reg) 64_usize,
                    c0 = in(reg) c,
                    c1 = in(reg) c.add(TILE_ROWS * stride),
                    c_stride = in(reg) 4 * stride,
                    steps = inout(reg) steps => _,
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

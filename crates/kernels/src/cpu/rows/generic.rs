//! Operations on rows, written on lanes so that each instruction set compiles them to its own registers.
//! `dispatch.rs` calls them; it alone knows instruction sets.

use std::ops::Range;

use crate::cpu::attention::mask::CausalMask;
use crate::cpu::rows::format::RowFormat;
use crate::cpu::rows::hadamard::{hadamard, hadamard_strided};
use crate::cpu::rows::log_sum::LogSum;
use crate::lanes::{LANES, Lanes, Pairs, Quads, Sums, halves, join, tree};

/// Added to a number up to 2^22, this leaves the nearest integer in the low bits of the sum, ties to
/// even: 1.5 * 2^23.
pub(crate) const WHOLE: f32 = 12_582_912.0;

/// The largest integer that values are rounded to.
const LEVELS: f32 = 127.0;

/// The natural logarithm of 2 in two parts, of which the first has few bits.
pub(crate) const LN2_HIGH: f32 = 0.693_359_4;
pub(crate) const LN2_LOW: f32 = -2.121_944_4e-4;
/// Cephes' polynomial for `(exp(r) - 1 - r) / r^2`, the highest power first.
pub(crate) const EXP_POLYNOMIAL: [f32; 6] =
    [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5];
/// Below it an exponential is taken for that of this number.
pub(crate) const EXP_MIN: f32 = -87.0;
/// Above it an exponential is taken for that of this number.
pub(crate) const EXP_MAX: f32 = 88.0;

/// `exp(x)` within 2 units in the last place between [`EXP_MIN`] and [`EXP_MAX`], to which `x` is clamped.
/// Cephes' polynomial for |r| <= ln(2)/2, times a power of two.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = x.clamp(EXP_MIN, EXP_MAX);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, WHOLE);
    let n = shifted - WHOLE;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let mut p = EXP_POLYNOMIAL[0];
    for c in &EXP_POLYNOMIAL[1..] {
        p = p.mul_add(r, *c);
    }
    let y = p.mul_add(r * r, r) + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(WHOLE.to_bits()).wrapping_add(127);
    y * f32::from_bits(exponent << 23)
}

/// A last chunk that is not full, filled up with `filler`: on lanes it takes a fraction of the time that
/// its values would take one by one.
#[inline(always)]
fn filled(rest: &[f32], filler: f32) -> [f32; LANES] {
    let mut lanes = [filler; LANES];
    lanes[..rest.len()].copy_from_slice(rest);
    lanes
}

/// The larger of two; what is no number does not count.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// The largest value.
#[inline(always)]
fn max_of(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let last = filled(rest, f32::NEG_INFINITY);
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks.iter().chain([&last]) {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], chunk[lane]);
        }
    }
    largest(&lanes)
}

/// A function of its own: within the others the compiler would compare lanes two by two, in all of them.
#[inline(never)]
pub(super) fn largest(lanes: &[f32; LANES]) -> f32 {
    tree(*lanes, larger)
}

#[inline(always)]
pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = chunk[lane].mul_add(chunk[lane], lanes[lane]);
        }
    }
    for (lane, value) in rest.iter().enumerate() {
        lanes[lane] = value.mul_add(*value, lanes[lane]);
    }
    let scale = 1.0 / (join(lanes) / x.len() as f32 + eps).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

#[inline(always)]
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

#[inline(always)]
pub(super) fn divide_rows(values: &mut [f32], divisors: &[f32]) {
    let width = values.len() / divisors.len().max(1);
    for (row, divisor) in values.chunks_exact_mut(width.max(1)).zip(divisors) {
        let scale = 1.0 / divisor;
        row.iter_mut().for_each(|value| *value *= scale);
    }
}

#[inline(always)]
pub(super) fn rotate(heads: &mut [f32], angles: &[(f32, f32)], by: f32) {
    for head in heads.chunks_exact_mut(2 * angles.len()) {
        for (pair, (cos, sin)) in head.as_chunks_mut().0.iter_mut().zip(angles) {
            let [a, b] = *pair;
            *pair = [(a * cos - b * sin) * by, (a * sin + b * cos) * by];
        }
    }
}

#[inline(always)]
pub(crate) fn silu_mul(gates: &mut [Lanes], ups: &[Lanes]) {
    for (gates, ups) in gates.iter_mut().zip(ups) {
        for (gate, up) in gates.0.iter_mut().zip(&ups.0) {
            *gate = *gate / (1.0 + exp(-*gate)) * up;
        }
    }
}

/// Factor of GELU's argument: -2 times the square root of 2 / pi.
pub(crate) const GELU_SCALE: f32 = -1.595_769_2;
/// Factor of the square in GELU's argument.
pub(crate) const GELU_CUBIC: f32 = 0.044_715;

/// `x * Phi(x)` by the approximation with tanh (GELU, arXiv 1606.08415), which is
/// `x * sigmoid(2 u)` of the argument `u` of its tanh.
#[inline(always)]
pub(crate) fn gelu_mul(gates: &mut [Lanes], ups: &[Lanes]) {
    for (gates, ups) in gates.iter_mut().zip(ups) {
        for (gate, up) in gates.0.iter_mut().zip(&ups.0) {
            let cubic = (*gate * *gate).mul_add(GELU_CUBIC, 1.0);
            *gate = *gate / (1.0 + exp(GELU_SCALE * *gate * cubic)) * up;
        }
    }
}

/// The rows of `out`, each with its sums.
#[inline(always)]
fn each_row(
    out: &mut [f32],
    stride: usize,
    sums: &[Lanes],
    width: usize,
    each: impl Fn(&mut f32, f32),
) {
    for (out, sums) in out.chunks_mut(stride).zip(sums) {
        match out.first_chunk_mut::<LANES>().filter(|_| width == LANES) {
            Some(out) => out.iter_mut().zip(sums.0).for_each(|(out, sum)| each(out, sum)),
            None => out[..width].iter_mut().zip(sums.0).for_each(|(out, sum)| each(out, sum)),
        }
    }
}

#[inline(always)]
pub(super) fn put(out: &mut [f32], stride: usize, sums: &[Lanes], width: usize) {
    each_row(out, stride, sums, width, |out, sum| *out = sum);
}

#[inline(always)]
pub(super) fn add_sums(out: &mut [f32], stride: usize, sums: &[Lanes], width: usize) {
    each_row(out, stride, sums, width, |out, sum| *out += sum);
}

/// `tanh(x)` within 3 units in the last place: Cephes' polynomial where |x| is small, which an
/// exponential is not exact for.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let square = x * x;
    let mut p = -5.704_988_7e-3_f32;
    for c in [2.063_909e-2, -5.373_971_6e-2, 0.133_314_42, -0.333_332_83] {
        p = p.mul_add(square, c);
    }
    let small = (p * square).mul_add(x, x);
    let large = 1.0 - 2.0 / (exp(2.0 * x.abs()) + 1.0);
    if x.abs() < 0.625 { small } else { large.copysign(x) }
}

#[inline(always)]
pub(super) fn soft_cap(values: &mut [f32], cap: f32) {
    for value in values {
        *value = cap * tanh(*value / cap);
    }
}

/// Rounds to the nearest bf16, ties to even; what is no number stays none.
#[inline(always)]
pub(super) fn bf16_bits(value: f32) -> u32 {
    let bits = value.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if value.is_nan() { bits >> 16 | 0x40 } else { nearest }
}

#[inline(always)]
pub(super) fn round_to_bf16(x: &[f32], out: &mut [f32]) {
    for (out, value) in out.iter_mut().zip(x) {
        *out = f32::from_bits(bf16_bits(*value) << 16);
    }
}

#[inline(always)]
pub(super) fn mix(row: &mut [f32], means: &[f32], signs: &[f32]) {
    for ((value, mean), sign) in row.iter_mut().zip(means).zip(signs) {
        *value = (*value - mean) * sign;
    }
    hadamard(row);
}

#[inline(always)]
pub(super) fn unmix(row: &mut [f32], means: &[f32], signs: &[f32]) {
    hadamard(row);
    for ((value, mean), sign) in row.iter_mut().zip(means).zip(signs) {
        *value = *value * sign + mean;
    }
}

#[inline(always)]
pub(super) fn encode_row<F: RowFormat>(format: F, row: &[f32], bytes: &mut [u8]) {
    format.encode(row, bytes);
}

#[inline(always)]
pub(super) fn decode<F: RowFormat>(format: F, bytes: &[u8], row: &mut [f32]) {
    format.decode(bytes, row);
}

#[inline(always)]
pub(super) fn decode_rows_to_pairs<F: RowFormat>(
    format: F,
    bytes: &[u8],
    row: &mut [f32],
    out: &mut [u32],
) {
    let rows = bytes.chunks_exact(format.row_bytes(row.len()));
    for (bytes, out) in rows.zip(out.chunks_exact_mut(row.len().div_ceil(2))) {
        format.decode(bytes, row);
        round_to_pairs(row, out);
    }
}

#[inline(always)]
pub(crate) fn round_to_pairs(x: &[f32], out: &mut [u32]) {
    const { assert!(cfg!(target_endian = "little"), "the first of a pair is in the low half") };
    let out: &mut [u16] = bytemuck::cast_slice_mut(out);
    let (out, beyond) = out.split_at_mut(x.len());
    for (out, value) in out.iter_mut().zip(x) {
        *out = bf16_bits(*value) as u16;
    }
    beyond.fill(0);
}

#[inline(always)]
pub(crate) fn round_to_steps(x: &[f32], out: &mut [Pairs], stride: usize) {
    for (values, pairs) in x.chunks(2 * LANES).zip(out.iter_mut().step_by(stride)) {
        round_to_pairs(values, &mut pairs.0[..values.len().div_ceil(2)]);
    }
}

/// The largest magnitude; with a value that is no number it is none.
#[inline(always)]
fn largest_magnitude(x: &[f32]) -> f32 {
    // Of numbers without a sign the order is that of their bits, and what is no number comes last.
    f32::from_bits(x.iter().fold(0, |largest, value| largest.max(value.abs().to_bits())))
}

/// Returns the step from one integer to the next, where the largest magnitude is `largest`, and its inverse.
/// The inverse is 0 where there is none, so that the integers are 0 and the step says what the row is.
#[inline(always)]
pub(crate) fn scale_and_inverse(largest: f32) -> (f32, f32) {
    let inverse = LEVELS / largest;
    (largest / LEVELS, if inverse.is_finite() { inverse } else { 0.0 })
}

#[inline(always)]
pub(crate) fn hadamard_and_quantise(x: &mut [f32], out: &mut [Quads], stride: usize) -> f32 {
    hadamard_strided(x);
    let (scale, inverse) = scale_and_inverse(largest_magnitude(x));
    for (values, quads) in x.chunks(4 * LANES).zip(out.iter_mut().step_by(stride)) {
        for (value, quad) in values.iter().zip(&mut quads.0) {
            *quad = (value * inverse + WHOLE).to_bits() as i8;
        }
    }
    scale
}

/// Sums of int8 as what they stand for.
#[inline(always)]
pub(crate) fn scaled(sums: &Sums, row: f32, columns: &Lanes) -> Lanes {
    let mut out = Lanes::ZERO;
    for lane in 0..LANES {
        out.0[lane] = sums.0[lane] as f32 * (row * columns.0[lane]);
    }
    out
}

#[inline(always)]
pub(super) fn upcast(pairs: &[Pairs], out: &mut [Lanes]) {
    let (out, _) = out.as_chunks_mut::<2>();
    for ([first, second], pairs) in out.iter_mut().zip(pairs) {
        for lane in 0..LANES {
            [first.0[lane], second.0[lane]] = halves(pairs.0[lane]);
        }
    }
}

#[inline(always)]
pub(super) fn exp_and_sum(scores: &mut [f32], columns: usize, mask: CausalMask, sums: &mut [f32]) {
    // All rows' largest values first: a row has too few values to fill the time that its own takes.
    let rows = scores.chunks_exact(columns).zip(&mut *sums).enumerate();
    rows.for_each(|(i, (row, max))| {
        *max = max_of(&row[mask.span(i)]);
    });
    let rows = scores.chunks_exact_mut(columns).zip(sums).enumerate();
    for (i, (row, sum)) in rows {
        let Range { start, end } = mask.span(i);
        row[..start].fill(0.0);
        *sum = exp_and_sum_of(&mut row[start..], end - start, *sum);
    }
}

/// Turns the first `valid` values into `exp(value - max)` and the others into 0, and gives the sum, value
/// `i` going to lane `i % LANES`.
#[inline(always)]
fn exp_and_sum_of(scores: &mut [f32], valid: usize, max: f32) -> f32 {
    let count = valid % LANES;
    let (whole, rest) = scores.split_at_mut(valid - count);
    let mut lanes = [0.0; LANES];
    for chunk in whole.as_chunks_mut::<LANES>().0 {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - max);
            lanes[lane] += chunk[lane];
        }
    }
    let mut last = |last: &mut [f32; LANES]| {
        for lane in 0..LANES {
            last[lane] = if lane < count { exp(last[lane] - max) } else { 0.0 };
            lanes[lane] += last[lane];
        }
    };
    // The last lanes are computed in whole where they stand, with what is masked beyond them: copied they
    // would take several times as long.
    match rest.split_first_chunk_mut::<LANES>() {
        Some((lanes, masked)) => {
            last(lanes);
            masked.fill(0.0);
        }
        None => {
            let mut lanes = filled(rest, max);
            last(&mut lanes);
            rest.copy_from_slice(&lanes[..rest.len()]);
        }
    }
    join(lanes)
}

#[inline(always)]
pub(super) fn add_exp(logits: &[Lanes], rows: &mut [LogSum]) {
    for (logits, row) in logits.iter().zip(rows) {
        let bound = row.reference + LogSum::ABOVE;
        if logits.0.iter().fold(false, |above, logit| above | (*logit > bound)) {
            row.rescale_to(largest(&logits.0));
        }
        let (reference, mut lanes) = (row.reference, row.lanes.0);
        for (lane, logit) in lanes.iter_mut().zip(&logits.0) {
            *lane += exp(logit - reference);
        }
        row.lanes.0 = lanes;
    }
}

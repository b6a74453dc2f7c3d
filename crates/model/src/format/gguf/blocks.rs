//! The element types of a GGUF's tensors.
//!
//! In: bytes. Out: f32. A quantised type has blocks of values that share scales. Values are summed
//! exactly as ggml sums them, so that every reader of a file has the same weights.

use half::{bf16, f16};

/// Values in a block of the simple types, then of the types whose names end with K.
const SIMPLE: usize = 32;
const SUPER: usize = 256;

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GgmlType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

impl GgmlType {
    /// All types with their numbers in ggml's `ggml.h`.
    const NUMBERED: [(u32, Self); 13] = [
        (0, Self::F32),
        (1, Self::F16),
        (2, Self::Q4_0),
        (3, Self::Q4_1),
        (6, Self::Q5_0),
        (7, Self::Q5_1),
        (8, Self::Q8_0),
        (10, Self::Q2K),
        (11, Self::Q3K),
        (12, Self::Q4K),
        (13, Self::Q5K),
        (14, Self::Q6K),
        (30, Self::Bf16),
    ];

    /// Returns the type of a number.
    pub(super) fn of(number: u32) -> Option<Self> {
        Self::NUMBERED.iter().find(|(n, _)| *n == number).map(|(_, kind)| *kind)
    }

    /// Returns the type's name in ggml.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Number of values in a block.
    pub(super) fn values(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => SIMPLE,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => SUPER,
        }
    }

    /// Size of a block, in bytes.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 2 + 16,
            Self::Q4_1 => 4 + 16,
            Self::Q5_0 => 2 + 4 + 16,
            Self::Q5_1 => 4 + 4 + 16,
            Self::Q8_0 => 2 + 32,
            Self::Q2K => 16 + 64 + 4,
            Self::Q3K => 32 + 64 + 12 + 2,
            Self::Q4K => 4 + 12 + 128,
            Self::Q5K => 4 + 12 + 32 + 128,
            Self::Q6K => 128 + 64 + 16 + 2,
        }
    }

    /// Writes the values of whole blocks to `values`, which gets as many.
    pub(super) fn dequantise(self, data: &[u8], values: &mut Vec<f32>) {
        values.resize(data.len() / self.bytes() * self.values(), 0.0);
        let blocks = data.chunks_exact(self.bytes());
        let mut blocks = blocks.zip(values.chunks_exact_mut(self.values()));
        let mut each = |unpack: fn(&[u8], &mut [f32])| {
            blocks.by_ref().for_each(|(block, values)| unpack(block, values));
        };
        match self {
            Self::F32 => each(|value, values| values[0] = f32_at(value, 0)),
            Self::F16 => each(|value, values| values[0] = f16_at(value, 0)),
            Self::Bf16 => each(|value, values| {
                values[0] = bf16::from_le_bytes([value[0], value[1]]).to_f32();
            }),
            Self::Q4_0 => {
                each(|block, values| halves(&block[2..], 0, 8, f16_at(block, 0), 0.0, values))
            }
            Self::Q4_1 => each(|block, values| {
                halves(&block[4..], 0, 0, f16_at(block, 0), f16_at(block, 2), values);
            }),
            Self::Q5_0 => each(|block, values| {
                halves(&block[6..], u32_at(block, 2), 16, f16_at(block, 0), 0.0, values);
            }),
            Self::Q5_1 => each(|block, values| {
                let (scale, least) = (f16_at(block, 0), f16_at(block, 2));
                halves(&block[8..], u32_at(block, 4), 0, scale, least, values);
            }),
            Self::Q8_0 => each(|block, values| bytes(&block[2..], f16_at(block, 0), values)),
            Self::Q2K => each(q2k),
            Self::Q3K => each(q3k),
            Self::Q4K => each(|block, values| q45k(block, &[0; 32], &block[16..], values)),
            Self::Q5K => each(|block, values| q45k(block, &block[16..48], &block[48..], values)),
            Self::Q6K => each(q6k),
        }
    }
}

fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

fn f32_at(block: &[u8], at: usize) -> f32 {
    f32::from_bits(u32_at(block, at))
}

/// Unpacks values of one byte.
fn bytes(quants: &[u8], scale: f32, values: &mut [f32]) {
    for (value, quant) in values.iter_mut().zip(quants) {
        *value = f32::from(*quant as i8) * scale;
    }
}

/// Unpacks values of four bits and a fifth one in `fifth`. The first half of the block is in the low
/// bits.
fn halves(quants: &[u8], fifth: u32, zero: i16, scale: f32, least: f32, values: &mut [f32]) {
    let (first, second) = values.split_at_mut(SIMPLE / 2);
    let high = |at: usize| ((fifth >> at & 1) << 4) as i16;
    let value = |quant: i16| {
        let scaled = f32::from(quant - zero) * scale;
        // Adding a zero would lose its sign.
        if zero == 0 { scaled + least } else { scaled }
    };
    for (i, quant) in quants.iter().enumerate() {
        first[i] = value(i16::from(quant & 15) | high(i));
        second[i] = value(i16::from(quant >> 4) | high(i + SIMPLE / 2));
    }
}

/// Unpacks values of two bits; 16 values share a scale and a least value of four bits each.
fn q2k(block: &[u8], values: &mut [f32]) {
    let (scales, quants) = (&block[..16], &block[16..80]);
    let (scale, least) = (f16_at(block, 80), f16_at(block, 82));
    for (i, values) in values.chunks_exact_mut(16).enumerate() {
        let (scale, least) = (scale * f32::from(scales[i] & 15), least * f32::from(scales[i] >> 4));
        let (half, shift, part) = (i / 8, i % 8 / 2 * 2, i % 2);
        let quants = &quants[32 * half + 16 * part..];
        for (value, quant) in values.iter_mut().zip(quants) {
            *value = scale * f32::from(quant >> shift & 3) - least;
        }
    }
}

/// Unpacks values of two bits and a third one apart; 16 values share a scale of six bits.
fn q3k(block: &[u8], values: &mut [f32]) {
    let (thirds, quants, packed) = (&block[..32], &block[32..96], &block[96..108]);
    let scale = f16_at(block, 108);
    for (i, values) in values.chunks_exact_mut(16).enumerate() {
        // Of each of 16 scales, four bits are in 8 bytes and two more in the other 4.
        let low = packed[i % 8] >> (i / 8 * 4) & 15;
        let high = packed[8 + i % 4] >> (i / 4 * 2) & 3;
        let scale = scale * (f32::from(low | high << 4) - 32.0);
        let (half, shift, part) = (i / 8, i % 8 / 2 * 2, i % 2);
        let (quants, thirds) = (&quants[32 * half + 16 * part..], &thirds[16 * part..]);
        for ((value, quant), third) in values.iter_mut().zip(quants).zip(thirds) {
            let four = if third >> (i / 2) & 1 == 0 { 4 } else { 0 };
            *value = scale * f32::from((quant >> shift & 3) as i8 - four);
        }
    }
}

/// Unpacks values of four bits and a fifth one in `fifths`; 32 values share a scale and a least value
/// of six bits each.
fn q45k(block: &[u8], fifths: &[u8], quants: &[u8], values: &mut [f32]) {
    let (scale, least) = (f16_at(block, 0), f16_at(block, 2));
    let packed = &block[4..16];
    for (i, values) in values.chunks_exact_mut(32).enumerate() {
        let (own_scale, own_least) = match i {
            0..4 => (packed[i] & 63, packed[i + 4] & 63),
            _ => (
                packed[i + 4] & 15 | packed[i - 4] >> 6 << 4,
                packed[i + 4] >> 4 | packed[i] >> 6 << 4,
            ),
        };
        let (scale, least) = (scale * f32::from(own_scale), least * f32::from(own_least));
        let (quants, shift) = (&quants[i / 2 * 32..], i % 2 * 4);
        for ((value, quant), fifth) in values.iter_mut().zip(quants).zip(fifths) {
            let quant = quant >> shift & 15 | (fifth >> i & 1) << 4;
            *value = scale * f32::from(quant) - least;
        }
    }
}

/// Unpacks values of four bits and two more apart; 16 values share a scale of eight bits.
fn q6k(block: &[u8], values: &mut [f32]) {
    let (quants, highs, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let scale = f16_at(block, 208);
    for (i, values) in values.chunks_exact_mut(32).enumerate() {
        let (half, quarter) = (i / 4, i % 4);
        let quants = &quants[64 * half + 32 * (quarter % 2)..];
        let highs = &highs[32 * half..];
        for (j, value) in values.iter_mut().enumerate() {
            let low = quants[j] >> (quarter / 2 * 4) & 15;
            let quant = (low | (highs[j] >> (2 * quarter) & 3) << 4) as i8 - 32;
            let own = f32::from(scales[8 * half + 2 * quarter + j / 16] as i8);
            *value = scale * own * f32::from(quant);
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use candle_core::quantized::GgmlDType;
    use candle_core::quantized::ggml_file::qtensor_from_ggml;

    use super::*;

    /// Compares all types over random bytes, to the bit.
    #[test]
    fn values_are_those_of_candle() {
        use GgmlDType::{BF16, F16, F32, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
        let types = [F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K, BF16];
        for (theirs, (number, kind)) in types.into_iter().zip(GgmlType::NUMBERED) {
            assert_eq!(format!("{theirs:?}").to_lowercase(), format!("{kind:?}").to_lowercase());
            assert_eq!((theirs.block_size(), theirs.type_size()), (kind.values(), kind.bytes()));
            let mut data = vec![0; 4096 * kind.bytes()];
            blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut data);
            let count = 4096 * kind.values();
            let tensor = qtensor_from_ggml(theirs, &data, vec![count], &Device::Cpu).unwrap();
            let expected = tensor.dequantize(&Device::Cpu).unwrap().to_vec1::<f32>().unwrap();
            let mut found = vec![1.0; 7];
            kind.dequantise(&data, &mut found);
            assert_eq!(found.len(), count);
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let same = found.to_bits() == expected.to_bits();
                assert!(same || found.is_nan() && expected.is_nan(), "{kind:?} {i}: {found}");
            }
        }
    }
}

//! Static means of K and V: means or file bytes come in, means by place, layer and head go out. Knows neither
//! how they are measured nor where the file is.

use super::kv_shape::KvShape;
use crate::fingerprint::Digest;

/// Chunks at the start of the corpus that a calibration is made from.
pub const CALIBRATION_CHUNKS: usize = 64;

const MAGIC: [u8; 8] = *b"HYPERCAL";
const HEADER_BYTES: usize = 32;

/// Static means of K, before its rotary position, and of V. Element types of few bits store differences from
/// them.
///
/// The first and the last positions of a chunk hold the profile's own words, which hardly differ between
/// chunks, so each has its own means; all positions between share one set. A Hadamard matrix rotates the
/// differences, as in QuaRot (arXiv 2404.00456), so that no dimension stands out.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    shape: Shape,
    /// `[place][layer][K, then V][KV head][dim]`. The places are the first positions, all between, the last
    /// ones.
    means: Vec<f32>,
}

/// Sizes of the means, and the positions that have their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    layers: u32,
    kv_heads: u32,
    head_dim: u32,
    fixed: FixedPositions,
}

/// Numbers of positions that hold the same words in every chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedPositions {
    /// Positions at the start of a chunk.
    pub first: u32,
    /// Positions at the end of a chunk.
    pub last: u32,
}

impl FixedPositions {
    /// Number of places that have their own means.
    #[must_use]
    pub fn places(self) -> usize {
        self.first as usize + 1 + self.last as usize
    }

    /// The place of a position in a chunk of `tokens` positions.
    #[must_use]
    pub fn place(self, position: usize, tokens: usize) -> usize {
        let (first, last) = (self.first as usize, self.last as usize);
        let left = tokens.saturating_sub(position);
        match (position < first, left <= last) {
            (true, _) => position,
            (false, true) => first + 1 + last - left,
            (false, false) => first,
        }
    }
}

impl Calibration {
    /// Makes a calibration from means laid out `[place][layer][K, then V][KV head][dim]`.
    ///
    /// # Panics
    /// If the number of means differs from what the shape and the places take.
    #[must_use]
    pub fn new(kv_shape: &KvShape, fixed: FixedPositions, means: Vec<f32>) -> Self {
        let KvShape { layers, kv_heads, head_dim, .. } = *kv_shape;
        let shape = Shape { layers, kv_heads, head_dim, fixed };
        assert_eq!(
            means.len(),
            shape.values(),
            "a mean for every place, layer, head and dimension"
        );
        Self { shape, means }
    }

    /// The positions that have their own means.
    #[must_use]
    pub fn fixed(&self) -> FixedPositions {
        self.shape.fixed
    }

    /// Whether the calibration is for blocks of this shape. The element type and `hidden` do not matter.
    #[must_use]
    pub fn fits(&self, kv_shape: &KvShape) -> bool {
        let KvShape { layers, kv_heads, head_dim, .. } = *kv_shape;
        self.shape == Shape { layers, kv_heads, head_dim, fixed: self.shape.fixed }
    }

    /// Means of K of one layer and KV head.
    #[must_use]
    pub fn keys(&self, place: usize, layer: usize, head: usize) -> &[f32] {
        self.part(place, layer, head)
    }

    /// Means of V of one layer and KV head.
    #[must_use]
    pub fn values(&self, place: usize, layer: usize, head: usize) -> &[f32] {
        self.part(place, layer, self.shape.kv_heads as usize + head)
    }

    fn part(&self, place: usize, layer: usize, head: usize) -> &[f32] {
        let Shape { layers, kv_heads, head_dim, .. } = self.shape;
        let (heads, dim) = (2 * kv_heads as usize, head_dim as usize);
        let start = ((place * layers as usize + layer) * heads + head) * dim;
        &self.means[start..start + dim]
    }

    /// Digest of [`Calibration::to_bytes`], which identifies the calibration.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// Bytes of the calibration file: magic, layers, KV heads, dimensions, first and last positions, four
    /// zero bytes, then the means; all little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let Shape { layers, kv_heads, head_dim, fixed } = self.shape;
        let mut bytes = MAGIC.to_vec();
        for number in [layers, kv_heads, head_dim, fixed.first, fixed.last, 0] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.means.iter().flat_map(|mean| mean.to_le_bytes()));
        bytes
    }

    /// Returns the largest size of a calibration file for this shape and chunk length, in bytes.
    #[must_use]
    pub fn bytes_max(kv_shape: &KvShape, chunk_tokens: u32) -> u64 {
        let values = u64::from(kv_shape.layers)
            * 2
            * u64::from(kv_shape.kv_heads)
            * u64::from(kv_shape.head_dim);
        HEADER_BYTES as u64 + 4 * values * (u64::from(chunk_tokens) + 1)
    }

    /// Reads [`Calibration::to_bytes`] back. The caller has checked the digest.
    ///
    /// # Errors
    /// [`InvalidCalibration`] for other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidCalibration> {
        let parts = bytes.split_at_checked(HEADER_BYTES);
        let (header, means) = parts.ok_or(InvalidCalibration("it is too short"))?;
        if header[..8] != MAGIC {
            return Err(InvalidCalibration("it does not start as a calibration does"));
        }
        let number = |i: usize| {
            let at = 8 + 4 * i;
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let fixed = FixedPositions { first: number(3), last: number(4) };
        let shape = Shape { layers: number(0), kv_heads: number(1), head_dim: number(2), fixed };
        let values = [shape.layers, 2, shape.kv_heads, shape.head_dim]
            .into_iter()
            .try_fold(fixed.places() as u64, |product, n| product.checked_mul(n.into()));
        if values.and_then(|values| values.checked_mul(4)) != Some(means.len() as u64) {
            return Err(InvalidCalibration("it has not as many means as its header says"));
        }
        let means: Vec<f32> =
            means.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        if means.iter().any(|mean| !mean.is_finite()) {
            return Err(InvalidCalibration("it has means that are no numbers"));
        }
        Ok(Self { shape, means })
    }
}

/// The reason why bytes are no calibration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidCalibration(&'static str);

impl Shape {
    fn values(&self) -> usize {
        let heads = 2 * self.kv_heads as usize * self.head_dim as usize;
        self.fixed.places() * self.layers as usize * heads
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::kv_dtype::KvDtype;

    fn calibration() -> Calibration {
        let kv_shape =
            KvShape { layers: 2, kv_heads: 3, head_dim: 4, hidden: 8, kv_dtype: KvDtype::Int4 };
        let fixed = FixedPositions { first: 2, last: 3 };
        let means = (0..6 * 2 * 2 * 3 * 4).map(|n| n as f32).collect();
        Calibration::new(&kv_shape, fixed, means)
    }

    #[test]
    fn the_ends_of_a_chunk_have_places_of_their_own() {
        let places = |tokens| {
            let fixed = calibration().fixed();
            (0..tokens).map(|position| fixed.place(position, tokens)).collect::<Vec<_>>()
        };
        assert_eq!(places(8), [0, 1, 2, 2, 2, 3, 4, 5]);
        assert_eq!(places(5), [0, 1, 3, 4, 5]);
        assert_eq!(places(1), [0]);
        assert_eq!(calibration().keys(5, 1, 2), [272.0, 273.0, 274.0, 275.0]);
        assert_eq!(calibration().values(0, 0, 0), [12.0, 13.0, 14.0, 15.0]);
    }

    #[test]
    fn bytes_come_back_and_no_length_is_believed() {
        let bytes = calibration().to_bytes();
        assert_eq!(Calibration::from_bytes(&bytes), Ok(calibration()));
        for length in 0..bytes.len() {
            assert!(Calibration::from_bytes(&bytes[..length]).is_err(), "{length}");
        }
        for at in 8..28 {
            for bit in [1, 128] {
                let mut hostile = bytes.clone();
                hostile[at] ^= bit;
                // First and last positions may change places.
                if let Ok(read) = Calibration::from_bytes(&hostile) {
                    assert_ne!(read, calibration());
                }
            }
        }
        let mut hostile = bytes;
        hostile[8..28].fill(0xff);
        assert!(Calibration::from_bytes(&hostile).is_err());
    }
}

//! Identity of a store: names, digests and sizes come in; one digest, the first difference between two
//! stores, and how exactly their scores agree go out. Reads no file.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::block::kv_shape::KvShape;

/// BLAKE3 digest, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Hashes `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(digits: &str) -> Option<Self> {
        Some(Self(*blake3::Hash::from_hex(digits).ok()?.as_bytes()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| serde::de::Error::custom("it is no digest"))
    }
}

/// Extent of the digests of weights and tokenizer in a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// The files as they are, in stores of format version 1.
    Files,
    /// The values that blocks and token ids depend on, however the files hold them.
    Contents,
}

impl Coverage {
    /// Returns the extent of the digests in stores of this format version.
    #[must_use]
    pub fn of_format(version: u32) -> Self {
        if version == 1 { Self::Files } else { Self::Contents }
    }
}

/// Everything that the bytes of a store depend on besides the corpus, each field in clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Version of the store's format.
    pub format_version: u32,
    /// Name of the model as its user calls it. From format version 2 on, models with equal weights may have
    /// different names.
    pub model: String,
    /// Digest of the model's weights and configuration.
    pub weights: Digest,
    /// Digest of the tokenizer's definition.
    pub tokenizer: Digest,
    /// Name of the profile.
    pub profile: String,
    /// Digest of the profile's parts that shape the document part of the prompt.
    pub profile_digest: Digest,
    /// Largest number of positions of a chunk.
    pub chunk_tokens: u32,
    /// Input rows of a unit. A unit becomes one shard.
    pub unit_rows: u32,
    /// Language whose rules the index uses to cut words. It decides the candidates, not the blocks.
    #[serde(default = "english", skip_serializing_if = "is_english")]
    pub language: String,
    /// Sizes and element type of the blocks.
    #[serde(rename = "geometry")]
    pub kv_shape: KvShape,
    /// Digest of the [`Calibration`](crate::Calibration) if the element type needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Digest>,
    /// Rotation of K by its position, e.g. `interleaved, base 100000`.
    pub rope: String,
    /// Arithmetic of the decoder, e.g. `f32`.
    #[serde(rename = "compute")]
    pub dtype: String,
    /// Kernels whose summation order decides the bits, e.g. `cpu-f32-v1`.
    pub kernel: String,
}

/// Agreement of scores over stored blocks with scores over blocks computed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reproducibility {
    /// Equal bits, if the kernel promises its bits: the same kernel made the blocks.
    BitExact,
    /// Within [`SCORE_TOLERANCE_MEAN_LOGPROB`]: another kernel made the blocks, a GPU's or a CPU's.
    WithinTolerance,
}

/// Largest difference of query likelihoods between kernels, in mean log-probability.
pub const SCORE_TOLERANCE_MEAN_LOGPROB: f32 = 2e-2;

/// The first field in which two fingerprints differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Name of the field.
    pub field: &'static str,
    /// Value in the store.
    pub stored: String,
    /// Value in use now.
    pub current: String,
    /// Whether the stored value describes a file, which can change without changing the blocks.
    pub of_file: bool,
}

impl Fingerprint {
    /// Digest of all fields, the model's name included. Every shard repeats it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let text = canonical_text(self);
        Digest::of(text.as_bytes())
    }

    /// Returns the first field in which `self`, of a store, differs from `current`.
    #[must_use]
    pub fn mismatch(&self, current: &Self) -> Option<Mismatch> {
        let of_files = self.coverage() == Coverage::Files;
        let mut pairs = self.compared().zip(current.compared());
        // One side has a field less only if format versions or element types differ.
        let ((field, stored), (_, current)) = pairs.find(|(a, b)| a.1 != b.1)?;
        let of_file = of_files && ["model", "weights", "tokenizer"].contains(&field);
        Some(Mismatch { field, stored, current, of_file })
    }

    /// Says how exactly a model with the fingerprint `current` scores the blocks of this store.
    ///
    /// # Errors
    /// [`Mismatch`] if a field other than `dtype` and `kernel` differs.
    pub fn readable_by(&self, current: &Self) -> Result<Reproducibility, Mismatch> {
        let (dtype, kernel) = (self.dtype.clone(), self.kernel.clone());
        match self.mismatch(&Self { dtype, kernel, ..current.clone() }) {
            Some(mismatch) => Err(mismatch),
            None if self.mismatch(current).is_none() => Ok(Reproducibility::BitExact),
            None => Ok(Reproducibility::WithinTolerance),
        }
    }

    /// Extent of the digests of weights and tokenizer.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        Coverage::of_format(self.format_version)
    }

    /// Lists the fields in which two stores must agree.
    fn compared(&self) -> impl Iterator<Item = (&'static str, String)> {
        let named = self.coverage() == Coverage::Files;
        self.fields().into_iter().filter(move |(field, _)| named || *field != "model")
    }

    /// Lists name and value of every field, in a fixed order.
    #[must_use]
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let Self { kv_shape, .. } = self;
        let mut fields = vec![
            ("format_version", self.format_version.to_string()),
            ("model", self.model.clone()),
            ("weights", self.weights.to_string()),
            ("tokenizer", self.tokenizer.to_string()),
            ("profile", self.profile.clone()),
            ("profile_digest", self.profile_digest.to_string()),
            ("chunk_tokens", self.chunk_tokens.to_string()),
            ("unit_rows", self.unit_rows.to_string()),
            ("language", self.language.clone()),
            ("layers", kv_shape.layers.to_string()),
            ("kv_heads", kv_shape.kv_heads.to_string()),
            ("head_dim", kv_shape.head_dim.to_string()),
            ("hidden", kv_shape.hidden.to_string()),
            ("element", kv_shape.kv_dtype.to_string()),
            ("rope", self.rope.clone()),
            ("compute", self.dtype.clone()),
            ("kernel", self.kernel.clone()),
        ];
        fields.extend(self.calibration.map(|digest| ("calibration", digest.to_string())));
        fields
    }
}

/// Writes one `name=value` a line. No serializer whose format could change is part of the identity.
fn canonical_text(fingerprint: &Fingerprint) -> String {
    // English is left out, as in manifests, because earlier versions have no such field.
    let fields = fingerprint
        .fields()
        .into_iter()
        .filter(|(name, value)| *name != "language" || value != ENGLISH);
    fields.map(|(name, value)| format!("{name}={value:?}\n")).collect()
}

const ENGLISH: &str = "english";

fn english() -> String {
    ENGLISH.to_owned()
}

fn is_english(language: &String) -> bool {
    language == ENGLISH
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::kv_dtype::KvDtype;

    fn fingerprint() -> Fingerprint {
        Fingerprint {
            format_version: 1,
            model: "tiny".into(),
            weights: Digest([1; 32]),
            tokenizer: Digest([2; 32]),
            profile: "plain".into(),
            profile_digest: Digest([3; 32]),
            chunk_tokens: 256,
            unit_rows: 256,
            language: "english".into(),
            kv_shape: KvShape {
                layers: 2,
                kv_heads: 2,
                head_dim: 16,
                hidden: 64,
                kv_dtype: KvDtype::Bf16,
            },
            calibration: None,
            rope: "interleaved".into(),
            dtype: "f32".into(),
            kernel: "cpu-f32-v1".into(),
        }
    }

    #[test]
    fn the_differing_field_is_named() {
        let stored = fingerprint();
        assert_eq!(stored.mismatch(&stored.clone()), None);
        let mut current = stored.clone();
        current.kv_shape.kv_dtype = KvDtype::F32;
        let mismatch = stored.mismatch(&current).unwrap();
        assert_eq!(
            (mismatch.field, mismatch.stored.as_str(), mismatch.current.as_str()),
            ("element", "bf16", "f32")
        );
        assert_ne!(stored.digest(), current.digest());
        let german = Fingerprint { language: "german".into(), ..stored.clone() };
        assert_eq!(stored.mismatch(&german).map(|mismatch| mismatch.field), Some("language"));
        assert_ne!(stored.digest(), german.digest());
    }

    #[test]
    fn blocks_of_another_kernel_are_read_with_a_tolerance() {
        let stored = fingerprint();
        assert_eq!(stored.readable_by(&stored), Ok(Reproducibility::BitExact));
        let gpu = Fingerprint { dtype: "bf16".into(), kernel: "cuda".into(), ..fingerprint() };
        assert_eq!(stored.readable_by(&gpu), Ok(Reproducibility::WithinTolerance));
        let other = Fingerprint { weights: Digest([9; 32]), ..gpu };
        assert_eq!(stored.readable_by(&other).unwrap_err().field, "weights");
    }

    #[test]
    fn a_model_may_have_another_name_from_version_2_on() {
        let named = |format_version, model: &str| Fingerprint {
            format_version,
            model: model.into(),
            ..fingerprint()
        };
        let mismatch = named(1, "a").mismatch(&named(1, "b")).unwrap();
        assert_eq!((mismatch.field, mismatch.of_file), ("model", true));
        assert_ne!(named(1, "a").digest(), named(1, "b").digest());
        assert_eq!(named(2, "a").mismatch(&named(2, "b")), None);
        assert_eq!(named(2, "a").readable_by(&named(2, "b")), Ok(Reproducibility::BitExact));
        assert_ne!(named(2, "a").digest(), named(2, "b").digest());
        let weights = Fingerprint { weights: Digest([9; 32]), ..named(2, "a") };
        let mismatch = named(2, "a").mismatch(&weights).unwrap();
        assert_eq!((mismatch.field, mismatch.of_file), ("weights", false));
        for (a, b) in [(1, 2), (2, 1)] {
            let mismatch = named(a, "a").mismatch(&named(b, "a")).unwrap();
            assert_eq!((mismatch.field, mismatch.of_file), ("format_version", false));
        }
    }

    #[test]
    fn a_value_can_not_pose_as_two_fields() {
        let (mut a, mut b) = (fingerprint(), fingerprint());
        a.rope = "x\"\ncompute=\"y".into();
        b.rope = "x".into();
        assert_ne!(a.digest(), b.digest());
    }
}

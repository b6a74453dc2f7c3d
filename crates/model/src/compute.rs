use std::fmt;
use std::str::FromStr;

use candle_core::DType;

/// Type of weights and products. Sums are f32 in all of them. A CPU has bf16 and f32.
///
/// On a GPU, seen on SmolLM2 over 12 pairs, bf16 K and V: against the CPU f16 differs by 1.0e-2, bf16 by
/// 1.7e-2; most of what f16 differs by is K and V rounded the other way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compute {
    /// binary16: more precise than bf16 at the same speed. Models with activations beyond 65,504
    /// give values that are no numbers, which is an error.
    #[default]
    F16,
    /// bfloat16: for those models.
    Bf16,
    /// binary32; GPUs round its factors to TF32.
    F32,
}

/// A string that names no such type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown type {0:?}: use f16, bf16 or f32")]
pub struct UnknownCompute(String);

impl Compute {
    pub(crate) fn dtype(self) -> DType {
        match self {
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
            Self::F32 => DType::F32,
        }
    }

    /// Name of the type.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        }
    }

    /// What a store made on a GPU with this type carries as kernel.
    #[must_use]
    pub fn kernel_id(self) -> &'static str {
        match self {
            Self::F16 => "cuda-f16-v1",
            Self::Bf16 => "cuda-bf16-v1",
            Self::F32 => "cuda-f32-v1",
        }
    }
}

impl fmt::Display for Compute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Compute {
    type Err = UnknownCompute;

    fn from_str(name: &str) -> Result<Self, UnknownCompute> {
        let all = [Self::F16, Self::Bf16, Self::F32];
        let named = all.into_iter().find(|compute| compute.name() == name);
        named.ok_or_else(|| UnknownCompute(name.to_owned()))
    }
}

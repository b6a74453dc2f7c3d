//! Types of weights and products, by name. Which one is chosen, the caller knows.

use std::fmt;
use std::str::FromStr;

/// Type of weights and products. Sums are f32 in all of them but int8, whose sums are exact. A CPU has
/// bf16, f32 and int8, a GPU all but int8.
///
/// On a GPU, seen on SmolLM2 over 12 pairs, bf16 K and V: against the CPU f16 differs by 1.0e-2, bf16 by
/// 1.7e-2; most of what f16 differs by is K and V rounded the other way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ComputeDtype {
    /// binary16: more precise than bf16 at the same speed. Models with activations beyond 65,504
    /// give values that are no numbers, which is an error.
    #[default]
    F16,
    /// bfloat16: for those models.
    Bf16,
    /// binary32; GPUs round its factors to TF32.
    F32,
    /// 8-bit integers in the layers, bf16 in attention and in the head.
    Int8,
}

/// A string that names no such type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown type {name:?}: use {auto}f16, bf16, f32 or int8")]
pub struct UnknownComputeDtype {
    name: String,
    auto: &'static str,
}

impl UnknownComputeDtype {
    /// Names `auto` among the types to use, for a choice that has it.
    #[must_use]
    pub fn or_auto(self) -> Self {
        Self { auto: "auto, ", ..self }
    }
}

impl ComputeDtype {
    /// Name of the type.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
            Self::Int8 => "int8",
        }
    }

    /// The type of attention, embedding and head, where that of the layers is this: the head's products
    /// are scores already.
    #[inline]
    #[must_use]
    pub fn head_dtype(self) -> Self {
        match self {
            Self::Int8 => Self::Bf16,
            dtype => dtype,
        }
    }

    /// Id of the bits of products of this type on a GPU, as stores carry it.
    ///
    /// # Panics
    /// For int8, which no GPU model is loaded with.
    #[must_use]
    pub const fn kernel_id(self) -> &'static str {
        match self {
            Self::F16 => "cuda-f16-v1",
            Self::Bf16 => "cuda-bf16-v1",
            Self::F32 => "cuda-f32-v1",
            Self::Int8 => panic!("int8 on a GPU"),
        }
    }
}

impl fmt::Display for ComputeDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ComputeDtype {
    type Err = UnknownComputeDtype;

    fn from_str(name: &str) -> Result<Self, UnknownComputeDtype> {
        let all = [Self::F16, Self::Bf16, Self::F32, Self::Int8];
        let named = all.into_iter().find(|dtype| dtype.name() == name);
        named.ok_or_else(|| UnknownComputeDtype { name: name.to_owned(), auto: "" })
    }
}

//! The instruction sets that the machine has, and the ids of the bits that they give. No kernel is known
//! here.

#[cfg(target_arch = "x86_64")]
mod amx;

use crate::dtype::ComputeDtype;

/// Id of the bits of products in f32. It changes when a summation order does, not with the instruction
/// set.
pub const KERNEL_ID: &str = "cpu-f32-v1";
/// Id of the bits of products of bf16, added by fused multiply-adds.
pub const KERNEL_ID_BF16: &str = "cpu-bf16-v1";
/// Id of the bits of products of bf16, added by an instruction for pairs of bf16.
pub const KERNEL_ID_BF16_PAIRS: &str = "cpu-bf16-pairs-v2";
/// Id of the bits of products of bf16, added by AMX.
pub const KERNEL_ID_BF16_AMX: &str = "cpu-bf16-amx-v2";

/// Id of the bits of products of int8, whose sums are exact. Attention, and the head of bf16, are as in
/// [`KERNEL_ID_BF16`].
pub const KERNEL_ID_INT8: &str = "cpu-int8-v1";
/// Id of the bits of products of int8, with attention and head as in [`KERNEL_ID_BF16_PAIRS`].
pub const KERNEL_ID_INT8_PAIRS: &str = "cpu-int8-pairs-v2";
/// Id of the bits of products of int8, with attention and head as in [`KERNEL_ID_BF16_AMX`].
pub const KERNEL_ID_INT8_AMX: &str = "cpu-int8-amx-v2";

/// An instruction set with its kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Plain Rust. Slow where the target has no fused multiply-add.
    Portable,
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, DQ and BW.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX-512 F, DQ and BW with BF16.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    /// AVX-512 with BF16, and AMX for products of bf16 and int8.
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl Kernel {
    /// The kernels that this machine can run, the fastest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut kernels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 =
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq");
            let avx512 = avx512 && is_x86_feature_detected!("avx512bw");
            let pairs = avx2 && avx512 && is_x86_feature_detected!("avx512bf16");
            if pairs && amx::is_available() {
                kernels.push(Self::Amx);
            }
            if pairs {
                kernels.push(Self::Avx512Bf16);
            }
            if avx2 && avx512 {
                kernels.push(Self::Avx512);
            }
            if avx2 {
                kernels.push(Self::Avx2);
            }
        }
        kernels.push(Self::Portable);
        kernels
    }

    /// The fastest kernel that this machine can run.
    #[must_use]
    pub fn best() -> Self {
        Self::available()[0]
    }

    /// Name of the instruction set.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => "avx512-bf16",
            #[cfg(target_arch = "x86_64")]
            Self::Amx => "amx",
        }
    }

    /// The id of the bits of products.
    #[inline]
    #[must_use]
    pub fn id(self, dtype: ComputeDtype) -> &'static str {
        match (self, dtype) {
            #[cfg(target_arch = "x86_64")]
            (Self::Avx512Bf16, ComputeDtype::Bf16) => KERNEL_ID_BF16_PAIRS,
            #[cfg(target_arch = "x86_64")]
            (Self::Amx, ComputeDtype::Bf16) => KERNEL_ID_BF16_AMX,
            (_, ComputeDtype::Bf16) => KERNEL_ID_BF16,
            #[cfg(target_arch = "x86_64")]
            (Self::Avx512Bf16, ComputeDtype::Int8) => KERNEL_ID_INT8_PAIRS,
            #[cfg(target_arch = "x86_64")]
            (Self::Amx, ComputeDtype::Int8) => KERNEL_ID_INT8_AMX,
            (_, ComputeDtype::Int8) => KERNEL_ID_INT8,
            _ => KERNEL_ID,
        }
    }

    /// The fastest type that loses little: bf16 where instructions multiply it, else f32.
    #[must_use]
    pub fn dtype(self) -> ComputeDtype {
        if self.multiplies_bf16() { ComputeDtype::Bf16 } else { ComputeDtype::F32 }
    }

    /// Returns whether it has instructions that multiply bf16. Without them bf16 is upcast to f32.
    #[inline]
    pub(crate) fn multiplies_bf16(self) -> bool {
        self.id(ComputeDtype::Bf16) != KERNEL_ID_BF16
    }
}

//! The choice of the type of weights and products: a word of the user or of a store comes in, a type for the
//! CPU or the GPU goes out. No weight is read here.

use std::str::FromStr;

use hyperrag_kernels::dtype::{ComputeDtype, UnknownComputeDtype};
use hyperrag_kernels::isa::Kernel;

/// A choice of [`ComputeDtype`], where a model is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DtypeChoice {
    /// The type of [`Kernel::dtype`] on a CPU, f16 on a GPU.
    #[default]
    Auto,
    /// This type on a CPU, f16 on a GPU: the choice of a store, where a user leaves it open.
    OnCpu(ComputeDtype),
    /// This type.
    Named(ComputeDtype),
}

impl DtypeChoice {
    /// The type on a CPU that computes with `kernel`.
    #[must_use]
    pub fn on_cpu(self, kernel: Kernel) -> ComputeDtype {
        match self {
            Self::Auto => kernel.dtype(),
            Self::OnCpu(dtype) | Self::Named(dtype) => dtype,
        }
    }

    /// The type on a GPU.
    #[must_use]
    pub fn on_gpu(self) -> ComputeDtype {
        match self {
            Self::Auto | Self::OnCpu(_) => ComputeDtype::F16,
            Self::Named(dtype) => dtype,
        }
    }
}

impl FromStr for DtypeChoice {
    type Err = UnknownComputeDtype;

    fn from_str(name: &str) -> Result<Self, UnknownComputeDtype> {
        match name {
            "auto" => Ok(Self::Auto),
            name => match name.parse() {
                Ok(dtype) => Ok(Self::Named(dtype)),
                Err(unknown) => Err(unknown.or_auto()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_bf16_where_instructions_multiply_it_and_f32_elsewhere() {
        for kernel in Kernel::available() {
            let expected = match kernel.name() {
                "amx" | "avx512-bf16" => ComputeDtype::Bf16,
                "avx512" | "avx2" | "portable" => ComputeDtype::F32,
                other => panic!("{other}"),
            };
            assert_eq!(DtypeChoice::Auto.on_cpu(kernel), expected, "{}", kernel.name());
            for named in [ComputeDtype::F32, ComputeDtype::Bf16, ComputeDtype::Int8] {
                assert_eq!(DtypeChoice::Named(named).on_cpu(kernel), named);
                assert_eq!(DtypeChoice::OnCpu(named).on_cpu(kernel), named);
            }
        }
        assert_eq!(DtypeChoice::Auto.on_gpu(), ComputeDtype::F16);
        assert_eq!(DtypeChoice::OnCpu(ComputeDtype::Int8).on_gpu(), ComputeDtype::F16);
        assert_eq!(DtypeChoice::Named(ComputeDtype::Bf16).on_gpu(), ComputeDtype::Bf16);
    }
}

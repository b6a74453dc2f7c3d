//! The choice of the type of weights and products: a word of the user or of a store comes in, a type for the
//! CPU or the GPU goes out. No weight is read here.

use std::str::FromStr;

use hyperrag_kernels::dtype::{Compute, UnknownCompute};
use hyperrag_kernels::isa::Kernel;

/// A choice of [`Compute`], where a model is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ComputeChoice {
    /// The type of [`Kernel::compute`] on a CPU, f16 on a GPU.
    #[default]
    Auto,
    /// This type on a CPU, f16 on a GPU: the choice of a store, where a user leaves it open.
    OnCpu(Compute),
    /// This type.
    Named(Compute),
}

impl ComputeChoice {
    /// The type on a CPU that computes with `kernel`.
    #[must_use]
    pub fn on_cpu(self, kernel: Kernel) -> Compute {
        match self {
            Self::Auto => kernel.compute(),
            Self::OnCpu(compute) | Self::Named(compute) => compute,
        }
    }

    /// The type on a GPU.
    #[must_use]
    pub fn on_gpu(self) -> Compute {
        match self {
            Self::Auto | Self::OnCpu(_) => Compute::F16,
            Self::Named(compute) => compute,
        }
    }
}

impl FromStr for ComputeChoice {
    type Err = UnknownCompute;

    fn from_str(name: &str) -> Result<Self, UnknownCompute> {
        match name {
            "auto" => Ok(Self::Auto),
            name => match name.parse() {
                Ok(compute) => Ok(Self::Named(compute)),
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
                "amx" | "avx512-bf16" => Compute::Bf16,
                "avx512" | "avx2" | "portable" => Compute::F32,
                other => panic!("{other}"),
            };
            assert_eq!(ComputeChoice::Auto.on_cpu(kernel), expected, "{}", kernel.name());
            for named in [Compute::F32, Compute::Bf16, Compute::Int8] {
                assert_eq!(ComputeChoice::Named(named).on_cpu(kernel), named);
                assert_eq!(ComputeChoice::OnCpu(named).on_cpu(kernel), named);
            }
        }
        assert_eq!(ComputeChoice::Auto.on_gpu(), Compute::F16);
        assert_eq!(ComputeChoice::OnCpu(Compute::Int8).on_gpu(), Compute::F16);
        assert_eq!(ComputeChoice::Named(Compute::Bf16).on_gpu(), Compute::Bf16);
    }
}

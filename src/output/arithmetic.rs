//! Sentences on the type that a model computes in, and what it costs in ranking.

use hyperrag_model::{
    KERNEL_ID_BF16, KERNEL_ID_BF16_AMX, KERNEL_ID_BF16_PAIRS, KERNEL_ID_INT8, KERNEL_ID_INT8_AMX,
    KERNEL_ID_INT8_PAIRS, Model,
};

/// Says where `model` computes and in which type, in a short line. `info` says what the type costs.
pub(crate) fn sentence(model: &Model) -> String {
    let place = match model {
        Model::Cpu(_) => format!("the CPU ({})", model.backend_description()),
        Model::Gpu(..) => model.backend_description(),
    };
    let how = format!("computing in {} on {place}", model.dtype());
    match cost(model.kernel_id()) {
        Some(_) => format!("{how}; --dtype f32 for f32"),
        None => how,
    }
}

/// Says how far a type of a CPU moves scores and rankings from those in f32, as measured with
/// SmolLM2-135M (README, "bf16" and "int8").
pub(crate) fn cost(kernel: &str) -> Option<String> {
    let (largest, ranking) = match kernel {
        KERNEL_ID_BF16_AMX => ("7.1e-3", BF16),
        KERNEL_ID_BF16_PAIRS => ("1.4e-2", BF16),
        KERNEL_ID_BF16 => ("8.8e-3", BF16),
        KERNEL_ID_INT8 | KERNEL_ID_INT8_PAIRS | KERNEL_ID_INT8_AMX => ("8.1e-2", INT8),
        _ => return None,
    };
    Some(format!(
        "scores are within {largest} of those in f32 on 12 pairs of SmolLM2-135M, {ranking}"
    ))
}

const BF16: &str = "its rankings have a Kendall's tau of 0.989 with those in f32, and the same \
                    fused nDCG@10";
const INT8: &str = "its rankings have a Kendall's tau of 0.958 with those in f32, and a fused \
                    nDCG@10 within 0.001";

#!/usr/bin/env bash
# candle-transformers 0.11.1 (crates.io): two settings of decoders that are read and do not mean what they do
# in transformers.
#
# 1. gemma2 reads `query_pre_attn_scalar` and never uses it: scores are divided by the root of the head's
#    size. Seen: configurations with 8 and with 512 give the same logits to the bit. Where the two numbers
#    differ, as in the 27B model of Gemma 2 (144, heads of 128), all scores of attention are off.
# 2. mistral's `sliding_window` of W lets a token see W + 1 positions, itself included; the reference's
#    masks let it see W. Seen, with one layer and a window of 4: the last of 8 tokens changes with the token
#    4 places before it, and not with the one 5 places before it.
#
# Fails if that changes. Needs cargo; compiles candle (a few minutes on two cores).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cargo init -q --name decoders
cat >> Cargo.toml <<'TOML'
candle-core = "=0.11.1"
candle-nn = "=0.11.1"
candle-transformers = { version = "=0.11.1", default-features = false }
TOML
cat > src/main.rs <<'RUST'
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Activation, VarBuilder, VarMap};
use candle_transformers::models::{gemma2, mistral};

/// Weights that differ from each other, for all names and shapes a model asks for.
fn weights(map: &VarMap) -> Result<()> {
    let mut names: Vec<_> = map.data().lock().unwrap().iter().map(|(n, v)| (n.clone(), v.clone())).collect();
    names.sort_by(|a, b| a.0.cmp(&b.0));
    let mut state = 1_u32;
    for (_, variable) in names {
        let values: Vec<f32> = (0..variable.elem_count())
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32 - 0.5
            })
            .collect();
        variable.set(&Tensor::from_vec(values, variable.shape(), &Device::Cpu)?)?;
    }
    Ok(())
}

fn logits(tensor: Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}

fn gemma2(scalar: usize) -> Result<Vec<f32>> {
    let config = gemma2::Config {
        attention_bias: false,
        head_dim: 8,
        hidden_activation: Activation::GeluPytorchTanh,
        hidden_size: 16,
        intermediate_size: 32,
        num_attention_heads: 2,
        num_hidden_layers: 2,
        num_key_value_heads: 1,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        vocab_size: 32,
        final_logit_softcapping: None,
        attn_logit_softcapping: None,
        query_pre_attn_scalar: scalar,
        sliding_window: None,
        max_position_embeddings: 64,
    };
    let map = VarMap::new();
    let builder = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
    gemma2::Model::new(false, &config, builder.clone())?;
    weights(&map)?;
    let ids = Tensor::new(&[[1_u32, 2, 3, 4, 5, 6]], &Device::Cpu)?;
    logits(gemma2::Model::new(false, &config, builder)?.forward(&ids, 0)?)
}

fn mistral(tokens: &[u32]) -> Result<Vec<f32>> {
    let config = mistral::Config {
        vocab_size: 32,
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        head_dim: None,
        num_key_value_heads: 1,
        hidden_act: Activation::Silu,
        max_position_embeddings: 64,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        sliding_window: Some(4),
        use_flash_attn: false,
    };
    let map = VarMap::new();
    let builder = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
    mistral::Model::new(&config, builder.clone())?;
    weights(&map)?;
    let ids = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
    logits(mistral::Model::new(&config, builder)?.forward(&ids, 0)?)
}

fn main() -> Result<()> {
    let (small, large) = (gemma2(8)?, gemma2(512)?);
    assert!(small.iter().any(|value| *value != small[0]), "logits differ among themselves");
    println!("gemma2: query_pre_attn_scalar 8 and 512 give the same logits: {}", small == large);
    assert_eq!(small, large);

    let tokens = [1_u32, 2, 3, 4, 5, 6, 7, 8];
    let whole = mistral(&tokens)?;
    let seen: Vec<usize> = (0..tokens.len())
        .filter(|back| {
            let mut changed = tokens;
            changed[tokens.len() - 1 - back] = 20;
            mistral(&changed).unwrap() != whole
        })
        .collect();
    println!("mistral: with a window of 4 the last token sees those {seen:?} places back");
    assert_eq!(seen, [0, 1, 2, 3, 4]);
    Ok(())
}
RUST
cargo run -q

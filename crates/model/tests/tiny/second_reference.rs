//! The models of candle-transformers on the tiny weights, as a second reference beside transformers:
//! written by other people, in another language than the first. Version 0.11.1 gets two wrong, which are
//! left out: its Granite ignores the factors, and its Phi-3 multiplies where LongRoPE divides.

use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use candle_nn::ops::log_softmax;
use candle_transformers::models::smol::smollm3;
use candle_transformers::models::{gemma, gemma2, gemma3, llama, mistral, olmo2, qwen2, qwen3};
use hyperrag_core::KvDtype;
use hyperrag_model::testing::tiny::Tiny;
use hyperrag_model::{ComputeDtype, CpuModel, Kernel, ModelFile};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::device::assert_close;
use crate::seeded::tokens;

/// Computes the logits of the token after a run.
type Next = Box<dyn FnMut(&Tensor) -> Result<Tensor>>;

/// Returns a closure that clears a model's cache and runs it.
macro_rules! next {
    ($model:expr) => {{
        let mut model = $model;
        Box::new(move |run: &Tensor| {
            model.clear_kv_cache();
            model.forward(run, 0)
        }) as Next
    }};
}

/// Reads a model's own configuration, with fields that candle wants and transformers leaves out.
fn config<T: serde::de::DeserializeOwned>(folder: &Path, further: &Value) -> T {
    let text = fs::read(folder.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    for fields in [&json!({"attention_bias": false, "max_window_layers": 2}), further] {
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    }
    serde_json::from_value(config).unwrap()
}

fn model(name: &str, folder: &Path) -> Result<Next> {
    let mut tensors =
        candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu)?;
    // Some of its models know no other head than one of their own.
    let head = tensors["model.embed_tokens.weight"].clone();
    tensors.entry("lm_head.weight".to_owned()).or_insert(head);
    let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let none = json!({});
    // A window of candle's is a position longer than the same number means to transformers.
    let window = json!({"sliding_window": 7});
    let far = json!({"sliding_window": 1000, "query_pre_attn_scalar": 24});
    Ok(match name {
        "llama" | "llama3" => {
            let config = config::<llama::LlamaConfig>(folder, &none).into_config(false);
            let model = llama::Llama::load(weights, &config)?;
            Box::new(move |run| {
                let mut cache = llama::Cache::new(false, DType::F32, &config, &Device::Cpu)?;
                model.forward(run, 0, &mut cache)
            })
        }
        "mistral" => next!(mistral::Model::new(&config(folder, &window), weights)?),
        "qwen2" => next!(qwen2::ModelForCausalLM::new(&config(folder, &far), weights)?),
        "qwen3" => next!(qwen3::ModelForCausalLM::new(&config(folder, &far), weights)?),
        "gemma" => next!(gemma::Model::new(false, &config(folder, &none), weights)?),
        "gemma2" => next!(gemma2::Model::new(false, &config(folder, &none), weights)?),
        "gemma3" => next!(gemma3::Model::new(false, &config(folder, &window), weights)?),
        "smollm3" => next!(smollm3::ModelForCausalLM::new(&config(folder, &none), weights)?),
        "olmo2" => next!(olmo2::Model::new(&config(folder, &none), weights)?),
        _ => candle_core::bail!("candle-transformers has no {name}"),
    })
}

/// Computes the log-probability of each token but the first.
fn log_probabilities(next: &mut Next, run: &[u32]) -> Result<Vec<f32>> {
    let log = |end: usize| {
        let before = Tensor::new(&run[..end], &Device::Cpu)?.unsqueeze(0)?;
        let logs = log_softmax(&next(&before)?.flatten_all()?, 0)?;
        logs.get(run[end] as usize)?.to_scalar()
    };
    (1..run.len()).map(log).collect()
}

/// Makes attention divide by the root of the size of a head, which is what candle's Gemma 2 does whatever
/// its configuration says.
fn scale_by_head_dim(folder: &Path) {
    let config: Value = config(folder, &json!({}));
    let further = json!({"query_pre_attn_scalar": config["head_dim"]});
    let config: Value = self::config(folder, &further);
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

#[test]
fn candle_transformers_computes_the_same() {
    for (name, length) in [
        ("llama", 40),
        ("llama3", 100),
        ("mistral", 40),
        ("qwen2", 40),
        ("qwen3", 40),
        ("gemma", 40),
        // Its windows are on all layers, not on every other one: the run is as long as the window.
        ("gemma2", 8),
        ("gemma3", 40),
        ("smollm3", 40),
        ("olmo2", 40),
    ] {
        let folder = TempDir::new().unwrap();
        Tiny::new(name, 0).unwrap().write_folder(folder.path(), 1).unwrap();
        if name == "gemma2" {
            scale_by_head_dim(folder.path());
        }
        let mut file = ModelFile::open(folder.path()).unwrap();
        let (f32, kernel) = (ComputeDtype::F32, Kernel::best());
        let own = CpuModel::load(&mut file, KvDtype::F32, f32, kernel, 2).unwrap();
        let run = tokens(7, length);
        let logs = own.log_probabilities_of_run(&run).unwrap();
        let logs: Vec<f32> = logs.into_iter().map(|log| log as f32).collect();
        let mut next = model(name, folder.path()).unwrap();
        let expected = log_probabilities(&mut next, &run).unwrap();
        assert_close(&logs, &expected, 1e-4, name);
    }
}

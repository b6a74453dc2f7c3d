//! Folders of safetensors beside GGUF files with the same numbers, and refusals of folders.

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use hyperrag_core::{Coverage, KvDtype, LanguageModel, ModelError, Tokenize};
use hyperrag_model::testing::tiny::{NAMES, Tiny};
use hyperrag_model::{ComputeDtype, CpuModel, Kernel, LoadError, ModelFile};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::blocks::{bits, chunk, same};

fn load(path: &Path) -> Result<CpuModel, LoadError> {
    let mut file = ModelFile::open(path)?;
    CpuModel::load(&mut file, KvDtype::F32, ComputeDtype::F32, Kernel::best(), 2)
}

/// Writes the tiny model of that name as GGUF, as a folder, and as a folder with three files of
/// weights.
fn written(folder: &TempDir, name: &str) -> [PathBuf; 3] {
    let tiny = Tiny::new(name, 0).unwrap();
    let [gguf, whole, parts] =
        ["gguf", "whole", "parts"].map(|kind| folder.path().join(format!("{name}.{kind}")));
    tiny.write_gguf(&mut File::create(&gguf).unwrap()).unwrap();
    tiny.write_folder(&whole, 1).unwrap();
    tiny.write_folder(&parts, 3).unwrap();
    [gguf, whole, parts]
}

fn golden() -> Value {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/architectures.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn folders_compute_what_ggufs_and_transformers_do() {
    let (folder, golden) = (TempDir::new().unwrap(), golden());
    for name in NAMES {
        let [gguf, others @ ..] = written(&folder, name);
        let config = ModelFile::open(&gguf).unwrap().config().clone();
        let model = load(&gguf).unwrap();
        let cases = golden["models"][name].as_array().unwrap();
        let tokens =
            |case: &Value| -> Vec<u32> { serde_json::from_value(case["tokens"].clone()).unwrap() };
        let chunks: Vec<_> = cases.iter().map(|case| chunk(&tokens(case))).collect();
        let blocks = model.prefill(&chunks).unwrap();
        for path in others {
            let file = ModelFile::open(&path).unwrap();
            assert_eq!(file.config(), &config, "{name}");
            assert_eq!(file.name(), path.file_name().unwrap().to_str().unwrap());
            let other = load(&path).unwrap();
            let others = other.prefill(&chunks).unwrap();
            assert!(blocks.iter().zip(&others).all(|(a, b)| same(a, b)), "{name}");
            for case in cases {
                let logs = other.log_probabilities_of_run(&tokens(case)).unwrap();
                let expected = case["log_probabilities"].as_array().unwrap();
                assert_eq!(logs.len(), expected.len());
                for (log, expected) in logs.iter().zip(expected) {
                    let difference = (log - expected.as_f64().unwrap()).abs();
                    assert!(difference <= 1e-4, "{name}: {log}, transformers gives {expected}");
                }
            }
            let block = &others[1];
            let scores = other.score(&[5, 9], &[block]).unwrap();
            assert_eq!(bits(&scores), bits(&model.score(&[5, 9], &[&blocks[1]]).unwrap()));
        }
    }
}

#[test]
fn both_have_the_same_tokens() {
    let folder = TempDir::new().unwrap();
    let [gguf, whole, _] = written(&folder, "llama");
    let [a, b] = [gguf, whole].map(|path| ModelFile::open(&path).unwrap().tokenizer().unwrap());
    for text in ["the heat in winter", "Käse 12 €\n\t«…»  \u{1F41D}", " <|im_end|> of", "", " "]
    {
        assert_eq!(a.encode_text(text).unwrap(), b.encode_text(text).unwrap(), "{text:?}");
        assert_eq!(a.encode_template(text).unwrap(), b.encode_template(text).unwrap(), "{text:?}");
    }
    assert!(b.has_special("<|im_end|>"));
}

#[test]
fn an_index_of_former_weights_is_not_read() {
    let folder = TempDir::new().unwrap();
    let [_, whole, _] = written(&folder, "llama");
    let parts = folder.path().join("former");
    Tiny::new("llama", 1).unwrap().write_folder(&parts, 3).unwrap();
    let score = |path: &Path| {
        let model = load(path).unwrap();
        let blocks = model.prefill(&[chunk(&[5, 6, 7])]).unwrap();
        bits(&model.score(&[5, 9], &[&blocks[0]]).unwrap())
    };
    let (expected, digest) =
        (score(&whole), ModelFile::open(&whole).unwrap().digest(Coverage::Contents).unwrap());
    let index = "model.safetensors.index.json";
    fs::copy(parts.join(index), whole.join(index)).unwrap();
    // Whether the former weights are there or not.
    assert_eq!(score(&whole), expected);
    for part in 1..=3 {
        let name = format!("model-{part:05}-of-00003.safetensors");
        fs::copy(parts.join(&name), whole.join(&name)).unwrap();
    }
    assert_eq!(score(&whole), expected);
    assert_eq!(ModelFile::open(&whole).unwrap().digest(Coverage::Contents).unwrap(), digest);
    assert_ne!(score(&parts), expected);
}

/// Makes a folder with a changed `config.json`.
fn with_config(change: impl Fn(&mut Value)) -> (TempDir, PathBuf) {
    with_config_of("llama", change)
}

fn with_config_of(name: &str, change: impl Fn(&mut Value)) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let [_, path, _] = written(&folder, name);
    let file = path.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut config);
    fs::write(&file, config.to_string()).unwrap();
    (folder, path)
}

#[test]
fn what_is_not_supported_is_named() {
    for (key, value, words) in [
        ("model_type", json!("gpt_neox"), "gpt_neox"),
        ("model_type", json!("qwen3_next"), "a state from token to token"),
        ("model_type", json!("lfm2"), "a state from token to token"),
        ("model_type", json!("granitemoehybrid"), "a state from token to token"),
        ("model_type", json!("mixtral"), "a mixture of experts"),
        ("model_type", json!("gemma3n_text"), "heads of different sizes"),
        ("quantization_config", json!({"quant_method": "gptq"}), "gptq"),
        ("rope_scaling", json!({"rope_type": "dynamic", "factor": 4.0}), "dynamic"),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0, "mscale": 1.0}), "mscale"),
        ("rope_scaling", json!({"rope_type": "longrope", "short_factor": [1.0]}), "longrope"),
        ("hidden_act", json!("relu"), "relu"),
        ("attention_bias", json!(true), "attention_bias"),
        ("partial_rotary_factor", json!(0.5), "a part of each head"),
        ("architectures", json!(["LlamaForSequenceClassification"]), "SequenceClassification"),
        ("num_hidden_layers", json!(0), "num_hidden_layers is 0"),
        ("hidden_size", Value::Null, "hidden_size is missing"),
        ("vocab_size", json!("many"), "config.json"),
        ("num_key_value_heads", json!(3), "4 query heads over 3 KV heads"),
        ("num_hidden_layers", json!(3), "model.layers.2"),
        ("vocab_size", json!(292), "expected [292, 64]"),
    ] {
        let (_folder, path) = with_config(|config| config[key] = value.clone());
        let error = load(&path).err().unwrap().to_string();
        assert!(error.contains(words), "{key}: {error}");
    }
    let (_folder, path) = with_config(|_| ());
    assert!(load(&path).is_ok());
    // Untied, but without the head's weights.
    let (_folder, path) = with_config(|config| config["tie_word_embeddings"] = json!(false));
    assert!(load(&path).err().unwrap().to_string().contains("lm_head.weight"));
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let (_folder, path) = with_config(|_| ());
        fs::remove_file(path.join(file)).unwrap();
        let opened = ModelFile::open(&path).and_then(|file| file.tokenizer().map(|_| ()));
        let error = opened.err().unwrap().to_string();
        assert!(error.contains(&format!("there is no {file}")), "{error}");
    }
}

#[test]
fn newer_and_older_spellings_mean_the_same() {
    let config = |change: &dyn Fn(&mut Value)| {
        let (_folder, path) = with_config(change);
        ModelFile::open(&path).unwrap().config().clone()
    };
    let older = config(&|config| {
        config["rope_theta"] = json!(50_000.0);
        config["rope_scaling"] = json!({"type": "linear", "factor": 2.0});
    });
    let newer = config(&|config| {
        config.as_object_mut().unwrap().remove("rope_theta");
        config["rope_parameters"] =
            json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 50_000.0});
    });
    assert_eq!(older, newer);
    assert_eq!(older.rope.base, 50_000.0);
    let plain = config(&|_| ());
    let unscaled = config(&|config| config["rope_scaling"] = json!({"rope_type": "default"}));
    assert_eq!(plain, unscaled);
}

#[test]
fn options_of_newer_architectures_are_read_or_refused() {
    let config = |name: &str, change: &dyn Fn(&mut Value)| {
        let (_folder, path) = with_config_of(name, change);
        ModelFile::open(&path).map(|file| file.config().clone()).map_err(|e| e.to_string())
    };
    let remove = |key: &'static str| {
        move |config: &mut Value| drop(config.as_object_mut().unwrap().remove(key))
    };
    // transformers' default is the same as the list.
    let stated = config("smollm3", &|_| ()).unwrap();
    assert_eq!(config("smollm3", &remove("no_rope_layers")).unwrap(), stated);
    let every_second = config("smollm3", &|config| {
        config["no_rope_layers"] = Value::Null;
        config["no_rope_layer_interval"] = json!(2);
    });
    let layers = Some(vec![true, false, true, false]);
    assert_eq!(every_second.unwrap().rotary_layers, layers);
    // A Granite 4 says in words that it rotates.
    let rotated = config("granite4", &|config| config["position_embedding_type"] = json!("rope"));
    assert_eq!(rotated.unwrap().rotary_layers, None);
    for (name, key, value, words) in [
        ("smollm3", "no_rope_layers", json!([1, 1]), "RoPE on layers"),
        ("smollm3", "use_sliding_window", json!(true), "without layer_types"),
        ("granite4", "layer_types", json!(["attention", "mamba"]), "a state from token to token"),
        ("granite4", "num_local_experts", json!(8), "a mixture of experts"),
        ("granite", "logits_scaling", json!(0.0), "not above 0"),
        ("granite", "residual_multiplier", json!(-1.0), "not above 0"),
        ("granite", "attention_bias", json!(true), "attention_bias"),
        ("phi4", "partial_rotary_factor", json!(1e30), "of each head"),
        ("phi4", "partial_rotary_factor", json!(0.5), "not above 0"),
        ("phi4", "partial_rotary_factor", json!(0.2), "RoPE on 3 of 16"),
    ] {
        let error = config(name, &|config| {
            config[key] = value.clone();
            config["sliding_window"] = json!(8);
        });
        let error = error.expect_err(key);
        assert!(error.contains(words), "{name}, {key}: {error}");
    }
}

#[test]
fn options_of_gemma4_are_read_or_refused() {
    let config = |name: &str, change: &dyn Fn(&mut Value)| {
        let (_folder, path) = with_config_of(name, change);
        ModelFile::open(&path).map(|file| file.config().clone()).map_err(|e| e.to_string())
    };
    // In the whole model's file, the text model is a part.
    let stated = config("gemma4", &|_| ()).unwrap();
    let inner = config("gemma4", &|config| {
        *config = json!({"model_type": "gemma4", "text_config": config.clone()});
    });
    assert_eq!(inner.unwrap(), stated);
    // The older spelling of what the dense model has in the newer one.
    let newer = config("gemma4-dense", &|_| ()).unwrap();
    let older = config("gemma4-dense", &|config| {
        config.as_object_mut().unwrap().remove("per_layer_config");
        config["global_head_dim"] = json!(32);
        config["num_global_key_value_heads"] = json!(1);
    });
    assert_eq!(older.unwrap(), newer);
    // The last layer sees everything, whatever its type; transformers has the same default angles.
    let changed = config("gemma4", &|config| {
        config["layer_types"][7] = json!("sliding_attention");
        config.as_object_mut().unwrap().remove("rope_parameters");
    });
    assert_eq!(changed.unwrap(), stated);
    let only = |kind: &str| vec![kind.to_owned(); 8];
    for (key, value, words) in [
        ("enable_moe_block", json!(true), "a mixture of experts"),
        ("use_bidirectional_attention", json!("all"), "later tokens"),
        ("num_kv_shared_layers", json!(8), "8 of 8 layers without K and V"),
        ("num_kv_shared_layers", json!(1u64 << 60), "of 8 layers without K and V"),
        ("num_kv_shared_layers", json!(6), "layer 2, which has no K and V"),
        ("vocab_size_per_layer_input", json!(100), "100 tokens to each layer"),
        ("hidden_size_per_layer_input", json!(1u64 << 40), "hidden_size_per_layer_input is"),
        ("global_head_dim", json!(0), "global_head_dim is 0"),
        ("global_head_dim", json!(31), "2 KV heads of 31 dimensions"),
        ("global_head_dim", json!(1u64 << 40), "global_head_dim is"),
        ("layer_types", json!(["full_attention"]), "a window that is not"),
        ("layer_types", json!(only("chunked_attention")), "chunked_attention"),
        ("per_layer_config", json!({"0": {"head_dim": 64}}), "unlike others of its kind"),
        ("per_layer_config", json!({"0": {"sliding_window": 64}}), "sliding_window"),
        ("rope_parameters", json!({"rope_type": "default"}), "each kind of layers"),
        ("sliding_window", json!(0), "a window that is not"),
        ("attention_bias", json!(true), "attention_bias"),
        ("hidden_activation", json!("silu"), "silu"),
    ] {
        let error = config("gemma4", &|config| config[key] = value.clone()).expect_err(key);
        assert!(error.contains(words), "{key}: {error}");
    }
}

#[test]
fn longrope_ends_at_the_former_context() {
    let (_folder, path) = with_config_of("phi4", |_| ());
    let model = load(&path).unwrap();
    assert_eq!((model.config().context, model.context_tokens()), (1024, 1024));
    assert!(model.prefill(&[chunk(&[7; 1024])]).is_ok());
    let error = model.prefill(&[chunk(&[7; 1025])]).err().unwrap();
    assert!(matches!(error, ModelError::TooLong { tokens: 1025, max: 1024, .. }), "{error}");
}

/// Runs everything that reads a folder, down to a block.
fn survives(path: &Path, what: &str) -> bool {
    let used = || load(path).map(|model| model.prefill(&[chunk(&[5, 6])]).is_ok());
    catch_unwind(AssertUnwindSafe(used)).expect(what).unwrap_or(false)
}

#[test]
fn damaged_weights_are_errors_or_models() {
    let folder = TempDir::new().unwrap();
    let [_, path, parts] = written(&folder, "qwen2");
    let file = path.join("model.safetensors");
    let whole = fs::read(&file).unwrap();
    assert!(survives(&path, "the whole file"));
    for length in [0, 4, 8, 100, 2000, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..length]).unwrap();
        assert!(!survives(&path, "cut"), "cut at {length}");
    }
    // A header longer than the file, and one larger than memory.
    for length in [whole.len() as u64, u64::MAX] {
        fs::write(&file, [&length.to_le_bytes()[..], &whole[8..]].concat()).unwrap();
        assert!(!survives(&path, "header"), "{length}");
    }
    let after = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(whole[8..after].to_vec()).unwrap();
    for (from, to) in [("\"F32\"", "\"I64\""), ("[64]", "[65]"), ("[64]", "[99]"), ("[0,", "[1,")] {
        let changed = header.replacen(from, to, 1);
        assert_ne!(changed, header);
        fs::write(&file, [&whole[..8], changed.as_bytes(), &whole[after..]].concat()).unwrap();
        assert!(!survives(&path, "changed"), "{from} to {to}");
    }
    let index = parts.join("model.safetensors.index.json");
    let text = fs::read_to_string(&index).unwrap();
    for name in ["../model-00001-of-00003.safetensors", "model-00009-of-00003.safetensors"] {
        fs::write(&index, text.replace("model-00001-of-00003.safetensors", name)).unwrap();
        assert!(!survives(&parts, "index"), "{name}");
    }
    for text in ["", "[]", "{\"weight_map\": 1}"] {
        fs::write(&index, text).unwrap();
        assert!(!survives(&parts, "index"), "{text}");
    }
    for text in ["", "[]", "{}", "{\"model_type\": \"llama\"}", "{\"model_type\": \"gemma3\"}"] {
        fs::write(path.join("config.json"), text).unwrap();
        assert!(!survives(&path, "config"), "{text}");
    }
    for text in ["", "[]", "{}", "{\"added_tokens\": [1, {}]}"] {
        fs::write(path.join("tokenizer.json"), text).unwrap();
        let tokenizer = ModelFile::open(&path).and_then(|file| file.tokenizer());
        assert!(tokenizer.is_err(), "{text}");
    }
}

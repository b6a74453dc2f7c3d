//! Coverage of the digests of a model: changes that must not matter, which leave blocks as they are,
//! and changes that must.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Cursor;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Content, Value as Metadata};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use hyperrag_core::{Coverage, Digest, KvBlock, KvDtype, LanguageModel, Tokenize};
use hyperrag_model::testing::tiny::Tiny;
use hyperrag_model::{ComputeDtype, CpuModel, Kernel, ModelFile};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::blocks::{chunk, same};

const TEXT: &str = "The heat of a hive in winter, and it's 12 \u{b0}.";

/// Digests of weights and tokenizer, and the block of a text.
struct Seen {
    weights: Digest,
    tokenizer: Digest,
    block: KvBlock,
}

fn digests(path: &Path, coverage: Coverage) -> (Digest, Digest) {
    let file = ModelFile::open(path).unwrap();
    (file.digest(coverage).unwrap(), file.tokenizer().unwrap().digest(coverage))
}

fn seen(path: &Path) -> Seen {
    let (weights, tokenizer) = digests(path, Coverage::Contents);
    let mut file = ModelFile::open(path).unwrap();
    let tokens = file.tokenizer().unwrap().encode_text(TEXT).unwrap();
    let model =
        CpuModel::load(&mut file, KvDtype::F32, ComputeDtype::F32, Kernel::best(), 2).unwrap();
    let block = model.prefill(&[chunk(&tokens)]).unwrap().remove(0);
    Seen { weights, tokenizer, block }
}

/// The contents of a GGUF file.
struct Parts {
    metadata: BTreeMap<String, Metadata>,
    tensors: Vec<(String, QTensor)>,
}

impl Parts {
    fn of(name: &str) -> Self {
        let mut file = Cursor::new(Vec::new());
        Tiny::new(name, 0).unwrap().write_gguf(&mut file).unwrap();
        file.set_position(0);
        let content = Content::read(&mut file).unwrap();
        let mut names: Vec<_> = content.tensor_infos.keys().cloned().collect();
        names.sort_unstable();
        let read = |name: String| {
            let tensor = content.tensor(&mut file, &name, &Device::Cpu).unwrap();
            (name, tensor)
        };
        let tensors = names.into_iter().map(read).collect();
        Self { metadata: content.metadata.into_iter().collect(), tensors }
    }

    fn write(&self, path: &Path) {
        let metadata: Vec<_> = self.metadata.iter().map(|(key, v)| (key.as_str(), v)).collect();
        let tensors: Vec<_> = self.tensors.iter().map(|(name, t)| (name.as_str(), t)).collect();
        gguf_file::write(&mut File::create(path).unwrap(), &metadata, &tensors).unwrap();
    }

    fn set(&mut self, key: &str, value: Metadata) {
        self.metadata.insert(key.to_owned(), value);
    }

    fn array(&mut self, key: &str) -> &mut Vec<Metadata> {
        match self.metadata.get_mut(key).unwrap() {
            Metadata::Array(values) => values,
            other => panic!("{key}: {other:?}"),
        }
    }

    /// Replaces a tensor by one with changed values and of type `kind`.
    fn change(&mut self, name: &str, kind: GgmlDType, change: impl FnOnce(&mut [f32])) {
        let place = self.tensors.iter().position(|(n, _)| n == name).unwrap();
        let tensor = self.tensors[place].1.dequantize(&Device::Cpu).unwrap();
        let mut values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        change(&mut values);
        let tensor = Tensor::from_vec(values, tensor.shape(), &Device::Cpu).unwrap();
        self.tensors[place].1 = QTensor::quantize(&tensor, kind).unwrap();
    }
}

fn text(text: &str) -> Metadata {
    Metadata::String(text.to_owned())
}

fn flip_a_bit(values: &mut [f32]) {
    let last = values.last_mut().unwrap();
    *last = f32::from_bits(last.to_bits() ^ 1);
}

#[test]
fn of_a_gguf_metadata_order_and_other_tensors_do_not_count() {
    type Change = fn(&mut Parts);
    let changes: [(&str, Change); 8] = [
        ("chat template", |parts| parts.set("tokenizer.chat_template", text("{{ messages }}"))),
        ("name", |parts| parts.set("general.name", text("another"))),
        ("author", |parts| parts.set("general.author", text("somebody"))),
        ("version of the quantisation", |parts| {
            parts.set("general.quantization_version", Metadata::U32(2));
        }),
        ("end of text", |parts| parts.set("tokenizer.ggml.eos_token_id", Metadata::U32(1))),
        ("positions", |parts| parts.set("llama.context_length", Metadata::U32(4096))),
        ("order of tensors", |parts| parts.tensors.reverse()),
        ("a tensor that is not read", |parts| {
            let tensor = Tensor::zeros((2, 32), candle_core::DType::F32, &Device::Cpu).unwrap();
            let tensor = QTensor::quantize(&tensor, GgmlDType::F32).unwrap();
            parts.tensors.insert(1, ("unused.weight".to_owned(), tensor));
        }),
    ];
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    Parts::of("llama3").write(&path);
    let (right, of_files) = (seen(&path), digests(&path, Coverage::Files));
    for (name, change) in changes {
        let mut parts = Parts::of("llama3");
        change(&mut parts);
        parts.write(&path);
        let found = seen(&path);
        assert_eq!((found.weights, found.tokenizer), (right.weights, right.tokenizer), "{name}");
        assert!(same(&found.block, &right.block), "{name}");
        assert_ne!(digests(&path, Coverage::Files).0, of_files.0, "{name}");
    }
    let longer = [fs::read(&path).unwrap(), vec![0; 99]].concat();
    fs::write(&path, longer).unwrap();
    assert_eq!(digests(&path, Coverage::Contents), (right.weights, right.tokenizer));
}

#[test]
fn every_tensor_that_is_read_counts_to_the_bit() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    for name in ["llama3", "qwen2", "qwen3", "gemma2"] {
        let names: Vec<_> = Parts::of(name).tensors.into_iter().map(|(name, _)| name).collect();
        Parts::of(name).write(&path);
        let right = digests(&path, Coverage::Contents);
        for tensor in &names {
            let mut parts = Parts::of(name);
            parts.change(tensor, GgmlDType::F32, flip_a_bit);
            parts.write(&path);
            let found = digests(&path, Coverage::Contents);
            assert_ne!(found.0, right.0, "{name}: {tensor}");
            assert_eq!(found.1, right.1, "{name}: {tensor}");
        }
        // The values are those of f16 in all cases.
        let tensor = "blk.1.ffn_up.weight";
        let halves = [GgmlDType::F32, GgmlDType::F16].map(|kind| {
            let mut parts = Parts::of(name);
            let round = |value: &mut f32| *value = half::f16::from_f32(*value).to_f32();
            parts.change(tensor, kind, |values| values.iter_mut().for_each(round));
            parts.write(&path);
            digests(&path, Coverage::Contents).0
        });
        assert_ne!(halves[0], halves[1], "{name}: the type of {tensor}");
    }
}

#[test]
fn configuration_and_vocabulary_of_a_gguf_count() {
    type Change = fn(&mut Parts);
    let weights: [(&str, Change); 8] = [
        ("llama", |parts| parts.set("llama.rope.freq_base", Metadata::F32(10_001.0))),
        ("llama", |parts| {
            parts.set("llama.attention.layer_norm_rms_epsilon", Metadata::F32(1.1e-5));
        }),
        ("mistral", |parts| parts.set("llama.attention.sliding_window", Metadata::U32(9))),
        ("gemma2", |parts| parts.set("gemma2.attn_logit_softcapping", Metadata::F32(4.5))),
        ("gemma2", |parts| parts.set("gemma2.final_logit_softcapping", Metadata::F32(3.5))),
        ("gemma2", |parts| parts.set("gemma2.attention.scale", Metadata::F32(0.25))),
        ("gemma3", |parts| parts.set("gemma3.rope.freq_base_swa", Metadata::F32(9_999.0))),
        ("gemma3-linear", |parts| parts.set("gemma3.rope.scaling.factor", Metadata::F32(4.0))),
    ];
    let tokenizer: [(&str, Change); 4] = [
        ("llama", |parts| parts.array("tokenizer.ggml.tokens").swap(289, 290)),
        ("llama", |parts| parts.array("tokenizer.ggml.merges").swap(0, 1)),
        ("llama", |parts| parts.array("tokenizer.ggml.token_type")[1] = Metadata::I32(1)),
        ("llama", |parts| parts.set("tokenizer.ggml.pre", text("gpt-2"))),
    ];
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    let check = |place: usize, of_weights: bool, (name, change): (&str, Change)| {
        Parts::of(name).write(&path);
        let right = digests(&path, Coverage::Contents);
        let mut parts = Parts::of(name);
        change(&mut parts);
        parts.write(&path);
        let found = digests(&path, Coverage::Contents);
        assert_eq!(found.0 != right.0, of_weights, "{name}, change {place}");
        assert_eq!(found.1 == right.1, of_weights, "{name}, change {place}");
    };
    for (place, change) in weights.into_iter().enumerate() {
        check(place, true, change);
    }
    for (place, change) in tokenizer.into_iter().enumerate() {
        check(place, false, change);
    }
    // One pre-tokenizer has several names.
    let mut parts = Parts::of("llama");
    let digest = |parts: &Parts| {
        parts.write(&path);
        digests(&path, Coverage::Contents)
    };
    parts.set("tokenizer.ggml.pre", text("gpt-2"));
    let right = digest(&parts);
    parts.set("tokenizer.ggml.pre", text("gpt2"));
    assert_eq!(digest(&parts), right);
}

/// Writes a folder of the tiny llama in one file of weights, or several.
fn folder_of(root: &TempDir, files: usize) -> PathBuf {
    let path = root.path().join("model");
    let _ = fs::remove_dir_all(&path);
    Tiny::new("llama", 0).unwrap().write_folder(&path, files).unwrap();
    path
}

/// Changes a JSON file of the folder.
fn change(folder: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.join(file);
    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// Writes the value as text, with the keys of all objects in the opposite order.
fn turned(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by(|a, b| b.0.cmp(a.0));
            let field = |(key, value): (&String, &Value)| {
                format!("{} : {}", Value::String(key.clone()), turned(value))
            };
            format!("{{\n\t{} }}", fields.into_iter().map(field).collect::<Vec<_>>().join(" ,\n"))
        }
        Value::Array(values) => {
            format!("[ {} ]", values.iter().map(turned).collect::<Vec<_>>().join(" , "))
        }
        value => value.to_string(),
    }
}

/// Writes a folder in another way.
type Spelling = fn(&Path);

const SPELLINGS: [(&str, Spelling); 9] = [
    ("white space and order of config.json", |folder| {
        let path = folder.join("config.json");
        let value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        fs::write(path, turned(&value)).unwrap();
    }),
    ("white space and order of tokenizer.json", |folder| {
        let path = folder.join("tokenizer.json");
        let value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        fs::write(path, turned(&value)).unwrap();
    }),
    ("values that are not read", |folder| {
        change(folder, "config.json", |config| {
            config["transformers_version"] = json!("9.9");
            config["torch_dtype"] = json!("bfloat16");
            config["use_cache"] = json!(false);
            config["eos_token_id"] = json!([1, 2]);
            config["max_position_embeddings"] = json!(4096);
        });
    }),
    ("a default in words", |folder| {
        change(folder, "config.json", |config| config["rope_scaling"] = Value::Null);
    }),
    ("chat template", |folder| {
        fs::write(folder.join("chat_template.jinja"), "{{ messages }}").unwrap();
    }),
    ("truncation, padding and decoder", |folder| {
        change(folder, "tokenizer.json", |json| {
            json["truncation"] = json!({
                "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0,
            });
            json["padding"] = json!({
                "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
                "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>",
            });
            json["decoder"]["trim_offsets"] = json!(false);
            json["version"] = json!("1.0");
        });
    }),
    ("post-processor", |folder| {
        change(folder, "tokenizer.json", |json| {
            json["post_processor"] = json!({
                "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
                "use_regex": false,
            });
        });
    }),
    ("merges in pairs, and switches that are off", |folder| {
        change(folder, "tokenizer.json", |json| {
            let model = json["model"].as_object_mut().unwrap();
            model.retain(|key, _| !["byte_fallback", "ignore_merges"].contains(&key.as_str()));
            for merge in model["merges"].as_array_mut().unwrap() {
                *merge = merge.as_str().unwrap().split(' ').collect();
            }
        });
    }),
    ("places of words", |folder| {
        change(folder, "tokenizer.json", |json| {
            json["pre_tokenizer"]["pretokenizers"][1]["trim_offsets"] = json!(false);
        });
    }),
];

#[test]
fn how_a_folder_is_written_does_not_count() {
    let root = TempDir::new().unwrap();
    let right = seen(&folder_of(&root, 1));
    for (name, change) in SPELLINGS {
        let folder = folder_of(&root, 1);
        change(&folder);
        let found = seen(&folder);
        assert_eq!((found.weights, found.tokenizer), (right.weights, right.tokenizer), "{name}");
        assert!(same(&found.block, &right.block), "{name}");
    }
    for files in [2, 3] {
        let found = seen(&folder_of(&root, files));
        assert_eq!((found.weights, found.tokenizer), (right.weights, right.tokenizer), "{files}");
    }
}

#[test]
fn what_a_folder_computes_with_counts() {
    type Change = fn(&mut Value);
    let changes: [(&str, &str, Change); 11] = [
        ("config.json", "rope_theta", |config| config["rope_theta"] = json!(10_001.0)),
        ("config.json", "rms_norm_eps", |config| config["rms_norm_eps"] = json!(1.1e-5)),
        ("config.json", "rope_scaling", |config| {
            config["rope_scaling"] = json!({"rope_type": "linear", "factor": 2.0});
        }),
        ("config.json", "window", |config| {
            config["model_type"] = json!("mistral");
            config["sliding_window"] = json!(8);
        }),
        ("tokenizer.json", "an entry", |json| {
            let vocabulary = json["model"]["vocab"].as_object_mut().unwrap();
            let id = vocabulary.remove("\u{120}the").unwrap();
            vocabulary.insert("\u{120}tha".to_owned(), id);
            json["model"]["merges"].as_array_mut().unwrap().retain(|m| *m != "\u{120}t he");
        }),
        ("tokenizer.json", "two ids", |json| {
            json["model"]["vocab"]["a"] = json!(69);
            json["model"]["vocab"]["b"] = json!(68);
        }),
        ("tokenizer.json", "a merge", |json| {
            drop(json["model"]["merges"].as_array_mut().unwrap().pop())
        }),
        ("tokenizer.json", "order of merges", |json| {
            json["model"]["merges"].as_array_mut().unwrap().swap(0, 1);
        }),
        ("tokenizer.json", "normalizer", |json| json["normalizer"] = json!({"type": "NFC"})),
        ("tokenizer.json", "pre-tokenizer", |json| {
            json["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = json!(false);
        }),
        ("tokenizer.json", "ignore_merges", |json| json["model"]["ignore_merges"] = json!(true)),
    ];
    let root = TempDir::new().unwrap();
    let right = digests(&folder_of(&root, 1), Coverage::Contents);
    for (file, name, edit) in changes {
        let folder = folder_of(&root, 1);
        change(&folder, file, edit);
        let found = digests(&folder, Coverage::Contents);
        assert_eq!(found.0 != right.0, file == "config.json", "{name}");
        assert_eq!(found.1 != right.1, file == "tokenizer.json", "{name}");
    }
    let folder = folder_of(&root, 1);
    let path = folder.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
    assert_ne!(digests(&folder, Coverage::Contents).0, right.0);
}

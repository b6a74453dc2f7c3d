//! GGUFs in several files: read from any part, and refused where parts are missing or mixed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, Value, write as write_gguf};
use hyperrag_core::{Coverage, KvDtype, LanguageModel};
use hyperrag_model::testing::tiny::Tiny;
use hyperrag_model::{ComputeDtype, CpuModel, Kernel, LoadError, ModelFile};
use tempfile::TempDir;

use crate::blocks::{chunk, same};

fn part_path(folder: &Path, stem: &str, part: usize, parts: usize) -> PathBuf {
    folder.join(format!("{stem}-{:05}-of-{parts:05}.gguf", part + 1))
}

/// Writes the tiny model `name` of `seed` whole and in `parts` files, as llama.cpp splits it: the
/// metadata are in the first. Returns the whole one.
fn written(folder: &Path, name: &str, seed: u64, parts: usize) -> PathBuf {
    let whole = folder.join(format!("{name}{seed}-whole.gguf"));
    Tiny::new(name, seed).unwrap().write_gguf(&mut File::create(&whole).unwrap()).unwrap();
    let mut file = File::open(&whole).unwrap();
    let content = Content::read(&mut file).unwrap();
    let mut names: Vec<_> = content.tensor_infos.keys().cloned().collect();
    names.sort_unstable();
    let count = names.len();
    for (part, names) in names.chunks(count.div_ceil(parts)).enumerate() {
        let mut metadata: Vec<(&str, Value)> = vec![
            ("split.no", Value::U16(part as u16)),
            ("split.count", Value::U16(parts as u16)),
            ("split.tensors.count", Value::I32(count as i32)),
        ];
        if part == 0 {
            metadata.extend(content.metadata.iter().map(|(k, v)| (k.as_str(), v.clone())));
        }
        let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
        let tensor = |name: &String| content.tensor(&mut file, name, &Device::Cpu).unwrap();
        let tensors: Vec<_> = names.iter().map(tensor).collect();
        let tensors: Vec<_> = names.iter().map(String::as_str).zip(&tensors).collect();
        let path = part_path(folder, &format!("{name}{seed}"), part, parts);
        write_gguf(&mut File::create(path).unwrap(), &metadata, &tensors).unwrap();
    }
    whole
}

fn load(file: &mut ModelFile) -> Result<CpuModel, LoadError> {
    CpuModel::load(file, KvDtype::F32, ComputeDtype::F32, Kernel::best(), 2)
}

#[test]
fn any_part_stands_for_the_whole() {
    let folder = TempDir::new().unwrap();
    let whole = written(folder.path(), "llama", 0, 3);
    let mut file = ModelFile::open(&whole).unwrap();
    let (tokens, contents) = ([5, 9, 70, 71], file.digest(Coverage::Contents).unwrap());
    let block = load(&mut file).unwrap().prefill(&[chunk(&tokens)]).unwrap().remove(0);
    let mut digests = Vec::new();
    for part in 0..3 {
        let path = part_path(folder.path(), "llama0", part, 3);
        let mut file = ModelFile::open(&path).unwrap();
        assert_eq!(file.path(), part_path(folder.path(), "llama0", 0, 3));
        assert_eq!(file.digest(Coverage::Contents).unwrap(), contents, "part {part}");
        digests.push(file.digest(Coverage::Files).unwrap());
        assert!(file.tokenizer().unwrap().has_special("<|im_end|>"));
        let own = load(&mut file).unwrap().prefill(&[chunk(&tokens)]).unwrap().remove(0);
        assert!(same(&own, &block), "part {part}");
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "the same files, whichever part is named");
    // A folder with these parts alone stands for them.
    fs::remove_file(whole).unwrap();
    assert_eq!(
        ModelFile::open(folder.path()).unwrap().digest(Coverage::Files).unwrap(),
        digests[0]
    );
}

#[test]
fn digests_cover_all_parts() {
    let (folder, memory) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    written(folder.path(), "llama", 0, 3);
    let first = part_path(folder.path(), "llama0", 0, 3);
    let digests = |remembered: bool| {
        let file = ModelFile::open(&first).unwrap();
        let file = if remembered { file.with_digests_in(memory.path()) } else { file };
        [Coverage::Files, Coverage::Contents].map(|coverage| file.digest(coverage).unwrap())
    };
    let before = digests(true);
    assert_eq!(before, digests(false));
    for part in 0..3 {
        let path = part_path(folder.path(), "llama0", part, 3);
        let own = fs::read(&path).unwrap();
        let mut changed = own.clone();
        *changed.last_mut().unwrap() ^= 1;
        fs::write(&path, &changed).unwrap();
        let after = digests(true);
        assert!(after[0] != before[0] && after[1] != before[1], "part {part}");
        fs::write(&path, own).unwrap();
        assert_eq!(digests(true), before, "part {part}");
    }
}

#[test]
fn parts_that_are_missing_or_mixed_are_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    written(path, "llama", 0, 3);
    written(path, "llama", 1, 3);
    written(path, "qwen2", 0, 3);
    let part = |stem: &str, part: usize| part_path(path, stem, part, 3);
    let refused = |words: &[&str]| {
        let error = ModelFile::open(&part("llama0", 0)).err().expect("refused").to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    let second = fs::read(part("llama0", 1)).unwrap();
    fs::remove_file(part("llama0", 1)).unwrap();
    refused(&["llama0-00002-of-00003.gguf", "1 of the 3 parts", "missing"]);
    // The third in the second's place, and parts of another model with other tensors.
    fs::copy(part("llama0", 2), part("llama0", 1)).unwrap();
    refused(&["llama0-00002-of-00003.gguf", "not part 2 of 3", "split.no 2"]);
    fs::copy(part("qwen20", 1), part("llama0", 1)).unwrap();
    refused(&["not part 2 of 3", "split.tensors.count"]);
    fs::write(part("llama0", 1), &second[..second.len() / 2]).unwrap();
    let opened = ModelFile::open(&part("llama0", 0)).and_then(|mut file| load(&mut file));
    assert!(opened.err().unwrap().to_string().contains("00002-of-00003"));
    fs::write(part("llama0", 1), second).unwrap();
    assert!(ModelFile::open(&part("llama0", 0)).is_ok());
    // By its name it is no part.
    fs::rename(part("llama0", 0), path.join("first.gguf")).unwrap();
    let error = ModelFile::open(&path.join("first.gguf")).err().unwrap().to_string();
    assert!(error.contains("NAME-00001-of-00003.gguf"), "{error}");
}

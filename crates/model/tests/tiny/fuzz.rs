//! The fuzzers' entry points on changed bytes of real files, for the toolchain at hand.

use std::fs;
use std::io::Cursor;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use hyperrag_model::fuzz;
use hyperrag_model::tiny::Tiny;
use tempfile::TempDir;

const ROUNDS: u32 = 1000;

/// Bytes before the tensors of the tiny model in a GGUF file.
const HEADER_BYTES: usize = 6_300;

/// Whether bytes are taken.
type Target = fn(&[u8]) -> bool;

const CHAT: &str = "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}\
    {{ '[INST] ' + message.content.strip() + ' [/INST]' }}{% else %}{{ message.content }}\
    {% endif %}{% endfor %}{% if add_generation_prompt %}A:{% endif %}";

/// Numbers that depend on the seed alone.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) as usize % end.max(1)
    }
}

/// `bytes` with one to four changes: another byte, a number or a word of JSON, a cut, a piece again.
fn changed(bytes: &[u8], seeded: &mut Seeded) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    for _ in 0..=seeded.below(4) {
        let at = seeded.below(changed.len());
        let end = (at + 1 + seeded.below(40)).min(changed.len());
        match seeded.below(5) {
            0 if at < end => changed[at] = seeded.below(256) as u8,
            1 => drop(changed.splice(at..end, *b"-1e999")),
            2 => {
                let words = ["null", "[]", "{}", "\"\"", "\u{e9}", "18446744073709551615", "{{"];
                drop(changed.splice(at..at, words[seeded.below(words.len())].bytes()));
            }
            3 if seeded.below(8) == 0 => changed.truncate(at),
            _ => {
                let (piece, to) = (changed[at..end].to_vec(), seeded.below(changed.len()));
                drop(changed.splice(to..to, piece));
            }
        }
    }
    changed
}

fn header_of(file: &Path) -> Vec<u8> {
    let bytes = fs::read(file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[8..8 + length].to_vec()
}

#[test]
fn changed_bytes_are_refused_or_read_without_a_panic() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tiny");
    Tiny::new("gemma3", 0).unwrap().write_folder(&path, 1).unwrap();
    let read = |name: &str| fs::read(path.join(name)).unwrap();
    let mut whole = Cursor::new(Vec::new());
    Tiny::new("llama", 0).unwrap().write_gguf(&mut whole).unwrap();
    let mut header = whole.into_inner();
    header.truncate(HEADER_BYTES);
    let targets: [(&str, Target, Vec<u8>); 5] = [
        ("gguf", fuzz::gguf, header),
        ("safetensors", fuzz::safetensors, header_of(&path.join("model.safetensors"))),
        ("config", fuzz::config, read("config.json")),
        ("tokenizer", fuzz::tokenizer, read("tokenizer.json")),
        ("chat", fuzz::chat, CHAT.into()),
    ];
    // Where a fuzzer wants its seeds.
    if let Some(folder) = std::env::var_os("FUZZ_SEEDS").map(PathBuf::from) {
        for (name, _, bytes) in &targets {
            fs::create_dir_all(folder.join(name)).unwrap();
            fs::write(folder.join(name).join("tiny"), bytes).unwrap();
        }
    }
    for (number, (name, target, bytes)) in targets.into_iter().enumerate() {
        assert!(target(&bytes), "{name}: the seed is taken");
        let mut seeded = Seeded(number as u64);
        let mut taken = 0;
        for round in 0..ROUNDS {
            let hostile = changed(&bytes, &mut seeded);
            let ended = catch_unwind(|| target(&hostile));
            let hostile = String::from_utf8_lossy(&hostile);
            assert!(ended.is_ok(), "{name}, round {round}: {hostile}");
            taken += u32::from(ended.unwrap_or(false));
        }
        assert!((1..ROUNDS).contains(&taken), "{name}: {taken} of {ROUNDS} taken");
    }
}

//! The fuzzers' entry points on changed bytes of real files, for the toolchain at hand.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use hyperrag_model::testing::fuzz;
use hyperrag_model::testing::tiny::Tiny;
use tempfile::TempDir;

use crate::changed::changes_are_no_panic;

const ROUNDS: u64 = 5000;

/// Size of the part before the tensors of the tiny model in a GGUF file, in bytes.
const HEADER_BYTES: usize = 6_300;

/// Returns whether the bytes are accepted.
type Target = fn(&[u8]) -> bool;

const CHAT: &str = "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}\
    {{ '[INST] ' + message.content.strip() + ' [/INST]' }}{% else %}{{ message.content }}\
    {% endif %}{% endfor %}{% if add_generation_prompt %}A:{% endif %}";

/// Uses what Python has and the engine of templates does not.
const PYTHON_CHAT: &str = "{%- for m in messages -%}{% generation %}{{ '%s: %s' % (m.role, \
    m.content) }}{% endgeneration %}{%- endfor -%}{{ 'a.b'.rsplit('.', 1)[1].zfill(3) }}\
    {{ {'a': [1, true]} | tojson(indent=2) }}{{ strftime_now('%d %b %Y') }}{{ 7 % 2 }}";

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
    let targets: [(&str, Target, Vec<u8>); 6] = [
        ("gguf", fuzz::gguf, header),
        ("safetensors", fuzz::safetensors, header_of(&path.join("model.safetensors"))),
        ("config", fuzz::config, read("config.json")),
        ("tokenizer", fuzz::tokenizer, read("tokenizer.json")),
        ("chat", fuzz::chat, CHAT.into()),
        ("chat", fuzz::chat, PYTHON_CHAT.into()),
    ];
    for (name, target, bytes) in targets {
        let taken = changes_are_no_panic(name, &bytes, ROUNDS, target);
        assert!((1..ROUNDS).contains(&taken), "{name}: {taken} of {ROUNDS} taken");
    }
}

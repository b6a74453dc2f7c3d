//! A `tokenizer.json` read here, beside the tokenizers library itself.

use std::fs;
use std::path::{Path, PathBuf};

use hyperrag_core::{Coverage, Tokenize};
use hyperrag_model::testing::tiny::Tiny;
use hyperrag_model::{ModelFile, Tokenizer};
use serde_json::{Value, json};
use tempfile::TempDir;

const TEXTS: [&str; 6] = [
    "the heat in winter",
    "A beehive, two beehives and a <think>\n\t hive ",
    "Käse 12 €\n\t«…» hive-hive\u{1F41D}",
    "<|im_end|> of <|turn|> <think>",
    "hive hive  hive",
    "",
];

/// Writes the tiny folder with a changed `tokenizer.json`.
fn folder(change: impl Fn(&mut Value)) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model");
    Tiny::new("llama", 0).unwrap().write_folder(&path, 1).unwrap();
    let file = path.join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut tokenizer);
    fs::write(&file, tokenizer.to_string()).unwrap();
    (folder, path)
}

fn read(path: &Path) -> Tokenizer {
    ModelFile::open(path).unwrap().tokenizer().unwrap()
}

fn library(path: &Path) -> tokenizers::Tokenizer {
    let mut library = tokenizers::Tokenizer::from_file(path.join("tokenizer.json")).unwrap();
    // Special tokens in a text stay text.
    library.set_encode_special_tokens(true);
    library
}

#[test]
fn dropout_is_for_training() {
    let (_folder, plain) = folder(|_| ());
    let (_folder, random) = folder(|tokenizer| tokenizer["model"]["dropout"] = json!(0.5));
    let expected = read(&plain);
    for _ in 0..3 {
        let tokenizer = read(&random);
        for text in TEXTS {
            let ids = tokenizer.encode_text(text).unwrap();
            assert_eq!(ids, expected.encode_text(text).unwrap(), "{text:?}");
        }
        let contents = |tokenizer: &Tokenizer| tokenizer.digest(Coverage::Contents);
        assert_eq!(contents(&tokenizer), contents(&expected));
        // Stores of versions that drew them do not match.
        assert_ne!(tokenizer.digest(Coverage::Files), expected.digest(Coverage::Files));
    }
    let (_folder, zero) = folder(|tokenizer| tokenizer["model"]["dropout"] = json!(0.0));
    assert_eq!(
        read(&zero).encode_text("the heat").unwrap(),
        expected.encode_text("the heat").unwrap()
    );
}

#[test]
fn added_words_have_the_ids_of_the_library() {
    let added = |flags: &[&str], special: bool| {
        folder(|tokenizer| {
            for content in ["hive", "<think>"] {
                let mut token = json!({
                    "id": 0, "content": content, "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": special,
                });
                flags.iter().for_each(|flag| token[*flag] = json!(true));
                let size = tokenizer["model"]["vocab"].as_object().unwrap().len();
                let all = tokenizer["added_tokens"].as_array_mut().unwrap();
                token["id"] = json!(size + all.len() - 3);
                all.push(token);
            }
        })
    };
    for flags in [&[][..], &["single_word"], &["lstrip"], &["rstrip"], &["normalized"]] {
        let (_folder, path) = added(flags, false);
        let (tokenizer, library) = (read(&path), library(&path));
        let id = library.token_to_id("hive").unwrap();
        for text in TEXTS {
            let expected = library.encode(text, false).unwrap();
            let ids = tokenizer.encode_text(text).unwrap();
            assert_eq!(ids, expected.get_ids(), "{flags:?} {text:?}");
            assert_eq!(ids.contains(&id), expected.get_tokens().contains(&"hive".to_owned()));
        }
        assert!(tokenizer.encode_text("a hive").unwrap().contains(&id), "{flags:?}");
    }
    let (_folder, path) = added(&[], true);
    let id = library(&path).token_to_id("hive").unwrap();
    assert!(!read(&path).encode_text("a hive").unwrap().contains(&id));
}

#[test]
fn a_tokenizer_that_cannot_be_made_is_an_error() {
    for (pattern, words) in [
        ("(a{100}){100}".to_owned(), "repeats a part 10000 times"),
        ("a".repeat(5000), "of 5000 bytes"),
        ("(a".to_owned(), "tokenizer.json"),
    ] {
        let (_folder, path) = folder(|tokenizer| {
            tokenizer["pre_tokenizer"] = json!({
                "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
                "invert": false,
            });
        });
        let opened = ModelFile::open(&path).unwrap();
        let error = opened.tokenizer().err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    }
}

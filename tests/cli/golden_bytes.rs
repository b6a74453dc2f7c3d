//! Stores of `testdata/passages.jsonl` and the scores over them: the same bytes and bits in every version of
//! the program, for each element type.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::{Scratch, ranked, testdata};

const KV_DTYPES: [&str; 5] = ["f32", "bf16", "int8", "int5", "int4"];

/// Returns the SHA-256 of `parts`, each preceded by its length, in hexadecimal digits.
fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().fold(String::new(), |mut digits, byte| {
        write!(digits, "{byte:02x}").unwrap();
        digits
    })
}

/// Builds the store of a type, and returns the digests of its shards, its chunk files and of all scores.
fn digests(kv_dtype: &str) -> BTreeMap<String, String> {
    let scratch = Scratch::new();
    let build = "--profile plain --unit-rows 16 --chunk-tokens 160 --device cpu --dtype f32";
    let passages = testdata("passages.jsonl");
    scratch.ok(&format!("build {passages} --store store TINY {build} --kv-dtype {kv_dtype}"));
    let files = scratch.contents("store");
    let mut digests = BTreeMap::new();
    for folder in ["shards", "chunks"] {
        let files = files.iter().filter(|(path, _)| path.starts_with(folder));
        let parts =
            files.flat_map(|(path, bytes)| [path.to_str().unwrap().as_bytes(), bytes.as_slice()]);
        digests.insert(folder.to_owned(), digest(parts));
    }
    let queries = testdata("queries.jsonl");
    // All documents that have a word of the query, and no score of BM25: the model's scores alone.
    let query =
        "query --store store TINY --device cpu --dtype f32 --json --depth 160 -k 160 --fuse none";
    let mut scores = Vec::new();
    for (query, hits) in ranked(&scratch.ok(&format!("{query} --queries {queries}"))) {
        scores.push(query.into_bytes());
        for (id, score) in hits {
            scores.extend([id.into_bytes(), score.to_le_bytes().to_vec()]);
        }
    }
    assert!(scores.len() > 1000);
    digests.insert("scores".to_owned(), digest(scores.iter().map(Vec::as_slice)));
    digests
}

#[test]
fn bytes_and_scores_of_each_element_type_stay_as_they_are() {
    let path = testdata("golden/store-bytes.json");
    let found: BTreeMap<&str, _> = KV_DTYPES.map(|name| (name, digests(name))).into();
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        fs::write(&path, serde_json::to_string_pretty(&found).unwrap() + "\n").unwrap();
    }
    let golden: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(serde_json::to_value(&found).unwrap(), golden);
}

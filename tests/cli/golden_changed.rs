//! A second golden store of every version of the format, with everything that only a changed store has:
//! it was built, extended, partly deleted, and an append to it was interrupted. Its corrupt twins have
//! matching checksums, or faults that only such a store can have.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use hyperrag_core::{BlockKey, BlockRead, Digest, Slot};
use hyperrag_store::{FORMAT_VERSION, Store};
use serde_json::{Value, json};

use crate::reader::decoded;
use crate::support::{DAMAGED, FAILED, Outcome, Scratch, all_files, testdata};

const FIRST: &str = r#"{"_id": "bees", "title": "Bees", "text": "A bee dances to show the others the way to the flowers."}
{"_id": "bär", "title": "", "text": "Bears sleep in winter."}
{"_id": "bread", "title": "Bread", "text": "Dough rises by yeast."}
{"_id": "nothing", "title": "", "text": " "}
"#;
/// A new version, an existing document, a new one.
const ADDED: &str = r#"{"_id": "bread", "title": "Bread", "text": "Dough rises by warmth and yeast."}
{"_id": "bees", "title": "Bees", "text": "A bee dances to show the others the way to the flowers."}
{"_id": "tea", "title": "", "text": "Tea is leaves in water."}
"#;
/// The last line ends in the middle.
const MORE: &str = r#"{"_id": "snow", "title": "Snow", "text": "Snow is ice."}
{"_id": "tea", "title": "Tea", "text": "Tea is dry leaves in hot water."}
{"_id":"#;
const QUERY: &str = "query --store store TINY --json --queries q.tsv --profile v1.toml";

/// Writes the profile and the queries that every command needs.
fn prepared() -> Scratch {
    let scratch = Scratch::new();
    fs::copy(testdata("stores/v1-changed.toml"), scratch.path("v1.toml")).unwrap();
    scratch.write("q.tsv", "1\twhat do bees do\n2\tbread, tea and water\n");
    scratch
}

/// Copies the golden store of this version, and makes the index without which it is committed.
fn golden(version: u32) -> Scratch {
    let scratch = prepared();
    let from = PathBuf::from(testdata(&format!("stores/v{version}-changed")));
    for path in all_files(&from).into_iter().filter(|path| path.is_file()) {
        let to = scratch.path("store").join(path.strip_prefix(&from).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(path, to).unwrap();
    }
    let mended = scratch.ok("repair --store store");
    assert!(mended.stdout.contains("made anew from the chunk files"), "{}", mended.stdout);
    scratch
}

/// Makes the store in the same way as the golden one.
fn made_today() -> Scratch {
    let scratch = prepared();
    scratch.write("first.jsonl", FIRST);
    scratch.write("added.jsonl", ADDED);
    scratch.write("more.jsonl", MORE);
    scratch.write("gone", "bär\n");
    let build = "--store store TINY --device cpu --profile v1.toml --chunk-tokens 32 --unit-rows 2";
    scratch.ok(&format!("build first.jsonl {build} --dtype f32"));
    scratch.ok(&format!("build added.jsonl --append {build}"));
    scratch.ok("delete --store store --ids gone");
    scratch.ends(FAILED, &format!("build more.jsonl --append {build}"));
    scratch
}

/// Returns digests of everything that is read from a store, and the scores over it.
fn readings(scratch: &Scratch) -> Value {
    let store = Store::open_sealed(&scratch.path("store")).unwrap();
    let of = |values: &[f32]| {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Digest::of(&bytes).to_string()
    };
    let mut blocks = Vec::new();
    for record in &store.manifest().shards {
        for (slot, chunk) in (0..).zip(store.chunks(record.shard).unwrap().chunks) {
            let key = BlockKey { shard: record.shard, slot: Slot(slot), chunk: chunk.id.clone() };
            let block = store.get_many(&[key]).remove(0).unwrap().unwrap();
            blocks.push(json!({
                "shard": record.shard.0, "slot": slot, "document": chunk.id.document.as_str(),
                "ordinal": chunk.id.ordinal, "tokens": chunk.tokens,
                "kv": of(&decoded(&block)), "hidden": of(block.hidden()),
            }));
        }
    }
    let answers = scratch.ok(QUERY).json().into_iter().map(|answer| {
        let hits = answer["hits"].as_array().unwrap().iter();
        hits.map(|hit| (hit["id"].as_str().unwrap().to_owned(), hit["model_score"].clone()))
            .collect()
    });
    let scores: Vec<BTreeMap<String, Value>> = answers.collect();
    json!({"blocks": blocks, "scores": scores})
}

/// Returns the contents of shards, journal and manifest, except what depends on the version of the
/// Parquet library.
fn said(scratch: &Scratch) -> BTreeMap<PathBuf, Value> {
    let forget = |record: &mut Value| drop(record.as_object_mut().unwrap().remove("chunk_file"));
    let said = |(name, bytes): (PathBuf, Vec<u8>)| {
        let value = if name.starts_with("shards") {
            Digest::of(&bytes).to_string().into()
        } else if name.starts_with("manifest.json") {
            let mut manifest: Value = serde_json::from_slice(&bytes).unwrap();
            let shards = manifest["manifest"]["shards"].as_array_mut().unwrap();
            shards.iter_mut().for_each(forget);
            manifest["manifest"].clone()
        } else if name.to_string_lossy().starts_with("journal") {
            let lines = String::from_utf8(bytes).unwrap();
            let line = |line: &str| -> Value {
                let mut sealed: Value = serde_json::from_str(&line[9..]).unwrap();
                forget(&mut sealed["record"]);
                sealed
            };
            lines.lines().map(line).collect()
        } else {
            return None;
        };
        Some((name, value))
    };
    scratch.files("store").into_iter().filter_map(said).collect()
}

#[test]
fn a_changed_store_reads_as_ever_and_is_made_to_the_same_bytes() {
    let made = made_today();
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        let to = PathBuf::from(testdata(&format!("stores/v{FORMAT_VERSION}-changed")));
        for (name, bytes) in made.files("store") {
            if !name.starts_with("index") {
                fs::create_dir_all(to.join(&name).parent().unwrap()).unwrap();
                fs::write(to.join(name), bytes).unwrap();
            }
        }
    }
    // All versions hold the same.
    let expected = fs::read(testdata("stores/v1-changed.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    assert_eq!(said(&golden(FORMAT_VERSION)), said(&made));
    for version in 1..=FORMAT_VERSION {
        let golden = golden(version);
        assert_eq!(readings(&golden), expected, "version {version}");
        assert_eq!(golden.ok(QUERY).stdout.matches("\"score\"").count(), 3);
        golden.ok("verify --deep --store store");
        golden.ok("verify --recompute --store store TINY --device cpu --profile v1.toml");
        // The interrupted append continues.
        golden.write("more.jsonl", MORE.rsplit_once('\n').unwrap().0);
        golden.ok("build more.jsonl --append --store store TINY --device cpu --profile v1.toml");
        golden.ok("compact --store store");
        golden.ok("verify --deep --store store");
    }
}

/// A line of `v1-changed-corrupt.tsv`.
struct Twin<'a> {
    name: &'a str,
    file: &'a str,
    change: &'a str,
    verify: &'a str,
    query: &'a str,
}

impl Twin<'_> {
    fn apply(&self, bytes: &mut Vec<u8>) {
        for change in self.change.split(' ') {
            if let Some(length) = change.strip_prefix("cut") {
                bytes.truncate(length.parse().unwrap());
            } else if change == "longer" {
                bytes.push(0);
            } else {
                let (at, hexadecimal) = change.split_once('=').unwrap();
                let digits = hexadecimal.as_bytes().chunks(2);
                let new: Vec<u8> = digits
                    .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
                    .collect();
                let at = at.parse().unwrap();
                let old = &mut bytes[at..at + new.len()];
                assert_ne!(old, new, "{}: it changes nothing", self.name);
                old.copy_from_slice(&new);
            }
        }
    }

    /// Checks `outcome` against `expected`: an exit code and words.
    #[track_caller]
    fn expect(&self, expected: &str, outcome: &Outcome) {
        let (code, words) = expected.split_once(' ').unwrap_or((expected, ""));
        let Outcome { stdout, stderr, .. } = outcome;
        let said = format!("{}\n{stdout}\n{stderr}", self.name);
        assert_eq!(outcome.code.to_string(), code, "{said}");
        assert!(said.contains(words), "{words:?} is not in: {said}");
        assert!(code != "4" || said.contains(self.file), "{said}");
    }
}

#[test]
fn its_corrupt_twins_are_refused_by_verify_and_query() {
    let scratch = golden(1);
    let table = fs::read_to_string(testdata("stores/v1-changed-corrupt.tsv")).unwrap();
    let mut twins = 0;
    for line in table.lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [name, file, change, verify, query] = columns[..] else { panic!("{line}") };
        let twin = Twin { name, file, change, verify, query };
        let path = format!("store/{file}");
        let whole = fs::read(scratch.path(&path)).unwrap();
        match change {
            "missing" => fs::remove_file(scratch.path(&path)).unwrap(),
            _ => scratch.damage(&path, |bytes| twin.apply(bytes)),
        }
        twin.expect(twin.verify, &scratch.run("verify --store store --json"));
        twin.expect(twin.query, &scratch.run(&format!("{QUERY} --on-damage fail")));
        scratch.write(&path, whole);
        twins += 1;
    }
    assert!(twins > 15);
    scratch.ok("verify --store store");
}

#[test]
fn an_append_whose_journal_is_damaged_begins_anew() {
    let scratch = golden(FORMAT_VERSION);
    scratch.write("more.jsonl", MORE.rsplit_once('\n').unwrap().0);
    scratch.damage("store/journal-000004.log", |bytes| bytes[20] ^= 1);
    let settings = "--store store TINY --device cpu --profile v1.toml";
    let append = format!("build more.jsonl {settings} --append");
    scratch.ends(DAMAGED, &append).says(&["journal-000004.log", "`hyperrag repair`"]);
    let refused = scratch.ends(DAMAGED, &format!("repair {settings}"));
    assert!(refused.stdout.contains("--append --restart"), "{}", refused.stdout);
    scratch.ok(&format!("{append} --restart"));
    scratch.ok("verify --deep --store store");
}

//! Stores of every version of the format as they were written, and damaged ones.

use std::fs;
use std::path::{Path, PathBuf};

use hyperrag_core::{BlockKey, BlockRead, ChunkId, Slot};
use hyperrag_store::{FORMAT_VERSION, Store};
use serde_json::Value;

use crate::support::{Scratch, all_files, contents, copy_folder, ranked, testdata};

const QUERY: &str =
    "query --store store TINY --device cpu --json --queries queries.jsonl --depth 9 -k 9";

/// Copies the golden store of this version, and writes a query.
pub(crate) fn golden(version: u32) -> Scratch {
    let scratch = Scratch::new();
    copy_folder(Path::new(&testdata(&format!("stores/v{version}"))), &scratch.path("store"));
    scratch.write("queries.jsonl", "{\"_id\": \"q\", \"text\": \"a river of bees\"}\n");
    scratch
}

const SETTINGS: &str = "--profile plain --chunk-tokens 160 --unit-rows 2 --device cpu";

/// Scores that were recorded with the store.
const SCORES: [(&str, f32); 2] = [("river", -6.919_288_6), ("hive", -6.921_23)];

#[test]
fn each_version_reads_as_it_was_written() {
    for version in 1..=FORMAT_VERSION {
        let scratch = golden(version);
        scratch.ok("verify --deep --recompute --store store TINY --device cpu");
        let scores = SCORES.map(|(id, score)| (id.to_owned(), score.to_bits()));
        let expected = vec![("q".to_owned(), scores.to_vec())];
        assert_eq!(ranked(&scratch.ok(QUERY)), expected, "version {version}");
        assert_eq!(ranked(&scratch.ok(&format!("{QUERY} --recompute"))), expected);
        let corpus = fs::read(testdata("stores/v1.jsonl")).unwrap();
        scratch.write("corpus.jsonl", corpus);
        let build = format!("build corpus.jsonl --store store TINY {SETTINGS}");
        scratch.ok(&build).says(&["up to date"]);
        // Additions, deletions and compactions keep the store's own version.
        scratch.write("more.jsonl", "{\"_id\": \"new\", \"text\": \"a river of new bees\"}\n");
        scratch.ok(&format!("{} --append", build.replace("corpus", "more")));
        scratch.write("ids", "hive\n");
        scratch.ok("delete --store store --ids ids");
        scratch.ok("compact --store store");
        scratch.ok("verify --deep --recompute --store store TINY --device cpu");
        let shards = all_files(&scratch.path("store/shards"));
        assert!(!shards.is_empty());
        let versions = shards.iter().map(|shard| fs::read(shard).unwrap()[8]);
        assert!(versions.into_iter().all(|found| u32::from(found) == version));
        let ids: Vec<String> =
            ranked(&scratch.ok(QUERY)).remove(0).1.into_iter().map(|(id, _)| id).collect();
        assert!(ids.contains(&"new".to_owned()) && !ids.contains(&"hive".to_owned()), "{ids:?}");
    }
}

#[test]
fn an_older_index_and_a_new_one_give_the_same_hits() {
    for version in 1..=FORMAT_VERSION {
        let scratch = golden(version);
        let list = || fs::read_to_string(scratch.path("store/index/meta.json")).unwrap();
        let hits = || -> Value {
            let result: Value = serde_json::from_str(&scratch.ok(QUERY).stdout).unwrap();
            result["hits"].clone()
        };
        assert!(!list().contains(" layout "));
        let older = hits();
        fs::remove_dir_all(scratch.path("store/index")).unwrap();
        scratch.ok("repair --store store TINY --device cpu");
        assert!(list().contains(" layout 2 "));
        assert_eq!(hits(), older);
        assert_eq!(older.as_array().unwrap().len(), SCORES.len());
    }
}

#[test]
fn the_present_version_is_still_written_so() {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", fs::read(testdata("stores/v1.jsonl")).unwrap());
    scratch.ok(&format!("build corpus.jsonl --store again TINY {SETTINGS} --dtype f32"));
    let whole = PathBuf::from(testdata(&format!("stores/v{FORMAT_VERSION}")));
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        for (name, bytes) in scratch.files("again") {
            fs::create_dir_all(whole.join(&name).parent().unwrap()).unwrap();
            fs::write(whole.join(name), bytes).unwrap();
        }
    }
    assert_eq!(scratch.contents("again"), contents(&whole));
    let manifest = fs::read_to_string(whole.join("manifest.json")).unwrap();
    assert_eq!(fs::read_to_string(scratch.path("again/manifest.json")).unwrap(), manifest);
}

/// Returns K, V and hidden state of every block.
pub(crate) fn payloads(root: &Path) -> Vec<(ChunkId, Vec<u8>, Vec<f32>)> {
    let store = Store::open_sealed(root).unwrap();
    let mut found = Vec::new();
    for record in &store.manifest().shards {
        for (slot, chunk) in (0..).map(Slot).zip(store.chunks(record.shard).unwrap().chunks) {
            let key = BlockKey { shard: record.shard, slot, chunk: chunk.id.clone() };
            let block = store.get_many(&[key]).remove(0).unwrap().unwrap();
            found.push((chunk.id, block.kv().to_vec(), block.hidden().to_vec()));
        }
    }
    found
}

#[test]
fn all_versions_hold_the_same_blocks() {
    let of = |version| payloads(Path::new(&testdata(&format!("stores/v{version}"))));
    assert_eq!(of(1).len(), 3);
    for version in 2..=FORMAT_VERSION {
        assert_eq!(of(version), of(1));
    }
}

/// Applies `change`, as the table spells it, to the file `name`; `*` stands for any name.
fn damage(scratch: &Scratch, name: &str, change: &str) {
    let path = scratch.path("store").join(name);
    let path = match name.split_once('*') {
        None => path,
        Some((_, end)) => {
            let mut files = all_files(path.parent().unwrap()).into_iter();
            files.find(|file| file.to_string_lossy().ends_with(end)).unwrap()
        }
    };
    let mut bytes = fs::read(&path).unwrap();
    let (what, value) = change.split_once(' ').unwrap_or((change, ""));
    match what {
        "flip" => bytes[value.parse::<usize>().unwrap()] ^= 1,
        "cut" => bytes.truncate(value.parse().unwrap()),
        "add" => bytes.resize(bytes.len() + value.parse::<usize>().unwrap(), 0),
        "copy" => bytes = fs::read(scratch.path("store").join(value)).unwrap(),
        "remove" => return fs::remove_file(path).unwrap(),
        other => panic!("{other}"),
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn its_corrupt_twins_are_refused() {
    let table = fs::read_to_string(testdata("stores/v1-corrupt.tsv")).unwrap();
    let rows: Vec<Vec<&str>> = table.lines().skip(1).map(|row| row.split('\t').collect()).collect();
    assert!(rows.len() > 20);
    for row in rows {
        let [name, file, change, code, words] = row[..] else { panic!("{row:?}") };
        let scratch = golden(1);
        let right = ranked(&scratch.ok(QUERY));
        damage(&scratch, file, change);
        let verified = scratch.run("verify --store store");
        assert_eq!(verified.code.to_string(), code, "{name}");
        let said = verified.stdout.replace('\n', " ") + &verified.stderr;
        assert!(said.contains(words), "{name}: {words:?} is not in: {said}");
        // A query reports a fault, or does not need the damaged part.
        let asked = scratch.run(QUERY);
        if asked.stdout.lines().count() > 0 {
            assert_eq!(ranked(&asked), right, "{name}");
        } else {
            assert_eq!(asked.code.to_string(), code, "{name}: {}", asked.stderr);
        }
    }
}

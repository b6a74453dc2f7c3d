//! A store that an earlier version wrote, and what becomes of it when it is damaged.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Scratch, all_files, contents, ranked, testdata};

const QUERY: &str =
    "query --store store TINY --device cpu --json --queries queries.jsonl --depth 9 -k 9";

/// A copy of the golden store, and a query.
fn golden() -> Scratch {
    let scratch = Scratch::new();
    let from = PathBuf::from(testdata("stores/v1"));
    for path in all_files(&from) {
        let to = scratch.path("store").join(path.strip_prefix(&from).unwrap());
        if path.is_file() {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(&path, to).unwrap();
        }
    }
    scratch.write("queries.jsonl", "{\"_id\": \"q\", \"text\": \"a river of bees\"}\n");
    scratch
}

/// The bits of scores that were written down with the store.
const SCORES: [(&str, f32); 2] = [("river", -6.919_288_6), ("hive", -6.921_23)];

#[test]
fn it_reads_as_it_was_written_and_is_still_written_so() {
    let scratch = golden();
    scratch.ok("verify --deep --recompute --store store TINY --device cpu");
    let scores = SCORES.map(|(id, score)| (id.to_owned(), score.to_bits()));
    let expected = vec![("q".to_owned(), scores.to_vec())];
    assert_eq!(ranked(&scratch.ok(QUERY)), expected);
    assert_eq!(ranked(&scratch.ok(&format!("{QUERY} --recompute"))), expected);
    scratch.write("corpus.jsonl", fs::read(testdata("stores/v1.jsonl")).unwrap());
    let settings = "--profile plain --chunk-tokens 160 --unit-rows 2 --device cpu";
    scratch.ok(&format!("build corpus.jsonl --store again TINY {settings} --compute f32"));
    let whole = Path::new(&testdata("stores/v1")).to_owned();
    assert_eq!(scratch.contents("again"), contents(&whole));
    let manifest = fs::read_to_string(whole.join("manifest.json")).unwrap();
    assert_eq!(fs::read_to_string(scratch.path("again/manifest.json")).unwrap(), manifest);
    // It goes on in f32, whatever a new store would be computed in.
    scratch.ok(&format!("build corpus.jsonl --store store TINY {settings}")).says(&["up to date"]);
}

/// Applies `change`, as the table spells it, to the file of this name; `*` is any name.
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
        let scratch = golden();
        let right = ranked(&scratch.ok(QUERY));
        damage(&scratch, file, change);
        let verified = scratch.run("verify --store store");
        assert_eq!(verified.code.to_string(), code, "{name}");
        let said = verified.stdout.replace('\n', " ") + &verified.stderr;
        assert!(said.contains(words), "{name}: {words:?} is not in: {said}");
        // A query says that something is wrong, or needs nothing of what is.
        let asked = scratch.run(QUERY);
        if asked.stdout.lines().count() > 0 {
            assert_eq!(ranked(&asked), right, "{name}");
        } else {
            assert_eq!(asked.code.to_string(), code, "{name}: {}", asked.stderr);
        }
    }
}

//! The language of a store, whose rules decide how BM25 cuts words.

use std::fs;

use crate::support::{MISMATCH, Scratch, USAGE};

const CORPUS: &str = r#"{"_id": "a", "text": "Die Flüsse führen Hochwasser."}
{"_id": "b", "text": "Der Garten liegt am Haus."}
"#;

fn found(scratch: &Scratch, word: &str) -> Vec<String> {
    let run = scratch.ok(&format!("query --store store TINY --format trec {word}")).stdout;
    run.lines().map(|line| line.split(' ').nth(2).unwrap().to_owned()).collect()
}

#[test]
fn words_are_cut_by_the_rules_of_the_stores_language() {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", CORPUS);
    scratch.ok("build corpus.jsonl --store store TINY --language german");
    let (stemmed, stopped) = (found(&scratch, "Fluss"), found(&scratch, "der"));
    assert_eq!((stemmed.as_slice(), stopped.len()), (&["a".to_owned()][..], 0));
    assert_eq!(
        scratch.ok("info --store store --json").json()[0]["fingerprint"]["language"],
        "german"
    );
    let other = scratch.run("build corpus.jsonl --store store TINY");
    assert_eq!(other.code, MISMATCH);
    other.says(&["language", "german", "english"]);
    // Later documents are cut like the first ones, and a lost index is made again unchanged.
    scratch.write("more.jsonl", "{\"_id\": \"c\", \"text\": \"Ein Fluss ohne Brücke\"}\n");
    scratch.ok("build more.jsonl --store store TINY --append");
    assert_eq!(found(&scratch, "Flüssen").len(), 2);
    fs::remove_dir_all(scratch.path("store/index")).unwrap();
    scratch.run("query --store store TINY Fluss").says(&["hyperrag repair"]);
    scratch.ok("repair --store store TINY");
    assert_eq!(found(&scratch, "Flüssen").len(), 2);
    scratch.write("gone", "a\n");
    scratch.ok("delete --store store --ids gone");
    scratch.ok("compact --store store");
    assert_eq!(found(&scratch, "Flüssen"), ["c"]);
}

#[test]
fn words_may_be_left_as_they_are() {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", CORPUS);
    scratch.ok("build corpus.jsonl --store store TINY --language none");
    assert_eq!((found(&scratch, "der"), found(&scratch, "Fluss").len()), (vec!["b".to_owned()], 0));
    let unknown = scratch.run("build corpus.jsonl --store other TINY --language klingon");
    assert_eq!(unknown.code, USAGE);
    unknown.says(&["klingon", "german"]);
}

//! Text of a corpus, a query or a file name that would control a terminal is not passed to it.

use serde_json::{Value, json};

use crate::support::{FAILED, Outcome, Scratch, USAGE, jsonl, testdata};

/// Makes a store with a document that would clear the screen, ring, turn red and write backwards.
fn hostile() -> Scratch {
    let scratch = Scratch::new();
    let row = json!({
        "_id": "p\u{202e}1",
        "title": "Bees\u{1b}[2J\r\nand\u{7} flowers",
        "text": "Honeybees \u{9b}31m dance\u{8}\u{7f} \u{1b}]0;title\u{7} for \u{2066}flowers.",
    });
    scratch.write("corpus.jsonl", jsonl(&[row]));
    scratch.ok("build corpus.jsonl --store store TINY");
    scratch
}

#[track_caller]
fn is_plain(outcome: &Outcome) {
    let obeyed = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || ('\u{202a}'..='\u{202e}').contains(&c)
            || ('\u{2066}'..='\u{2069}').contains(&c)
    };
    for text in [&outcome.stdout, &outcome.stderr] {
        assert!(!text.contains(obeyed), "{text:?}");
    }
}

#[test]
fn texts_are_spelt_out_for_people_and_kept_for_programs() {
    let scratch = hostile();
    let table = scratch.ok("query --store store TINY honeybees");
    is_plain(&table);
    for part in ["p\\u{202e}1", "Bees\\u{1b}[2J and\\u{7} flowers", "\\u{9b}31m dance\\u{8}"] {
        assert!(table.stdout.contains(part), "{part} is not in {}", table.stdout);
    }
    let answered = scratch.ok("answer --store store TINY --max-tokens 3 honeybees");
    is_plain(&answered);
    assert!(
        answered.stdout.contains("p\\u{202e}1  Bees\\u{1b}[2J and\\u{7}"),
        "{}",
        answered.stdout
    );
    scratch.write("q.tsv", "1\thoney\u{1b}[31mbees\n");
    let batch = scratch.ok("query --store store TINY --queries q.tsv");
    is_plain(&batch);
    assert!(batch.stdout.starts_with("query\tscore\t"), "{}", batch.stdout);

    let json = scratch.ok("query --store store TINY --json honeybees").json().remove(0);
    let hit: &Value = &json["hits"][0];
    assert_eq!(hit["id"], "p\u{202e}1");
    assert_eq!(hit["title"], "Bees\u{1b}[2J\r\nand\u{7} flowers");
    let run = scratch.ok("query --store store TINY --format trec honeybees").stdout;
    assert!(run.starts_with("1 Q0 p\u{202e}1 1 "), "{run:?}");
}

#[test]
fn warnings_and_errors_are_spelt_out() {
    let scratch = hostile();
    scratch.write("gone", "no\u{1b}[2Jbody\n");
    let warned = scratch.ok("delete --store store --ids gone");
    is_plain(&warned);
    warned.says(&["1 id is not in the store: no\\u{1b}[2Jbody"]);
    let qrels = testdata("qrels.tsv");
    let missing = scratch.ends(FAILED, &format!("eval --run \u{1b}[2Jrun --qrels {qrels}"));
    is_plain(&missing);
    missing.says(&["\\u{1b}[2Jrun: the run cannot be opened"]);
    let usage = scratch.ends(USAGE, "query --store store TINY --depth x\u{7}\u{1b}[2J bees");
    is_plain(&usage);
    usage.says(&["invalid value", "--depth"]);
}

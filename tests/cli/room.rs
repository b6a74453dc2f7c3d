//! Builds with a limit on the bytes of the store.

use std::fs;

use crate::support::{FAILED, Scratch, USAGE, all_files, jsonl, passages, ranked};

const BUILD: &str = "build corpus.jsonl --store store TINY --unit-rows 16";

fn bytes(scratch: &Scratch, store: &str) -> u64 {
    all_files(&scratch.path(store)).iter().map(|path| fs::metadata(path).unwrap().len()).sum()
}

#[test]
fn a_build_stops_before_it_takes_more_than_it_may() {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", jsonl(&passages()[..80]));
    scratch.ok("build corpus.jsonl --store whole TINY --unit-rows 16");
    let all = bytes(&scratch, "whole");
    let mut sealed = 0;
    for max in [100_000, all / 2, all * 4 / 5] {
        let stopped = scratch.ends(FAILED, &format!("{BUILD} --max-bytes {max}"));
        stopped
            .says(&[&format!("{max} are allowed"), "run the same command with more --max-bytes"]);
        let info = &scratch.ok("info --store store --json").json()[0];
        let now = info["shards"].as_array().unwrap().len();
        assert!(now > sealed || max == 100_000, "{now} shards after {sealed}");
        sealed = now;
        let taken = bytes(&scratch, "store");
        assert!(taken <= max, "{taken} of {max} bytes");
        assert!(taken > max / 2 || max == 100_000, "only {taken} of {max} bytes");
        scratch.ok("verify --store store");
    }
    let contents = scratch.contents("store");
    scratch.ends(FAILED, &format!("{BUILD} --max-bytes {}", all / 2));
    assert!(scratch.contents("store") == contents, "what is sealed stays");
    let query = "query --store store TINY --json honeybees";
    let found = scratch.ok(query);
    found.says(&["the build is not finished"]);
    assert!(!ranked(&found)[0].1.is_empty(), "what is sealed is searched");
    scratch.ok(&format!("{BUILD} --max-bytes 1G"));
    assert!(scratch.contents("store") == scratch.contents("whole"));
    for wrong in ["1X", "G", "-1", "99999999999T"] {
        scratch.ends(USAGE, &format!("{BUILD} --max-bytes={wrong}"));
    }
}

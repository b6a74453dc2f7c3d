//! Changed bytes of runs and of judgements.

#[path = "../../../../fuzz/changed.rs"]
mod changed;
mod parses;
#[path = "../../../../tests/cli/seeded.rs"]
mod seeded;

use changed::changes_are_no_panic;

#[test]
fn changed_runs_and_judgements_are_refused_or_read_without_a_panic() {
    let run = "q1 Q0 d1 1 2.5 tag\nq1 Q0 d2 2 -1e-3 tag\r\n\nq2\tQ0\tü 1 0 tag\n";
    changes_are_no_panic("run", run.as_bytes(), 7000, parses::run);
    let trec = "q1 0 d1 1\nq1 0 d2 0\nq2 0 ü 3\r\n";
    changes_are_no_panic("qrels", trec.as_bytes(), 7000, parses::qrels);
    let beir = "query-id\tcorpus-id\tscore\nq 1\td1\t1\nq2\td2\t-2\n";
    changes_are_no_panic("qrels", beir.as_bytes(), 7000, parses::qrels);
}

//! Parses any bytes as a run or as judgements; `make fuzz` uses it too.

use hyperrag_eval::{Qrels, Run};

/// Whether `bytes` are a run. Its scores are numbers, and a query names no document twice.
#[must_use]
pub(crate) fn run(bytes: &[u8]) -> bool {
    let Ok(run) = Run::parse(bytes, "run") else { return false };
    for (_, hits) in run.queries() {
        assert!(hits.iter().all(|hit| hit.score.is_finite()));
        let names: std::collections::HashSet<_> = hits.iter().map(|hit| &hit.document).collect();
        assert_eq!(names.len(), hits.len());
    }
    true
}

/// Whether `bytes` are judgements. There is one query at least.
#[must_use]
pub(crate) fn qrels(bytes: &[u8]) -> bool {
    let Ok(qrels) = Qrels::parse(bytes, "qrels") else { return false };
    assert!(qrels.queries().len() > 0);
    true
}

//! Files of runs and of judgements: paths in, rankings and grades out.

use std::path::Path;

use anyhow::{Result, ensure};
use hyperrag_eval::{Measure, Qrels, Run};

use crate::input::text;

/// Reads a TREC run.
pub(crate) fn read_run(path: &Path) -> Result<Run> {
    Ok(Run::parse(text::open(path, "the run")?, &path.display().to_string())?)
}

/// Reads judgements whose grades the measures are defined for.
pub(crate) fn read_qrels(path: &Path, measures: &[Measure]) -> Result<Qrels> {
    let qrels = Qrels::parse(text::open(path, "the judgements")?, &path.display().to_string())?;
    let highest = qrels.queries().flat_map(|(_, grades)| grades.values()).copied().max();
    for measure in measures {
        if let (Some(most), Some(highest)) = (measure.grade_max(), highest) {
            ensure!(
                highest <= most,
                "{}: it has the grade {highest}; {measure} is defined for grades up to {most}",
                path.display()
            );
        }
    }
    Ok(qrels)
}

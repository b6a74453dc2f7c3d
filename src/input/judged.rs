//! Files of runs and of judgements: paths in, rankings and grades out.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use hyperrag_eval::{Measure, Qrels, Run};

/// Reads a TREC run.
pub(crate) fn read_run(path: &Path) -> Result<Run> {
    let file = File::open(path)
        .with_context(|| format!("{}: the run cannot be opened", path.display()))?;
    Ok(Run::parse(BufReader::new(file), &path.display().to_string())?)
}

/// Reads judgements whose grades the measures are defined for.
pub(crate) fn read_qrels(path: &Path, measures: &[Measure]) -> Result<Qrels> {
    let file = File::open(path)
        .with_context(|| format!("{}: the judgements cannot be opened", path.display()))?;
    let qrels = Qrels::parse(BufReader::new(file), &path.display().to_string())?;
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

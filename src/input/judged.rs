//! Files of runs and of judgements: paths in, rankings and grades out.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result};
use hyperrag_eval::{Qrels, Run};

/// Reads a TREC run.
pub(crate) fn read_run(path: &Path) -> Result<Run> {
    let file = File::open(path)
        .with_context(|| format!("{}: the run cannot be opened", path.display()))?;
    Ok(Run::parse(BufReader::new(file), &path.display().to_string())?)
}

/// Reads judgements.
pub(crate) fn read_qrels(path: &Path) -> Result<Qrels> {
    let file = File::open(path)
        .with_context(|| format!("{}: the judgements cannot be opened", path.display()))?;
    Ok(Qrels::parse(BufReader::new(file), &path.display().to_string())?)
}

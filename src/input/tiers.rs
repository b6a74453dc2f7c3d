//! Tiers as the command line names them: words come in, specifications go out.

use anyhow::Result;
use hyperrag_engine::open::tiers::{TierSpec, parse_tiers};

use crate::error::Usage;

/// Returns the tiers of all flags, in order. They are not read by the parser of flags, whose errors would repeat
/// a password.
pub(crate) fn specs(lists: &[String]) -> Result<Vec<TierSpec>> {
    let mut specs = Vec::new();
    for list in lists {
        specs.extend(parse_tiers(list).map_err(|error| Usage(format!("--tiers: {error}")))?);
    }
    Ok(specs)
}

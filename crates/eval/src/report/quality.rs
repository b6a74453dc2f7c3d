//! Figures of a comparison of element types, as `bench quality` gives them.

use serde::Serialize;

use crate::experiment::quality::cost::{Cost, CostPoint};
use crate::experiment::quality::pass::Recomputed;
use crate::experiment::quality::report::QualityRow;

/// Figures of a comparison, and how they were taken.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// Version of the program.
    pub version: &'static str,
    /// Device and kernel that computed.
    #[serde(rename = "machinery")]
    pub backend_description: String,
    /// Name of the profile.
    pub profile: String,
    /// Source of the candidates.
    pub retriever: String,
    /// Name of the measure.
    pub measure: String,
    /// Number of queries.
    pub queries: usize,
    /// Seed that drew them.
    pub seed: u64,
    /// Candidates of a query.
    pub depth: usize,
    /// Pairs of a query and a document.
    pub pairs: usize,
    /// Whether the variants were rounded from one prefill.
    pub rounded: bool,
    /// Variants that were compared.
    pub variants: Vec<VariantFigures>,
    /// Rankings, and what they are worth.
    pub rows: Vec<QualityRow>,
    /// Fused rankings, of fewer candidates too, and what they cost.
    pub costs: Vec<CostPoint>,
    /// The fastest of them that is within 0.005 of the best.
    pub knee: Option<CostPoint>,
}

/// A variant, and what it costs.
#[derive(Debug, Serialize)]
pub struct VariantFigures {
    /// Name of the variant.
    pub name: String,
    /// Kernel that computed it.
    pub kernel: &'static str,
    /// Bytes of K and V of a position.
    pub bytes_a_token: usize,
    /// Positions of a chunk.
    pub chunk_tokens: u32,
    /// Cost of its scores.
    pub cost: Cost,
    /// Scores of blocks computed again.
    pub recomputed: Recomputed,
}

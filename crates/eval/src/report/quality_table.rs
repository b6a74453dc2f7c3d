//! Figures of a comparison in, cells of a table out.

use hyperrag_core::counted;

use crate::experiment::quality::report::{Estimate, How, QualityRow};
use crate::metric::significance::PairedDifference;
use crate::report::quality::{Figures, VariantFigures};
use crate::report::quality_chart::knee_text;

/// Cells of a table, and sentences on it.
#[derive(Debug)]
pub struct QualityTable {
    /// Names of the columns.
    pub names: [String; COLUMNS],
    /// Cells of each row.
    pub rows: Vec<[String; COLUMNS]>,
    /// Conditions of the figures, and where the knee is.
    pub sentences: Vec<String>,
}

/// Columns of the table.
const COLUMNS: usize = 7;

/// Lays the figures out as a table with what they were taken under.
#[must_use]
pub fn table(figures: &Figures) -> QualityTable {
    let reference = figures.variants.first().map_or("", |variant| variant.name.as_str());
    let retriever = figures.retriever.as_str();
    let names = [
        "ranking".to_owned(),
        figures.measure.clone(),
        format!("less {reference}, 95 %"),
        format!("less {retriever}, 95 %"),
        "p".to_owned(),
        "Kendall's tau".to_owned(),
        "top-10 overlap".to_owned(),
    ];
    let rows = figures.rows.iter().map(|of| row(of, retriever));
    let rows = rows.chain(recompute_row(&figures.variants)).collect();
    let mut sentences = vec![describe(figures)];
    sentences.extend(figures.knee.as_ref().map(|knee| format!("The {}.", knee_text(knee))));
    QualityTable { names, rows, sentences }
}

fn row(row: &QualityRow, retriever: &str) -> [String; COLUMNS] {
    let name = match (row.how, row.weights) {
        (How::Retriever, _) => retriever.to_owned(),
        (How::Tuned, Some([even, odd])) => {
            format!("{}, fused, w tuned on the other half ({even}, {odd})", row.variant)
        }
        (_, Some([weight, _])) => format!("{}, fused, w = {weight}", row.variant),
        (_, None) => row.variant.clone(),
    };
    let difference = |difference: &Option<PairedDifference>| match difference {
        Some(PairedDifference { mean, interval: [low, high], .. }) => {
            format!("{mean:+.4} ({low:+.4} to {high:+.4})")
        }
        None => String::new(),
    };
    let p = row.against_retriever.map_or_else(String::new, |difference| match difference.p {
        p if p < 1e-4 => "< 0.0001".to_owned(),
        p => format!("{p:.4}"),
    });
    let estimate = |Estimate { mean, error }: Estimate| format!("{mean:.3} ± {error:.3}");
    let (tau, overlap) = row.agreement.map_or_else(Default::default, |agreement| {
        (estimate(agreement.kendall_tau), estimate(agreement.top10_overlap))
    });
    let (reference, before) =
        (difference(&row.against_reference), difference(&row.against_retriever));
    [name, format!("{:.4}", row.mean), reference, before, p, tau, overlap]
}

/// Says how many scores of blocks computed again are equal, over all variants.
fn recompute_row(variants: &[VariantFigures]) -> Option<[String; COLUMNS]> {
    let queries = variants.first()?.recomputed.queries;
    let all: usize = variants.iter().map(|variant| variant.recomputed.scores).sum();
    let equal: usize = variants.iter().map(|variant| variant.recomputed.equal).sum();
    (all > 0).then(|| {
        let mut cells = [const { String::new() }; COLUMNS];
        cells[0] = format!("recompute, {}, each variant", counted(queries, "query"));
        cells[2] = format!("{equal} of {all} scores have the same bits");
        cells
    })
}

fn describe(figures: &Figures) -> String {
    let Figures { version, backend_description, profile, queries, seed, depth, pairs, .. } =
        figures;
    let variants = figures.variants.iter().map(|variant| {
        format!("{} {} bytes a token ({})", variant.name, variant.bytes_a_token, variant.kernel)
    });
    let blocks = match figures.rounded {
        true => "rounded after one prefill, which is near what a store holds",
        false => "computed as in a store",
    };
    format!(
        "{} (seed {seed}), depth {depth}, {}, profile {profile}; blocks {blocks}: {}. \
         hyperrag {version}, {backend_description}.",
        counted(*queries, "query"),
        counted(*pairs, "pair"),
        variants.collect::<Vec<_>>().join(", ")
    )
}

//! Figures of a comparison in, an SVG of quality over cost out.

use hyperrag_core::counted;

use crate::experiment::quality::cost::CostPoint;
use crate::report::chart::{Panel, Point, panels_svg};
use crate::report::quality::Figures;

/// Draws the measure over queries a second and over bytes a document.
#[must_use]
pub fn svg(figures: &Figures) -> String {
    let deepest = |point: &&CostPoint| point.depth == figures.depth;
    let by_speed = panel(
        figures,
        ("queries a second, blocks in memory", |point| point.queries_per_second),
        |name| figures.costs.iter().filter(|point| point.variant == name).collect(),
    );
    let by_bytes = panel(figures, ("bytes a document", |point| point.bytes_a_document), |name| {
        figures.costs.iter().filter(|p| p.variant == name).filter(deepest).collect()
    });
    let queries = counted(figures.queries, "query");
    let backend_description = &figures.backend_description;
    let title = format!(
        "{} fused with {}, depths to {}, {queries} ({backend_description})",
        figures.measure, figures.retriever, figures.depth
    );
    panels_svg(&title, &[by_speed, by_bytes])
}

/// A panel with each variant's points.
fn panel<'a>(
    figures: &'a Figures,
    (x, of): (&'a str, fn(&CostPoint) -> f64),
    points: impl Fn(&str) -> Vec<&'a CostPoint>,
) -> Panel<'a> {
    let series = figures.variants.iter().map(|variant| {
        let points = points(&variant.name).into_iter().map(|point| Point {
            x: of(point),
            y: point.mean,
            label: describe(point),
        });
        (variant.name.as_str(), points.collect())
    });
    let marked = figures.knee.as_ref().map(|knee| (of(knee), knee.mean, knee_text(knee)));
    Panel { x, y: &figures.measure, series: series.collect(), marked }
}

/// Says the knee in words.
pub(crate) fn knee_text(knee: &CostPoint) -> String {
    format!("knee, the fastest within 0.005 of the best: {}", describe(knee))
}

fn describe(point: &CostPoint) -> String {
    format!(
        "{}, depth {}: {:.4}, {:.2} queries/s, {:.0} bytes a document",
        point.variant, point.depth, point.mean, point.queries_per_second, point.bytes_a_document
    )
}

//! Differences by query in, bars of an SVG out.

use std::fmt::Write;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 320.0;
const MARGIN: f64 = 40.0;

/// Gains and losses by query as a bar chart in SVG, losses first. `differences` are the queries' ids,
/// each with a value between -1 and 1.
#[must_use]
pub fn gains_svg(title: &str, differences: &[(&str, f64)]) -> String {
    let mut sorted = differences.to_vec();
    sorted.sort_by(|a, b| a.1.total_cmp(&b.1).then_with(|| a.0.cmp(b.0)));
    let largest = sorted.iter().map(|(_, value)| value.abs()).fold(0.0, f64::max).max(1e-9);
    let step = (WIDTH - 2.0 * MARGIN) / sorted.len().max(1) as f64;
    let (zero, scale) = (HEIGHT / 2.0, (HEIGHT / 2.0 - MARGIN) / largest);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"{MARGIN}\" y=\"20\" fill=\"#222222\">{}</text>\n",
        escape(title)
    );
    for (i, (query, value)) in sorted.iter().enumerate() {
        let height = value.abs() * scale;
        let (x, y) = (MARGIN + i as f64 * step, if *value > 0.0 { zero - height } else { zero });
        let fill = if *value > 0.0 { "#2b7a4b" } else { "#b3392f" };
        // Writing to a string does not fail.
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{:.2}\" height=\"{height:.2}\" fill=\"{fill}\">\
             <title>{}: {value:+.3}</title></rect>",
            step * 0.9,
            escape(query)
        );
    }
    for (value, y) in [(largest, MARGIN), (0.0, zero), (-largest, HEIGHT - MARGIN)] {
        let _ = writeln!(
            svg,
            "<line x1=\"{MARGIN}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" stroke=\"#999999\" \
             stroke-width=\"0.5\"/><text x=\"4\" y=\"{}\" fill=\"#222222\">{value:+.2}</text>",
            WIDTH - MARGIN,
            y + 4.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}

pub(crate) fn escape(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .flat_map(|c| match c {
            '&' => "&amp;".chars().collect::<Vec<_>>(),
            '<' => "&lt;".chars().collect(),
            '>' => "&gt;".chars().collect(),
            '"' => "&quot;".chars().collect(),
            c => vec![c],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_sorted_and_text_is_escaped() {
        let svg = gains_svg("a & b", &[("q<1>", 0.5), ("q2", -0.25), ("q3", 0.0)]);
        assert!(svg.contains("a &amp; b") && svg.contains("q&lt;1&gt;: +0.500"), "{svg}");
        let place = |text| svg.find(text).unwrap();
        assert!(place("q2: -0.250") < place("q3: +0.000") && place("q3") < place("q&lt;1"));
        assert!(gains_svg("none", &[]).ends_with("</svg>\n"));
    }
}

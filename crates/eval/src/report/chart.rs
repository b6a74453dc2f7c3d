//! Series of points in, panels of an SVG out.

use std::fmt::Write;

use crate::report::svg::escape;

const PANEL: f64 = 420.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 84.0;

/// Told apart by people who see few colours too (Okabe and Ito, 2008).
const COLOURS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#222222"];

/// Points side by side over two quantities of which more, or less, is better.
pub struct Panel<'a> {
    /// Quantity that goes to the right, on a logarithmic scale: positive numbers.
    pub x: &'a str,
    /// Quantity that goes up.
    pub y: &'a str,
    /// Lines of points, each with its name.
    pub series: Vec<(&'a str, Vec<Point>)>,
    /// A point to be marked, and what it is.
    pub marked: Option<(f64, f64, String)>,
}

/// A point of a chart.
pub struct Point {
    /// To the right.
    pub x: f64,
    /// Up.
    pub y: f64,
    /// Shown where it is pointed at.
    pub label: String,
}

/// The panels beside each other, as SVG.
#[must_use]
pub fn panels_svg(title: &str, panels: &[Panel<'_>]) -> String {
    let width = PANEL * panels.len().max(1) as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"11\" fill=\"#222222\">\n\
         <rect width=\"{width}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"13\">{}</text>\n",
        escape(title)
    );
    for (i, panel) in panels.iter().enumerate() {
        // Writing to a string does not fail.
        let _ = writeln!(svg, "<g transform=\"translate({},0)\">", PANEL * i as f64);
        draw(&mut svg, panel);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(svg: &mut String, panel: &Panel<'_>) {
    let points = || panel.series.iter().flat_map(|(_, points)| points);
    let across =
        Axis::new(points().map(|p| p.x.max(f64::MIN_POSITIVE).log10()), LEFT, PANEL - RIGHT);
    let up = Axis::new(points().map(|p| p.y), HEIGHT - BOTTOM, TOP);
    frame(svg, panel, &across, &up);
    let place = |x: f64, y: f64| (across.at(x.max(f64::MIN_POSITIVE).log10()), up.at(y));
    for ((name, points), (i, colour)) in panel.series.iter().zip(COLOURS.iter().cycle().enumerate())
    {
        let line: String = points
            .iter()
            .map(|point| place(point.x, point.y))
            .map(|(x, y)| format!("{x:.1},{y:.1} "))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\"/>",
            line.trim_end()
        );
        for point in points {
            let ((x, y), label) = (place(point.x, point.y), escape(&point.label));
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"><title>{label}</title></circle>"
            );
        }
        let (x, y) = (LEFT + 90.0 * (i % 4) as f64, HEIGHT - 24.0 + 14.0 * (i / 4) as f64);
        let _ =
            writeln!(svg, "<text x=\"{x}\" y=\"{y}\" fill=\"{colour}\">{}</text>", escape(name));
    }
    if let Some((x, y, what)) = &panel.marked {
        let (x, y) = place(*x, *y);
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"8\" fill=\"none\" stroke=\"#222222\"/>\
             <text x=\"{LEFT}\" y=\"36\">○ {}</text>",
            escape(what)
        );
    }
}

/// Axes with their smallest and largest values, and what they are of.
fn frame(svg: &mut String, panel: &Panel<'_>, across: &Axis, up: &Axis) {
    let (right, bottom) = (PANEL - RIGHT, HEIGHT - BOTTOM);
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"#999999\"/>\
         <text x=\"{LEFT}\" y=\"{}\">{:.3}</text><text x=\"4\" y=\"{bottom}\">{:.3}</text>\
         <text x=\"{LEFT}\" y=\"{}\">{}</text><text x=\"{right}\" y=\"{}\" text-anchor=\"end\">{}</text>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
         <text transform=\"translate(14,{}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        TOP - 2.0,
        up.high,
        up.low,
        bottom + 14.0,
        short(10_f64.powf(across.low)),
        bottom + 14.0,
        short(10_f64.powf(across.high)),
        f64::midpoint(LEFT, right),
        bottom + 30.0,
        escape(panel.x),
        f64::midpoint(TOP, bottom),
        escape(panel.y)
    );
}

/// A number in three digits.
fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{:.3}M", v / 1e6),
        v if v >= 1e3 => format!("{:.1}k", v / 1e3),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.3}"),
    }
}

struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// From the smallest value to the largest, with a little room on both sides.
    fn new(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        let (low, high) = if low <= high { (low, high) } else { (0.0, 0.0) };
        let room = ((high - low) * 0.06).max(1e-3);
        Self { low: low - room, high: high + room, from, to }
    }

    fn at(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_stand_where_their_values_say() {
        let point = |x, y| Point { x, y, label: format!("<{x}>") };
        let panel = |series| Panel {
            x: "a & b",
            y: "y",
            series,
            marked: Some((10.0, 0.5, "knee".to_owned())),
        };
        let svg = panels_svg(
            "t",
            &[panel(vec![
                ("one", vec![point(1.0, 0.0), point(10.0, 0.5)]),
                ("two", vec![point(100.0, 1.0)]),
            ])],
        );
        let centre = |label: &str| -> (f64, f64) {
            let circle = svg.lines().find(|line| line.contains(label)).unwrap();
            let number = |key: &str| {
                circle.split(key).nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
            };
            (number("cx=\""), number("cy=\""))
        };
        let [low, middle, high] = ["&lt;1&gt;", "&lt;10&gt;", "&lt;100&gt;"].map(centre);
        assert!(low.0 < middle.0 && low.1 > middle.1);
        // Logarithmic to the right, linear up.
        assert!(
            (middle.0 - low.0 - (high.0 - middle.0)).abs() < 0.2,
            "{low:?} {middle:?} {high:?}"
        );
        assert!((low.1 - middle.1 - (middle.1 - high.1)).abs() < 0.2);
        assert!(svg.contains("a &amp; b") && svg.contains("○ knee") && svg.contains(">two</text>"));
        assert!(!panels_svg("none", &[panel(Vec::new())]).contains("NaN"));
    }
}

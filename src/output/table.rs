//! Tables of stdout: names of columns and rows come in, text goes out. On a terminal it is a table that fits
//! the width; elsewhere it is tab-separated lines under one line of names. Knows no command.

use std::env;
use std::io::{self, IsTerminal};

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Width};
use unicode_width::UnicodeWidthStr;

use crate::report;

/// Columns of a terminal that does not say how many it has.
const COLUMNS: usize = 80;

/// Columns of the padding around a cell. Between two cells one more is blank.
const PADDING: usize = 2;

/// Treatment of a cell that has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// Stands at the right, and stays whole.
    Number,
    /// Is cut after texts are, such as an id.
    Name,
    /// Is cut like a name, but at its start: files of a folder differ at the end.
    Path,
    /// Is cut first.
    Text,
    /// Goes on in the next line.
    Wrap,
}

/// Columns of a name or of words that go on below, down to which a table stays in one part.
const NAME_MIN: usize = 12;

/// Columns of a text, down to which a table stays in one part.
const TEXT_MIN: usize = 4;

/// Order in which columns give room, each class down to so many columns.
const GIVING: [(Fit, usize); 7] = [
    (Fit::Text, 16),
    (Fit::Wrap, NAME_MIN),
    (Fit::Name, NAME_MIN),
    (Fit::Path, NAME_MIN),
    (Fit::Text, TEXT_MIN),
    (Fit::Name, 4),
    (Fit::Path, 4),
];

/// Columns that a field's value has beside its name; where there are fewer, it begins in the next line.
const BESIDE_MIN: usize = 20;

/// Columns by which a value in the next line is indented.
const INDENT: usize = 4;

/// Place where stdout goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Medium {
    /// A terminal with so many columns.
    Terminal(usize),
    /// A pipe or a file.
    Stream,
}

impl Medium {
    /// Looks at stdout. `COLUMNS` wins over what the terminal says.
    fn of_stdout() -> Self {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Self::Stream;
        }
        let named = env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let size = || terminal_size::terminal_size_of(&stdout).map(|(width, _)| width.0.into());
        let columns = named.or_else(size).filter(|columns| *columns > 0);
        Self::Terminal(columns.unwrap_or(COLUMNS))
    }
}

/// Whether stdout has tab-separated lines instead of tables.
pub(crate) fn is_tab_separated() -> bool {
    Medium::of_stdout() == Medium::Stream
}

/// A table.
pub(crate) struct Table {
    columns: Vec<(String, Fit)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns a table without rows.
    pub(crate) fn new<'a>(columns: impl IntoIterator<Item = (&'a str, Fit)>) -> Self {
        let columns = columns.into_iter().map(|(name, fit)| (cell(name), fit)).collect();
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row with a cell for each column.
    pub(crate) fn add(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|text| cell(&text)).collect());
    }

    /// Returns the text for stdout, without the end of its last line.
    pub(crate) fn text(&self) -> String {
        self.laid_out(Medium::of_stdout())
    }

    /// Returns the rows as tab-separated lines, for a stdout that has the names already.
    pub(crate) fn rows(&self) -> String {
        self.rows.iter().map(|row| row.join("\t")).collect::<Vec<_>>().join("\n")
    }

    fn laid_out(&self, medium: Medium) -> String {
        let names = self.columns.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        match medium {
            Medium::Stream if self.rows.is_empty() => names.join("\t"),
            Medium::Stream => format!("{}\n{}", names.join("\t"), self.rows()),
            Medium::Terminal(width) => self.fitted(&names, width),
        }
    }

    /// Returns a table of at most `width` columns, where that is possible: with less padding, or else in several
    /// parts, if it must be.
    fn fitted(&self, names: &[String], width: usize) -> String {
        let all: Vec<usize> = (0..self.columns.len()).collect();
        // Words side by side need the blanks, numbers do not.
        let numbers = self.columns[self.keys()..].iter().all(|(_, fit)| *fit == Fit::Number);
        for padding in [PADDING, if numbers { 0 } else { PADDING }] {
            if self.fits(&all, width, padding) {
                return self.part(names, &all, width, padding);
            }
        }
        let parts = self.parts(width);
        let parts = parts.iter().map(|part| self.part(names, part, width, PADDING));
        parts.collect::<Vec<_>>().join("\n")
    }

    /// Whether columns fit, each as narrow as it may be.
    fn fits(&self, part: &[usize], width: usize, padding: usize) -> bool {
        let least = |column: &usize| match self.columns[*column].1 {
            Fit::Number => self.natural(*column, width),
            Fit::Name | Fit::Path | Fit::Wrap => self.natural(*column, width).min(NAME_MIN),
            Fit::Text => self.natural(*column, width).min(TEXT_MIN),
        };
        outer_width(&part.iter().map(least).collect::<Vec<_>>(), padding) <= width
    }

    /// Number of the first columns that name a row.
    fn keys(&self) -> usize {
        let is_name = |(_, fit): &&(String, Fit)| matches!(fit, Fit::Name | Fit::Path);
        let names = self.columns.iter().take_while(is_name).count();
        names.clamp(1, self.columns.len().saturating_sub(1).max(1))
    }

    /// Divides the columns into parts that fit `width` columns of a terminal. Each part begins with the columns
    /// that name a row.
    fn parts(&self, width: usize) -> Vec<Vec<usize>> {
        let keys: Vec<usize> = (0..self.keys()).collect();
        let mut parts = vec![keys.clone()];
        for column in keys.len()..self.columns.len() {
            let Some(part) = parts.last_mut() else { break };
            part.push(column);
            if part.len() > keys.len() + 1 && !self.fits(part, width, PADDING) {
                part.pop();
                parts.push(keys.iter().copied().chain([column]).collect());
            }
        }
        parts
    }

    /// Lays some of the columns out. A row that is blank in them is left out, unless they are all there are.
    fn part(&self, names: &[String], part: &[usize], width: usize, padding: usize) -> String {
        let widths = self.widths(part, width, padding);
        let cells = |row: &[String]| -> Vec<String> {
            let cell = |(column, width): (&usize, &usize)| {
                let text = row.get(*column).map_or("", String::as_str);
                match self.columns[*column].1 {
                    Fit::Number | Fit::Wrap => text.to_owned(),
                    Fit::Name | Fit::Text => report::shorten(text, *width),
                    Fit::Path => report::shorten_start(text, *width),
                }
            };
            part.iter().zip(&widths).map(cell).collect()
        };
        let mut table = comfy_table::Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY).set_header(cells(names));
        let own = &part[self.keys().min(part.len())..];
        let is_blank =
            |row: &[String]| own.iter().all(|column| row.get(*column).is_none_or(String::is_empty));
        for row in &self.rows {
            if part.len() == self.columns.len() || !is_blank(row) {
                table.add_row(cells(row));
            }
        }
        table.set_content_arrangement(ContentArrangement::Dynamic);
        let outer = |width: usize| u16::try_from(width + padding).unwrap_or(u16::MAX);
        let side = u16::from(padding > 0);
        for (laid_out, (column, width)) in table.column_iter_mut().zip(part.iter().zip(&widths)) {
            laid_out.set_padding((side, side));
            laid_out.set_constraint(ColumnConstraint::Absolute(Width::Fixed(outer(*width))));
            if self.columns[*column].1 == Fit::Number {
                laid_out.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.to_string()
    }

    /// Width of a column's contents that nothing is cut from, at most `width` but for numbers.
    fn natural(&self, column: usize, width: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|text| text.width()).max().unwrap_or(0);
        let widest = widest.max(self.columns[column].0.width());
        if self.columns[column].1 == Fit::Number { widest } else { widest.min(width) }
    }

    /// Widths of these columns' contents in a table of at most `width` columns, where that is possible.
    fn widths(&self, part: &[usize], width: usize, padding: usize) -> Vec<usize> {
        let mut widths: Vec<usize> =
            part.iter().map(|column| self.natural(*column, width)).collect();
        let mut excess = outer_width(&widths, padding).saturating_sub(width);
        for (giving, least) in GIVING {
            while excess > 0 {
                let columns = widths.iter_mut().zip(part);
                let giving = columns.filter(|(width, column)| {
                    self.columns[**column].1 == giving && **width > least
                });
                let Some((widest, _)) = giving.max_by_key(|(width, _)| **width) else { break };
                *widest -= 1;
                excess -= 1;
            }
        }
        widths
    }
}

/// Columns of a table whose contents have these widths, with so much padding around each.
fn outer_width(widths: &[usize], padding: usize) -> usize {
    widths.len().saturating_sub(1) + widths.iter().map(|width| width + padding).sum::<usize>()
}

/// Lays names and their values out, one of each a line: on a terminal below each other, elsewhere with a
/// tab between them. On a terminal a value that is too long goes on below itself.
pub(crate) fn fields(fields: &[(String, String)]) -> String {
    fields_on(fields, Medium::of_stdout())
}

fn fields_on(fields: &[(String, String)], medium: Medium) -> String {
    let widest = fields.iter().map(|(name, _)| name.width()).max().unwrap_or(0);
    let line = |(name, value): &(String, String)| match medium {
        Medium::Stream => format!("{}\t{}", cell(name), cell(value)),
        Medium::Terminal(width) => {
            let room = width.saturating_sub(widest + 2);
            let lines = report::wrapped(value, room);
            let fits = lines.iter().all(|line| line.width() <= room);
            if fits && (lines.len() == 1 || room >= BESIDE_MIN) {
                let start = format!("{name}{}  ", " ".repeat(widest - name.width()));
                let next = format!("\n{}", " ".repeat(widest + 2));
                return (start + &lines.join(&next)).trim_end().to_owned();
            }
            let next = format!("\n{}", " ".repeat(INDENT));
            let lines = report::wrapped(value, width.saturating_sub(INDENT));
            format!("{name}{next}{}", lines.join(&next))
        }
    };
    fields.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Returns a sentence that goes on in the next line where the terminal ends.
pub(crate) fn sentence(text: &str) -> String {
    match Medium::of_stdout() {
        Medium::Terminal(width) => report::wrapped(text, width).join("\n"),
        Medium::Stream => text.to_owned(),
    }
}

/// Returns a table with the sentences on it. Where the table is tab-separated, they go to stderr instead.
pub(crate) fn with_sentences(table: &Table, sentences: &[String]) -> String {
    let medium = Medium::of_stdout();
    let Medium::Terminal(width) = medium else {
        sentences.iter().for_each(|sentence| report::note(sentence));
        return table.laid_out(medium);
    };
    let sentences = sentences.iter().flat_map(|sentence| report::wrapped(sentence, width));
    [table.laid_out(medium)].into_iter().chain(sentences).collect::<Vec<_>>().join("\n")
}

/// Spells out what would break a line or a cell, and what a terminal would obey.
fn cell(text: &str) -> String {
    let spelt = report::visible(text);
    match spelt.contains(['\n', '\t']) {
        true => spelt.replace('\n', "\\u{a}").replace('\t', "\\u{9}"),
        false => spelt.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bees() -> Table {
        let mut table = Table::new([
            ("score", Fit::Number),
            ("id", Fit::Name),
            ("title", Fit::Text),
            ("snippet", Fit::Text),
        ]);
        let titles = ["Bees in winter", "蜜蜂在冬天聚集在一起取暖，夏天采花酿蜜"];
        for (at, title) in titles.into_iter().enumerate() {
            let id = format!("urn:hive:{at:032}");
            table.add([format!("{at}.5"), id, title.to_owned(), "the hive ".repeat(30)]);
        }
        table
    }

    #[test]
    fn a_table_is_as_wide_as_its_terminal() {
        for width in [60, 80, 100, 137, 250] {
            let text = bees().laid_out(Medium::Terminal(width));
            for line in text.lines() {
                assert!(line.width() <= width, "{width}: {} {line}", line.width());
            }
            assert!(text.contains("1.5") && text.contains('…'), "{text}");
            // Two characters of the title beside each other take four columns.
            assert_eq!(text.contains("夏天采花酿蜜 "), width >= 137, "{text}");
        }
        let wide = bees().laid_out(Medium::Terminal(100));
        assert!(wide.contains(&format!("urn:hive:{:032}", 1)), "texts are cut before ids: {wide}");
        let narrow = bees().laid_out(Medium::Terminal(60));
        assert!(narrow.contains("urn:hive:0") && !narrow.contains(&format!("{:032}", 1)));
        let small = bees().laid_out(Medium::Terminal(1));
        assert!(small.contains("0.5"), "{small}");
        let all = bees().laid_out(Medium::Terminal(2000));
        assert!(all.lines().all(|line| line.width() < 400) && !all.contains('…'), "{all}");
    }

    #[test]
    fn a_table_of_numbers_is_cut_into_parts_that_fit() {
        let numbers = ["mean", "difference", "95 % interval", "p", "p (Holm)", "better", "worse"];
        let names = [("measure", Fit::Name), ("run", Fit::Path), ("query", Fit::Name)];
        let columns = names.into_iter().chain(numbers.map(|name| (name, Fit::Number)));
        let mut table = Table::new(columns);
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        for run in ["/data/runs/dense.run", "/data/runs/fused.run"] {
            table.add(row(&["nDCG@10", run, "q1", "0.5000", "", "", "", "", "", ""]));
            let means =
                ["0.7125", "+0.1000", "+0.0500 to +0.1500", "0.0001", "0.0002", "150", "99"];
            table.add(row(&[&["nDCG@10", run, "all"][..], &means].concat()));
        }
        for width in [50, 60, 80, 100, 120] {
            let text = table.laid_out(Medium::Terminal(width));
            assert!(text.lines().all(|line| line.width() <= width), "{width}: {text}");
            for whole in ["+0.0500 to +0.1500", "95 % interval", "0.0002", "dense.run", "150"] {
                assert!(text.contains(whole), "{width}: {whole}: {text}");
            }
            let rows = |query: &str| text.lines().filter(|line| line.contains(query)).count();
            let parts = text.lines().filter(|line| line.starts_with('═')).count();
            // Of a query there is one number, in the first part.
            assert_eq!((rows(" q1 "), rows(" all ")), (2, 2 * parts), "{width}: {text}");
            assert_eq!(parts == 1, width >= 100, "{width}: {text}");
            // Blanks between columns are the first to go.
            assert_eq!(text.contains("mean difference"), width == 100, "{width}: {text}");
        }
    }

    #[test]
    fn long_values_of_fields_go_on_below() {
        let digest = "0123456789abcdef".repeat(4);
        let pairs = [
            ("computed", "in f32 by hyperrag-cpu-2: within 7.1e-3 of those"),
            ("weights", &digest),
        ];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let text = fields_on(&pairs, Medium::Terminal(40));
        let expected = format!(
            "computed  in f32 by hyperrag-cpu-2:\n          within 7.1e-3 of those\nweights\n    {digest}"
        );
        assert_eq!(text, expected, "what is one word stays whole");
        assert!(fields_on(&pairs, Medium::Terminal(20)).starts_with("computed\n    in f32 by\n"));
        assert_eq!(fields_on(&pairs, Medium::Stream).lines().count(), 2);
    }

    #[test]
    fn sentences_in_cells_stay_whole() {
        let mut table = Table::new([("file", Fit::Name), ("what", Fit::Wrap)]);
        let what = "its checksum is wrong; bring back a newer replica or build it anew";
        table.add(["shards/000001.kv".to_owned(), what.to_owned()]);
        let text = table.laid_out(Medium::Terminal(40));
        assert!(text.lines().all(|line| line.width() <= 40), "{text}");
        let words = text.lines().flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
        assert!(what.split(' ').all(|word| words.contains(word)), "{text}");
        assert!(!text.contains('…'), "{text}");
    }

    #[test]
    fn a_stream_has_tabs() {
        let mut table = Table::new([("score", Fit::Number), ("title", Fit::Text)]);
        assert_eq!(table.laid_out(Medium::Stream), "score\ttitle");
        table.add(["1".to_owned(), "a\tb\nc\u{1b}".to_owned()]);
        table.add(["2".to_owned(), String::new()]);
        let text = table.laid_out(Medium::Stream);
        assert_eq!(text, "score\ttitle\n1\ta\\u{9}b\\u{a}c\\u{1b}\n2\t");
    }

    #[test]
    fn fields_stand_below_each_other() {
        let pairs = [("state", "complete"), ("蜜蜂", "2"), ("none", "")];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let text = fields_on(&pairs, Medium::Terminal(80));
        assert_eq!(text, "state  complete\n蜜蜂   2\nnone");
        assert_eq!(fields_on(&pairs, Medium::Stream), "state\tcomplete\n蜜蜂\t2\nnone\t");
    }
}

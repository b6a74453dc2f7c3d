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
    /// Is cut first.
    Text,
    /// Goes on in the next line.
    Wrap,
}

/// Order in which columns give room, each class down to so many columns.
const GIVING: [(Fit, usize); 5] =
    [(Fit::Text, 16), (Fit::Wrap, 12), (Fit::Name, 12), (Fit::Text, 4), (Fit::Name, 4)];

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
            Medium::Terminal(width) => self.fitted(names, width),
        }
    }

    fn fitted(&self, names: Vec<String>, width: usize) -> String {
        let widths = self.widths(width);
        let cut = |cells: &[String]| -> Vec<String> {
            let cells = cells.iter().zip(self.columns.iter().zip(&widths));
            let cells = cells.map(|(text, ((_, fit), width))| match fit {
                Fit::Number | Fit::Wrap => text.clone(),
                Fit::Name | Fit::Text => report::shorten(text, *width),
            });
            cells.collect()
        };
        let mut table = comfy_table::Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY).set_header(cut(&names));
        for row in &self.rows {
            table.add_row(cut(row));
        }
        table.set_content_arrangement(ContentArrangement::Dynamic);
        let outer = |width: usize| u16::try_from(width + PADDING).unwrap_or(u16::MAX);
        for (column, ((_, fit), width)) in
            table.column_iter_mut().zip(self.columns.iter().zip(&widths))
        {
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(outer(*width))));
            if *fit == Fit::Number {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.to_string()
    }

    /// Widths of the columns' contents in a table of at most `width` columns, where that is possible.
    fn widths(&self, width: usize) -> Vec<usize> {
        let natural = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let widest = cells.map(|text| text.width()).max().unwrap_or(0);
            let widest = widest.max(self.columns[column].0.width());
            match self.columns[column].1 {
                Fit::Number => widest,
                Fit::Name | Fit::Text | Fit::Wrap => widest.min(width),
            }
        };
        let mut widths: Vec<usize> = (0..self.columns.len()).map(natural).collect();
        let between = widths.len().saturating_sub(1);
        let taken = between + widths.iter().map(|width| width + PADDING).sum::<usize>();
        let mut excess = taken.saturating_sub(width);
        for (giving, least) in GIVING {
            while excess > 0 {
                let columns = widths.iter_mut().zip(&self.columns);
                let giving = columns.filter(|(width, (_, fit))| *fit == giving && **width > least);
                let Some((widest, _)) = giving.max_by_key(|(width, _)| **width) else { break };
                *widest -= 1;
                excess -= 1;
            }
        }
        widths
    }
}

/// Lays names and their values out, one of each a line: on a terminal below each other, elsewhere with a
/// tab between them.
pub(crate) fn fields(fields: &[(String, String)]) -> String {
    fields_on(fields, Medium::of_stdout())
}

fn fields_on(fields: &[(String, String)], medium: Medium) -> String {
    let widest = fields.iter().map(|(name, _)| name.width()).max().unwrap_or(0);
    let line = |(name, value): &(String, String)| match medium {
        Medium::Stream => format!("{}\t{}", cell(name), cell(value)),
        Medium::Terminal(_) => {
            let blanks = " ".repeat(widest - name.width());
            format!("{name}{blanks}  {value}").trim_end().to_owned()
        }
    };
    fields.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Returns a table with the sentences on it. Where the table is tab-separated, they go to stderr instead.
pub(crate) fn with_sentences(table: &Table, sentences: &[String]) -> String {
    if is_tab_separated() {
        sentences.iter().for_each(|sentence| report::note(sentence));
        return table.text();
    }
    format!("{}\n{}", table.text(), sentences.join("\n"))
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

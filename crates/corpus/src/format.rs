//! The formats of a corpus: the name of a file or its first bytes come in, its format goes out. Opens no file.

use std::path::Path;

/// Format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Parquet.
    Parquet,
    /// JSON: an object a line, or one array of objects.
    Json,
    /// Fields between tabs, a document a line.
    Tsv,
    /// Fields between commas, in quotes where they hold commas, quotes or line ends.
    Csv,
}

/// Meaning of quotes in a TSV file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quoting {
    /// None: they are part of the text, and a line is a document.
    #[default]
    None,
    /// They enclose a field, as in CSV, which may hold tabs, line ends and doubled quotes.
    Csv,
}

impl Format {
    /// Tells the format by the extension before that of a compression.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let extension = |path: &Path| Some(path.extension()?.to_str()?.to_ascii_lowercase());
        let last = extension(path)?;
        if matches!(last.as_str(), "gz" | "zst" | "zstd") {
            let inner = Path::new(path.file_stem()?);
            // Parquet compresses its pages; a reader of a compressed file could not seek.
            return Self::named(&extension(inner)?).filter(|format| *format != Self::Parquet);
        }
        Self::named(&last)
    }

    fn named(extension: &str) -> Option<Self> {
        match extension {
            "parquet" | "pq" => Some(Self::Parquet),
            "jsonl" | "ndjson" | "json" => Some(Self::Json),
            "tsv" => Some(Self::Tsv),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }

    /// Tells the format by the first bytes of a text: those of Parquet, `{`, `[`, or a first line with a tab.
    pub(crate) fn of_text(head: &[u8]) -> Option<Self> {
        if head.starts_with(b"PAR1") {
            return Some(Self::Parquet);
        }
        match first_character(head)? {
            b'{' | b'[' => Some(Self::Json),
            _ => {
                let mut lines = head.split(|byte| *byte == b'\n');
                let line = lines.find(|line| !line.iter().all(u8::is_ascii_whitespace))?;
                line.contains(&b'\t').then_some(Self::Tsv)
            }
        }
    }
}

/// Whether a text begins like a JSON array.
pub(crate) fn is_array(head: &[u8]) -> bool {
    first_character(head) == Some(b'[')
}

/// Returns the first byte that is neither blank nor part of a byte order mark.
fn first_character(head: &[u8]) -> Option<u8> {
    let head = head.strip_prefix(hyperrag_files::lines::BYTE_ORDER_MARK.as_bytes()).unwrap_or(head);
    head.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_format() {
        let check =
            |name: &str, expected| assert_eq!(Format::of(Path::new(name)), expected, "{name}");
        check("a.parquet", Some(Format::Parquet));
        check("a.tar/b.NDJSON", Some(Format::Json));
        check("a.json.gz", Some(Format::Json));
        check("a.csv.ZST", Some(Format::Csv));
        check("a.tsv.zstd", Some(Format::Tsv));
        check("a.parquet.gz", None);
        check("a.gz", None);
        check("a.txt", None);
        check("a", None);
    }

    #[test]
    fn first_bytes_tell_the_format() {
        let check =
            |head: &str, expected| assert_eq!(Format::of_text(head.as_bytes()), expected, "{head}");
        check("PAR1\u{15}", Some(Format::Parquet));
        check("\u{feff} \n{\"id\"", Some(Format::Json));
        check("\n[", Some(Format::Json));
        check("\n1\ttext", Some(Format::Tsv));
        check("id,text\n1,a\tb", None);
        check("", None);
    }
}

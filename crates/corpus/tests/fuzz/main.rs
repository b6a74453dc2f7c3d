//! Changes bytes of a corpus in each format. Reading must refuse it or succeed, without a panic.

#[path = "../../../../fuzz/changed.rs"]
mod changed;
mod reads;
#[path = "../../../../tests/cli/seeded.rs"]
mod seeded;

use std::io::Write;

use changed::changes_are_no_panic;

#[test]
fn changed_lines_are_refused_or_read_without_a_panic() {
    let jsonl = concat!(
        "{\"_id\": \"a\", \"title\": \"Ü\\u00fc \\ud83d\\udc1d\", \"text\": \"one\\ntwo\"}\n",
        "\n{\"text\": \"x\", \"_id\": 7, \"other\": {\"deep\": [1, null, -2.5e3]}}\r\n",
    );
    changes_are_no_panic("jsonl", jsonl.as_bytes(), 2000, |bytes| reads::corpus("jsonl", bytes));
    let array =
        "\u{feff}[{\"_id\": \"a]\", \"text\": \"one\", \"x\": NaN} ,\n {\"id\": 2, \"text\": 3}]\n";
    changes_are_no_panic("json", array.as_bytes(), 2000, |bytes| reads::corpus("json", bytes));
    let csv = "id,title,text\r\na,\"T, \"\"u\"\"\",\"one\ntwo\"\r\n\nb,,three\n";
    changes_are_no_panic("csv", csv.as_bytes(), 2000, |bytes| reads::corpus("csv", bytes));
    let tsv = "a\tone, \"two\"\nb\tthree\r\n";
    changes_are_no_panic("tsv", tsv.as_bytes(), 2000, |bytes| reads::corpus("tsv", bytes));
}

#[test]
fn changed_compressed_lines_are_refused_or_read_without_a_panic() {
    let tsv = "a\tone one one one one one one\nb\ttwo\n";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(tsv.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    changes_are_no_panic("gz", &gzip, 2000, |bytes| reads::corpus("tsv.gz", bytes));
    let zstd = zstd::encode_all(tsv.as_bytes(), 3).unwrap();
    changes_are_no_panic("zst", &zstd, 2000, |bytes| reads::corpus("tsv.zst", bytes));
}

#[test]
fn changed_parquet_is_refused_or_read_without_a_panic() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/corpus.parquet");
    let bytes = std::fs::read(path).unwrap();
    changes_are_no_panic("parquet", &bytes, 400, |bytes| reads::corpus("parquet", bytes));
}

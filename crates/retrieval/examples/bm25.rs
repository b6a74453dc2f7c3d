//! Ranks the documents of a BEIR folder by BM25 alone, by the rules of a language.
//!
//! In: a folder with `corpus.jsonl` and `queries.jsonl`, and a language. Out: a TREC run on stdout, of the
//! 100 best documents of each query, which `hyperrag eval` takes. It does not know a model.
//!
//!     cargo run --release -p hyperrag-retrieval --example bm25 -- FOLDER german > german.run

use std::error::Error;
use std::fs;
use std::io::{Write, stdout};
use std::path::Path;

use hyperrag_core::{DocId, Document, ShardId, Slot};
use hyperrag_retrieval::{Analyzer, Index, IndexWriter, Location};
use serde_json::Value;

/// Documents of a query in the run.
const DEPTH: usize = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(language)) = (arguments.next(), arguments.next()) else {
        return Err("give a BEIR folder and a language".into());
    };
    let index = index(Path::new(&folder), language.parse()?)?;
    let mut out = stdout().lock();
    for query in rows(&Path::new(&folder).join("queries.jsonl"))? {
        let found = index.retrieve(field(&query, "text"), DEPTH, |_| true)?;
        for (rank, hit) in (1..).zip(found.hits) {
            let id = field(&query, "_id");
            writeln!(out, "{id} Q0 {} {rank} {} bm25", hit.id, hit.score)?;
        }
    }
    Ok(())
}

/// Makes an index of the folder's documents, which lies in memory once its folder is removed.
fn index(folder: &Path, language: Analyzer) -> Result<Index, Box<dyn Error>> {
    let made = tempfile::tempdir()?;
    let mut writer = IndexWriter::open(made.path(), language)?;
    for (row, document) in (0..).zip(rows(&folder.join("corpus.jsonl"))?) {
        let text = |name| field(&document, name).to_owned();
        let id = DocId::new(field(&document, "_id"))?;
        let document = Document { id, title: text("title"), text: text("text") };
        writer.add(
            row,
            &document,
            Location { shard: ShardId(0), first_slot: Slot(0), chunks: 1 },
        )?;
    }
    writer.finish(1)?;
    Ok(Index::open(made.path())?)
}

fn rows(path: &Path) -> Result<Vec<Value>, Box<dyn Error>> {
    let text = fs::read_to_string(path)?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn field<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_default()
}

//! Prints the documents of a corpus as JSON lines: `documents INPUT [ID [TITLE [TEXT]]]`, where the names of
//! columns may be empty. What ends the reading is written to stderr.
//!
//! `scripts/writers.py` compares them with what a writer was given.

use std::error::Error;
use std::io::{BufWriter, Write, stderr, stdout};
use std::process::ExitCode;

use hyperrag_core::sentence;
use hyperrag_corpus::{Columns, Corpus};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(input) = arguments.next() else {
        let _ = writeln!(stderr(), "usage: documents INPUT [ID [TITLE [TEXT]]]");
        return ExitCode::FAILURE;
    };
    let mut name = || arguments.next().filter(|name| !name.is_empty());
    let columns = Columns { id: name(), title: name(), text: name(), ..Columns::default() };
    match print(&input, columns) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "{}", sentence(&*error));
            ExitCode::FAILURE
        }
    }
}

fn print(input: &str, columns: Columns) -> Result<(), Box<dyn Error>> {
    let corpus = Corpus::open(&[input.to_owned()], columns)?;
    let mut out = BufWriter::new(stdout());
    for row in corpus.rows() {
        let document = row?.document;
        let fields = [document.id.as_str(), &document.title, &document.text];
        serde_json::to_writer(&mut out, &fields)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

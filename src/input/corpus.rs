//! A corpus as the command line names it: flags in, an open corpus out. Warnings about its files go to the user.

use std::path::PathBuf;

use anyhow::Result;
use hyperrag_corpus::{Columns, Corpus, Format, Limits, Quoting, ReadOptions};

use crate::cli::build as cli;
use crate::cli::build::ColumnArgs;
use crate::hint;

/// Opens the corpus of `inputs`, with the columns and the form that `args` name.
pub(crate) fn open(inputs: &[PathBuf], args: &ColumnArgs, limits: Limits) -> Result<Corpus> {
    let corpus = Corpus::open_with(inputs, columns(args), options(args, limits))?;
    corpus.warnings().iter().for_each(hint::warn);
    Ok(corpus)
}

/// Returns the columns that `args` name.
fn columns(args: &ColumnArgs) -> Columns {
    let ColumnArgs { id_column, title_column, text_column, .. } = args.clone();
    Columns { id: id_column, title: title_column, text: text_column, ..Columns::default() }
}

fn options(args: &ColumnArgs, limits: Limits) -> ReadOptions {
    let format = args.input_format.map(|format| match format {
        cli::InputFormat::Parquet => Format::Parquet,
        cli::InputFormat::Json => Format::Json,
        cli::InputFormat::Tsv => Format::Tsv,
        cli::InputFormat::Csv => Format::Csv,
    });
    let quoting = match args.quoting {
        cli::Quoting::None => Quoting::None,
        cli::Quoting::Csv => Quoting::Csv,
    };
    ReadOptions { limits, quoting, format, ..ReadOptions::default() }
}

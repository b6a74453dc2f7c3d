//! A corpus as the command line names it: flags in, an open corpus out, also one in buckets, with the secrets that the
//! environment has. Warnings about its files go to the user.

use std::path::PathBuf;

use anyhow::Result;
use hyperrag_corpus::{Columns, Corpus, CorpusError, Format, Limits, Quoting, ReadOptions, Row};
use hyperrag_engine::inputs::BucketInputs;
use hyperrag_engine::open::tiers::TierLogins;
use hyperrag_store::ColumnNotes;

use crate::cli::build as cli;
use crate::cli::build::ColumnArgs;
use crate::hint;

/// Opens the corpus of `inputs`, with the columns and the form that `args` name.
pub(crate) fn open(inputs: &[PathBuf], args: &ColumnArgs, limits: Limits) -> Result<Corpus> {
    Ok(warned(opened(inputs, args, limits)?))
}

fn opened(inputs: &[PathBuf], args: &ColumnArgs, limits: Limits) -> Result<Corpus, CorpusError> {
    let buckets = BucketInputs::new(TierLogins::from_environment());
    Corpus::open_anywhere(inputs, columns(args), options(args, limits), Some(&buckets))
}

/// Gives the corpus's warnings.
fn warned(corpus: Corpus) -> Corpus {
    corpus.warnings().iter().for_each(hint::warn);
    corpus
}

/// Opens the input with the columns that the flags name, and for others with the noted ones, where it has
/// these and its first row is not without the title that it has by the usual name.
pub(crate) fn open_as_noted(
    inputs: &[PathBuf],
    given: &ColumnArgs,
    noted: &ColumnNotes,
    limits: Limits,
) -> Result<Corpus> {
    if noted.is_empty() {
        return open(inputs, given, limits);
    }
    let as_noted = ColumnArgs {
        id_column: given.id_column.clone().or_else(|| noted.id.clone()),
        title_column: given.title_column.clone().or_else(|| noted.title.clone()),
        text_column: given.text_column.clone().or_else(|| noted.text.clone()),
        ..given.clone()
    };
    // A pipe is read once.
    let once = |input: &PathBuf| {
        let found = input.metadata();
        input.as_os_str() == "-" || found.is_ok_and(|found| !found.is_file() && !found.is_dir())
    };
    if inputs.iter().any(once) {
        return open(inputs, &as_noted, limits);
    }
    let first = |corpus: &Corpus| corpus.rows().next().and_then(Result::ok);
    let titled = |row: &Row| !row.document.title.is_empty();
    let Ok(corpus) = opened(inputs, &as_noted, limits) else { return open(inputs, given, limits) };
    let row = first(&corpus);
    if row.as_ref().is_some_and(titled) {
        return Ok(warned(corpus));
    }
    Ok(warned(match opened(inputs, given, limits) {
        Ok(other) if first(&other).is_some_and(|other| row.is_none() || titled(&other)) => other,
        _ => corpus,
    }))
}

/// Returns the columns to note: those that flags name, else those noted before. Others are found by their
/// usual names in each input.
pub(crate) fn columns_to_note(given: &ColumnArgs, noted: ColumnNotes) -> ColumnNotes {
    let ColumnArgs { id_column, title_column, text_column, .. } = given.clone();
    ColumnNotes {
        id: id_column.or(noted.id),
        title: title_column.or(noted.title),
        text: text_column.or(noted.text),
    }
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

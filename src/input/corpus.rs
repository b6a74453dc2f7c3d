//! The columns of a corpus, as the command line names them.

use hyperrag_corpus::Columns;

use crate::cli::build::ColumnArgs;

/// Returns the columns that `args` name.
pub(crate) fn columns(args: &ColumnArgs) -> Columns {
    let ColumnArgs { id_column, title_column, text_column } = args.clone();
    Columns { id: id_column, title: title_column, text: text_column }
}

//! Reads pieces from files, run by run. In: pieces, and which file each is in. Out: an answer for each, in order.
//! While one file is read, the system is asked for the next ones, so that a drive has several requests at a time
//! without threads.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use hyperrag_core::{Answer, Blob, Piece};

use crate::disk::{announce, read_range, tier_error};

/// Files that are open at a time.
const FILES_AHEAD: usize = 8;

/// Pieces of a file that the system is asked for before they are read.
const PIECES_AHEAD: usize = 16;

/// Files in which a tier has the bytes of a block.
pub(crate) trait BlockFiles {
    /// Returns the folder, for errors.
    fn folder(&self) -> &Path;

    /// Whether two blocks are in one file.
    fn same_file(&self, one: &Blob, other: &Blob) -> bool;

    /// Opens the file of a block.
    fn open_file_of(&self, blob: &Blob) -> io::Result<Option<File>>;

    /// Returns the range of a piece in its file, `None` if it has none. At most a frame is read at once.
    fn range_of(&self, piece: &Piece) -> Option<Range<u64>>;
}

/// Reads pieces and delivers an answer for each.
pub(crate) fn read_runs(
    files: &impl BlockFiles,
    pieces: &[Piece],
    mut deliver: impl FnMut(usize, Answer),
) {
    let runs = || pieces.chunk_by(|one, other| files.same_file(&one.blob, &other.blob));
    let mut coming = runs();
    let mut opened: VecDeque<io::Result<Option<File>>> = VecDeque::new();
    let mut n = 0;
    for run in runs() {
        while opened.len() < FILES_AHEAD {
            let Some(next) = coming.next() else { break };
            opened.push_back(open_ahead(files, next));
        }
        let file = opened.pop_front().unwrap_or(Ok(None));
        for piece in run {
            deliver(n, read_piece(files, &file, piece));
            n += 1;
        }
    }
}

fn open_ahead(files: &impl BlockFiles, run: &[Piece]) -> io::Result<Option<File>> {
    let opened = files.open_file_of(&run[0].blob)?;
    if let Some(file) = &opened {
        let ranges = run.iter().take(PIECES_AHEAD).filter_map(|piece| files.range_of(piece));
        ranges.for_each(|range| announce(file, &range));
    }
    Ok(opened)
}

fn read_piece(files: &impl BlockFiles, file: &io::Result<Option<File>>, piece: &Piece) -> Answer {
    let failed = |error: &io::Error| tier_error(files.folder(), error);
    match (file, files.range_of(piece)) {
        (Ok(Some(file)), Some(range)) => read_range(file, &range).map_err(|error| failed(&error)),
        (Ok(_), _) => Ok(None),
        (Err(error), _) => Err(failed(error)),
    }
}

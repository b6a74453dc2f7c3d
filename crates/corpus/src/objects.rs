//! Reads the JSON objects of a file, one a line or elements of one array: an open text or a path comes in, the
//! text of one object after the other goes out. Builds no value.

use std::iter::FusedIterator;
use std::path::Path;

use crate::array::ArrayReader;
use crate::error::CorpusError;
use crate::format::is_array;
use crate::input;
use crate::limits::Limits;
use crate::lines::LineReader;
use crate::place::Place;
use crate::source::Text;

/// Reader of the objects of a text.
pub(crate) enum Objects {
    /// An object a line.
    Lines(LineReader),
    /// Elements of an array.
    Array(ArrayReader),
}

impl Objects {
    /// Takes an open text, which tells by its first character whether it is an array.
    pub(crate) fn new(text: Text, limits: &Limits) -> Result<Self, CorpusError> {
        Ok(match is_array(text.head()) {
            true => Self::Array(ArrayReader::new(text, limits.line_bytes())?),
            false => Self::Lines(LineReader::new(text, limits.line_bytes())),
        })
    }

    /// Goes to the next object. `false` at the end.
    pub(crate) fn advance(&mut self) -> Result<bool, CorpusError> {
        match self {
            Self::Lines(lines) => lines.advance(),
            Self::Array(array) => array.advance(),
        }
    }

    /// Returns the text of the object.
    pub(crate) fn text(&self) -> Result<&str, CorpusError> {
        match self {
            Self::Lines(lines) => lines.text(),
            Self::Array(array) => array.text(),
        }
    }

    /// Returns the place of the object.
    pub(crate) fn place(&self) -> Place {
        match self {
            Self::Lines(lines) => lines.place(),
            Self::Array(array) => array.place(),
        }
    }

    /// Returns the bytes of the file read since the last call.
    pub(crate) fn take_bytes(&mut self) -> u64 {
        match self {
            Self::Lines(lines) => lines.take_bytes(),
            Self::Array(array) => array.take_bytes(),
        }
    }
}

/// Texts of the objects of a JSON file, each with its place. It ends after the first error.
pub struct JsonObjects {
    objects: Objects,
    done: bool,
}

impl JsonObjects {
    /// Opens a file or a pipe, compressed or not; `-` stands for stdin.
    ///
    /// # Errors
    /// [`CorpusError`] if it cannot be read.
    pub fn open(path: &Path) -> Result<Self, CorpusError> {
        let limits = Limits::default();
        let text = input::source(path)?.open(&limits)?;
        Ok(Self { objects: Objects::new(text, &limits)?, done: false })
    }

    fn next_object(&mut self) -> Result<Option<(Place, String)>, CorpusError> {
        match self.objects.advance()? {
            true => Ok(Some((self.objects.place(), self.objects.text()?.to_owned()))),
            false => Ok(None),
        }
    }
}

impl Iterator for JsonObjects {
    type Item = Result<(Place, String), CorpusError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let object = self.next_object().transpose();
        self.done = !matches!(object, Some(Ok(_)));
        object
    }
}

impl FusedIterator for JsonObjects {}

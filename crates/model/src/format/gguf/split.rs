//! The parts of a split GGUF, `NAME-00001-of-00003.gguf` and so on.
//!
//! In: the path of one part and its metadata. Out: the paths of all, and refusals of parts that are
//! missing or do not belong together. It does not read files.

use std::path::{Path, PathBuf};

use crate::error::LoadError;
use crate::format::gguf::header::{GgufHeader, Metadata, MetadataValue};

/// Largest number of parts; a name has five digits for it.
const PARTS_MAX: u64 = 99_999;
/// Largest number of parts that are opened, so that no file makes a program open files without end.
const OPEN_MAX: u64 = 512;

/// Statements of every part about the whole.
pub(crate) struct Split {
    parts: usize,
    /// Number of tensors in all parts together, where it is stated.
    tensors: Option<u64>,
}

/// The name of a part.
pub(crate) struct PartName<'a> {
    stem: &'a str,
    parts: usize,
}

impl<'a> PartName<'a> {
    /// Takes a file's name apart; `None` for one that is no part's.
    pub(crate) fn of(name: &'a str) -> Option<Self> {
        let (rest, parts) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let number_of = |digits: &str| {
            let all_digits = digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit());
            all_digits.then(|| digits.parse().ok()).flatten()
        };
        let (number, parts): (usize, usize) = (number_of(number)?, number_of(parts)?);
        (1..=parts).contains(&number).then_some(Self { stem, parts })
    }

    /// Returns the names of all parts, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = String> {
        let Self { stem, parts, .. } = self;
        (1..=*parts).map(move |number| format!("{stem}-{number:05}-of-{parts:05}.gguf"))
    }
}

impl Split {
    /// Reads what the metadata of the part at `path` say; `None` for a whole file.
    pub(super) fn of(path: &Path, metadata: &Metadata) -> Result<Option<Self>, LoadError> {
        let Some(count) = metadata.get("split.count") else { return Ok(None) };
        let parts = count.size().filter(|count| *count <= PARTS_MAX);
        let damaged = |what| Err(LoadError::Gguf { path: path.to_owned(), what });
        match parts {
            None => damaged(format!("split.count is not a number up to {PARTS_MAX}")),
            Some(0 | 1) => Ok(None),
            Some(parts) if parts > OPEN_MAX => {
                let feature = format!("{parts} files of one GGUF, {OPEN_MAX} at most");
                Err(LoadError::Unsupported { feature })
            }
            Some(parts) => {
                let tensors = metadata.get("split.tensors.count").and_then(MetadataValue::size);
                Ok(Some(Self { parts: parts as usize, tensors }))
            }
        }
    }

    /// Returns the paths of all parts, which lie beside the one at `path`.
    pub(super) fn paths(&self, path: &Path) -> Result<Vec<PathBuf>, LoadError> {
        let parts = self.parts;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(part) = PartName::of(name).filter(|part| part.parts == parts) else {
            let what = format!(
                "it is one of {parts} parts, and its name does not say which: call it \
                 NAME-00001-of-{parts:05}.gguf if it is the first, and so on, beside the others"
            );
            return Err(LoadError::Gguf { path: path.to_owned(), what });
        };
        let paths: Vec<PathBuf> = part.all().map(|name| path.with_file_name(name)).collect();
        let missing: Vec<&PathBuf> = paths.iter().filter(|path| !path.exists()).collect();
        let Some(first) = missing.first() else { return Ok(paths) };
        let what = format!(
            "{} of the {parts} parts of this model are missing, this one first: all lie in one folder",
            missing.len()
        );
        Err(LoadError::Gguf { path: (*first).clone(), what })
    }

    /// Refuses a file that is not part `index` of this split.
    pub(super) fn check(
        &self,
        index: usize,
        path: &Path,
        header: &GgufHeader,
    ) -> Result<(), LoadError> {
        let own = |key: &str| header.metadata.get(key).and_then(MetadataValue::size);
        let (number, parts) = (own("split.no"), own("split.count"));
        let tensors = own("split.tensors.count");
        if number == Some(index as u64)
            && parts == Some(self.parts as u64)
            && tensors == self.tensors
        {
            return Ok(());
        }
        let said = |value: Option<u64>| value.map_or("none".to_owned(), |value| value.to_string());
        let what = format!(
            "it is not part {} of {} by its metadata, which say split.no {}, split.count {} and \
             split.tensors.count {}: the parts are of several models, or renamed",
            index + 1,
            self.parts,
            said(number),
            said(parts),
            said(tensors),
        );
        Err(LoadError::Gguf { path: path.to_owned(), what })
    }

    /// Refuses parts that have not as many tensors together as they state.
    pub(super) fn check_tensors(&self, path: &Path, found: usize) -> Result<(), LoadError> {
        match self.tensors {
            Some(stated) if stated != found as u64 => {
                let what = format!("its parts have {found} tensors together, they state {stated}");
                Err(LoadError::Gguf { path: path.to_owned(), what })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts_are_taken_apart() {
        let part = PartName::of("a-b-00002-of-00003.gguf").unwrap();
        assert_eq!((part.stem, part.parts), ("a-b", 3));
        let all: Vec<String> = part.all().collect();
        assert_eq!(all[0], "a-b-00001-of-00003.gguf");
        assert_eq!((all.len(), all[2].as_str()), (3, "a-b-00003-of-00003.gguf"));
        for other in [
            "a.gguf",
            "a-00000-of-00003.gguf",
            "a-00004-of-00003.gguf",
            "a-1-of-3.gguf",
            "a-00001-of-00003.bin",
            "a-+0001-of-00003.gguf",
        ] {
            assert!(PartName::of(other).is_none(), "{other}");
        }
    }
}

//! The files of a folder that hold weights.
//!
//! In: a folder. Out: paths. It does not read weights.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::LoadError;
use crate::format::gguf::split::PartName;
use crate::format::json;

/// The file that says which of several files holds a tensor.
#[derive(Deserialize)]
struct SafetensorsIndex {
    weight_map: HashMap<String, String>,
}

/// Returns the files that hold the weights; `None` if there are none. An index beside
/// `model.safetensors` belongs to former weights: transformers does not read it either.
pub(crate) fn weight_files(folder: &Path) -> Result<Option<Vec<PathBuf>>, LoadError> {
    let whole = folder.join("model.safetensors");
    if whole.exists() {
        return Ok(Some(vec![whole]));
    }
    let index = folder.join("model.safetensors.index.json");
    let Some(text) = json::read_json(&index)? else { return Ok(None) };
    let SafetensorsIndex { weight_map } = json::parse_json(&index, &text)?;
    let names: BTreeSet<String> = weight_map.into_values().collect();
    if let Some(name) = names.iter().find(|name| name.contains(['/', '\\'])) {
        return Err(json::json_error(&index)(format!(
            "it names {name:?}, which is in another folder"
        )));
    }
    Ok(Some(names.iter().map(|name| folder.join(name)).collect()))
}

/// Returns the paths of all parts of the GGUF at `path`: of itself, if its name is no part's.
pub(crate) fn gguf_parts(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str());
    match name.and_then(PartName::of) {
        Some(part) => part.all().map(|name| path.with_file_name(name)).collect(),
        None => vec![path.to_owned()],
    }
}

/// Returns the GGUF of a folder that has exactly one, or the first part of one that is split.
pub(crate) fn only_gguf(folder: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|e| e == "gguf")).collect();
    files.sort_unstable();
    let first = files.first()?;
    let parts = gguf_parts(first);
    let together = files.iter().all(|file| parts.contains(file));
    (together && first.exists()).then(|| first.clone())
}

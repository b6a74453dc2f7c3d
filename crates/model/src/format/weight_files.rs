//! The files of a folder that hold weights.
//!
//! In: a folder. Out: paths. It does not read weights.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::LoadError;
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

/// Returns the GGUF of a folder that has exactly one.
pub(crate) fn only_gguf(folder: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files = files.filter(|path| path.extension().is_some_and(|e| e == "gguf"));
    files.next().filter(|path| path.exists() && files.next().is_none())
}

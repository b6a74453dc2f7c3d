//! Tells paths of models from ids of the hub, and says what is near a path that leads nowhere.
//!
//! In: a name that is no existing path. Out: an id, or an error with near names. It fetches nothing.

use std::path::{Path, PathBuf};

use strsim::damerau_levenshtein;

use crate::error::LoadError;
use crate::fetch::hub::HubId;

/// Ends of names of model files.
const EXTENSIONS: [&str; 8] =
    [".gguf", ".safetensors", ".json", ".bin", ".pt", ".pth", ".onnx", ".ggml"];

/// Number of entries of a folder that are compared with a name.
const COMPARED_MAX: usize = 4096;
/// Number of near names in a message.
const NEAR_MAX: usize = 4;

/// Returns the id of the hub that `name` is; `None` if it looks like a path. `ORG/NAME` and
/// `ORG/NAME/FILE.gguf` may be both: they are paths if there is a folder `ORG` here, unless a revision follows.
/// So is any name beside which there is one that differs by little, and `ORG/NAME` that ends like a file.
pub(crate) fn hub_id(name: &str) -> Option<HubId> {
    let id = HubId::parse(name)?;
    let path = without_revision(name);
    if ends_like_file(path) && path.split('/').count() == 2 {
        return None;
    }
    let as_path = || first_folder(name).is_some() || !near(Path::new(name)).is_empty();
    (name.contains('@') || !as_path()).then_some(id)
}

/// Whether `name`, which is no id of the hub, looks like a path.
pub(crate) fn is_path(name: &str) -> bool {
    name.contains(['/', '\\'])
        || name.starts_with(['.', '~'])
        || ends_like_file(without_revision(name))
}

fn without_revision(name: &str) -> &str {
    name.split_once('@').map_or(name, |(path, _)| path)
}

fn ends_like_file(path: &str) -> bool {
    EXTENSIONS.iter().any(|extension| path.ends_with(extension))
}

/// Returns the first part of a name if there is a folder of that name here.
fn first_folder(name: &str) -> Option<&str> {
    let first = name.split_once('/').map(|(first, _)| first);
    first.filter(|first| !first.is_empty() && Path::new(first).is_dir())
}

/// Makes the error of a path that leads nowhere.
pub(crate) fn missing(name: &str) -> LoadError {
    let path = Path::new(name);
    let file = without_revision(name);
    let why = match (near(path), folder_of(path)) {
        _ if name.starts_with("~/") => "; no shell has put a folder in the place of ~".to_owned(),
        _ if file != name && Path::new(file).exists() => {
            format!("; there is {file}, and a file has no revision")
        }
        (near, _) if !near.is_empty() => format!("; near it is {}", near.join(", ")),
        _ if HubId::parse(name).is_some()
            && !ends_like_file(file)
            && first_folder(name).is_some() =>
        {
            let first = first_folder(name).unwrap_or_default();
            format!(
                "; as there is a folder {first} here, this is a path: {name}@main is the model of the hub"
            )
        }
        (_, folder) if !folder.is_dir() => {
            format!("; there is no folder {} either", folder.display())
        }
        _ => String::new(),
    };
    LoadError::NoFile { path: path.to_owned(), why }
}

/// Returns the folder in which a path lies.
fn folder_of(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    folder.unwrap_or(Path::new(".")).to_owned()
}

/// Lists the names in the folder of `path` that differ from it by little, the nearest first.
fn near(path: &Path) -> Vec<String> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let folder = folder_of(path);
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten().take(COMPARED_MAX);
    let wanted = name.to_lowercase();
    let most = (wanted.chars().count() / 4).clamp(1, 4);
    let mut found: Vec<(usize, String)> = entries
        .filter_map(|entry| {
            let other = entry.file_name().into_string().ok()?;
            let distance = damerau_levenshtein(&wanted, &other.to_lowercase());
            let place = path.with_file_name(other).to_str()?.to_owned();
            (distance <= most).then_some((distance, place))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, place)| place).take(NEAR_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_path_is_none_of_the_hub() {
        for path in [
            "models/x.gguf",
            "models/x.gguf@main",
            "x.gguf",
            "x.gguf@main",
            // The folder of this file.
            "src/x",
            "src/x/y.gguf",
            "models/x.safetensors",
            "./org/name",
            "../org/name",
            "/org/name",
            "~/name",
            "org\\name",
            "org/name/",
            "a/b/c",
        ] {
            assert!(hub_id(path).is_none() && is_path(path), "{path}");
        }
        for id in ["org/name", "org/name-2.5", "org/name@v1", "org/name/x.gguf", "o/n/x.gguf@v1"]
            .into_iter()
            .chain(["src/x@main"])
        {
            assert!(hub_id(id).is_some(), "{id}");
        }
        assert!(hub_id("smollm").is_none() && !is_path("smollm"));
    }

    #[test]
    fn near_names_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        for name in ["Bees-q4.gguf", "bees-q8.gguf", "other.gguf"] {
            std::fs::write(at(name), "").unwrap();
        }
        let said = |name: &str| missing(&at(name)).to_string();
        let near = format!("near it is {}, {}", at("Bees-q4.gguf"), at("bees-q8.gguf"));
        assert!(said("bees-p4.gguf").ends_with(&near), "{}", said("bees-p4.gguf"));
        assert!(said("hive.gguf").ends_with("there is no such file or folder"));
        assert!(said("none/hive.gguf").contains("there is no folder"));
        assert!(missing("~/x.gguf").to_string().contains("no shell"));
    }
}

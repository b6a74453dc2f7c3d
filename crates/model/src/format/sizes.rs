//! Sizes of a model whose weights need not be here: a GGUF file, a `config.json` or a folder in, a configuration
//! out.

use std::path::Path;

use crate::arch::config::Config;
use crate::error::LoadError;
use crate::format::config_json::ModelJson;
use crate::format::json;
use crate::format::model_file::ModelFile;

impl Config {
    /// Reads the sizes of the model at `path`: a GGUF file, whose header is enough, a `config.json`, or a folder
    /// with one.
    ///
    /// # Errors
    /// [`LoadError`] for a path that has no sizes, or a model that is not supported.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let inside = path.join("config.json");
        let file = if path.is_dir() && inside.exists() { &inside } else { path };
        let is_json = file.extension().is_some_and(|extension| extension == "json");
        match if is_json { json::read_json(file)? } else { None } {
            Some(text) => Ok(ModelJson::read(file, &text)?.config),
            None => Ok(ModelFile::open(path)?.config().clone()),
        }
    }
}

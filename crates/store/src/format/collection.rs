//! The list of stores that answer as one: text comes in, folders go out. It opens no file.

use std::collections::HashSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Usual name of the list.
pub const COLLECTION: &str = "collection.json";
/// Largest list, in bytes.
pub const COLLECTION_BYTES_MAX: u64 = 1 << 20;
/// Version of the list.
const VERSION: u32 = 1;
/// Largest number of stores in a list.
const STORES_MAX: usize = 1000;

/// A list of stores that answer as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collection {
    format: u32,
    /// Folders of the stores, in the order in which their documents would stand in one store. A relative path
    /// starts at the folder of the list.
    pub stores: Vec<PathBuf>,
}

impl Collection {
    /// Parses a list.
    ///
    /// # Errors
    /// A sentence on what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, CollectionFault> {
        let list: Self = serde_json::from_str(text)
            .map_err(|error| CollectionFault(format!("no list of stores: {error}")))?;
        if list.format != VERSION {
            let version = list.format;
            let what = format!("its format is {version}, and this program knows {VERSION}");
            return Err(CollectionFault(what));
        }
        if list.stores.is_empty() || list.stores.len() > STORES_MAX {
            let stores = list.stores.len();
            return Err(CollectionFault(format!(
                "it has {stores} stores, and 1 to {STORES_MAX} are allowed"
            )));
        }
        let other = |store: &&PathBuf| {
            let text = store.to_string_lossy();
            text.is_empty() || text.contains("://")
        };
        if let Some(store) = list.stores.iter().find(other) {
            let what = format!("it names {:?}, and a list names folders alone", store.display());
            return Err(CollectionFault(what));
        }
        let mut seen = HashSet::new();
        match list.stores.iter().find(|store| !seen.insert(*store)) {
            Some(store) => Err(CollectionFault(format!("it names {} twice", store.display()))),
            None => Ok(list),
        }
    }
}

/// Says what is wrong with a list of stores.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CollectionFault(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_of_this_format_and_names_each_store_once() {
        let list = Collection::parse(r#"{"format": 1, "stores": ["a", "/b/c"]}"#).unwrap();
        assert_eq!(list.stores, ["a", "/b/c"].map(PathBuf::from));
        for (text, what) in [
            (r#"{"format": 2, "stores": ["a"]}"#, "its format is 2, and this program knows 1"),
            (r#"{"format": 1, "stores": []}"#, "it has 0 stores, and 1 to 1000 are allowed"),
            (r#"{"format": 1, "stores": ["a", "b", "a"]}"#, "it names a twice"),
            (
                r#"{"format": 1, "stores": ["a", "s3://b/c"]}"#,
                "it names \"s3://b/c\", and a list names folders alone",
            ),
        ] {
            assert_eq!(Collection::parse(text).unwrap_err().to_string(), what);
        }
        for text in ["", "[]", r#"{"stores": ["a"]}"#, r#"{"format": 1, "stores": ["a"], "b": 1}"#]
        {
            let error = Collection::parse(text).unwrap_err().to_string();
            assert!(error.starts_with("no list of stores: "), "{error}");
        }
    }
}

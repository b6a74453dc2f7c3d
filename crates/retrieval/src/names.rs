//! Names of the files of an index that list its other files.

/// File that lists the segments; written last, replaced in one step.
pub(crate) const META_FILE: &str = "meta.json";

/// File that lists the files that tantivy may remove.
pub(crate) const MANAGED_FILE: &str = ".managed.json";

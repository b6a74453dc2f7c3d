//! Places that stores are exported to and read from: a URL or a folder comes in, an open place goes out. Nothing is
//! sent before something is asked for.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyperrag_core::{FileTier, Tier, TierError, TierRole};
use hyperrag_tiers::{RedisSpec, S3Spec, TierSpec};

use crate::open::tiers::{OpenTier, TierLogins};
use crate::shared::error::ShareError;

/// A place of a store that several machines share.
#[derive(Clone)]
pub struct SharedPlace {
    /// Name of the place, without secrets: equal for equal places.
    pub name: String,
    /// The place as one of blocks.
    pub blocks: Arc<dyn Tier>,
    /// The place as one of files.
    pub files: Arc<dyn FileTier>,
    /// Whether it holds whole shards, and no single blocks.
    pub whole_shards: bool,
    /// Longest time to wait for bytes.
    pub patience: Duration,
}

impl fmt::Debug for SharedPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedPlace").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Whether a text is the URL of a place, and no path.
#[must_use]
pub fn is_url(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

impl SharedPlace {
    /// Opens `s3://BUCKET/PREFIX`, `redis://HOST:PORT,HOST:PORT`, `rediss://..`, `file:///FOLDER` or a folder.
    /// Secrets come from `logins`.
    ///
    /// # Errors
    /// [`ShareError::Spec`] for a text that is none of these, [`ShareError::NoPlace`] for a tier that holds no
    /// store, [`ShareError::Opening`] for settings that cannot be.
    pub fn open(text: &str, logins: &TierLogins) -> Result<Self, ShareError> {
        let spec = match is_url(text) {
            true => text.parse()?,
            false => TierSpec::Folder { folder: text.into() },
        };
        let spec = match spec {
            TierSpec::Folder { folder } => TierSpec::Folder { folder: full(&folder)? },
            spec => spec,
        };
        let no_place = || ShareError::NoPlace { tier: spec.to_string() };
        let name = name(&spec).ok_or_else(no_place)?;
        let opened = OpenTier::open(&spec, logins, 0)?.ok_or_else(no_place)?;
        let OpenTier { tier: blocks, files, patience, .. } = opened;
        let files = files.ok_or_else(no_place)?;
        let whole_shards = !matches!(spec, TierSpec::Redis(_));
        Ok(Self { name, blocks, files, whole_shards, patience })
    }
}

/// Returns the absolute path of a folder.
fn full(folder: &Path) -> Result<std::path::PathBuf, ShareError> {
    std::path::absolute(folder).map_err(|source| {
        let place = folder.display().to_string();
        ShareError::Place { place, source: TierError::Refused(source.to_string()) }
    })
}

/// Returns the name of a place that holds all of a store; `None` for other tiers.
fn name(spec: &TierSpec) -> Option<String> {
    Some(match spec {
        TierSpec::Folder { folder } => {
            format!("file://{}", folder.display()).trim_end_matches('/').to_owned()
        }
        TierSpec::S3(S3Spec { bucket, prefix, .. }) => {
            format!("s3://{bucket}/{prefix}").trim_end_matches('/').to_owned()
        }
        // What keeps only what was read lately is no place of a store.
        TierSpec::Redis(RedisSpec { role: Some(TierRole::Cache), .. }) => return None,
        TierSpec::Redis(RedisSpec { tls, nodes, prefix, .. }) => {
            let scheme = if *tls { "rediss" } else { "redis" };
            let prefix = prefix.as_deref().unwrap_or("hr1");
            format!("{scheme}://{}?prefix={prefix}", nodes.join(","))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_one_name_and_no_secret_is_repeated() {
        let name = |text: &str| SharedPlace::open(text, &TierLogins::default()).unwrap().name;
        assert_eq!(name("file:///a/b/"), "file:///a/b");
        assert_eq!(name("/a/b"), name("file:///a/b"));
        assert_eq!(name("redis://h:1,i:2?copies=1"), "redis://h:1,i:2?prefix=hr1");
        let refused =
            |text: &str| SharedPlace::open(text, &TierLogins::default()).unwrap_err().to_string();
        for text in [
            "ftp://h/x",
            "file://host/x",
            "file:///a%20b",
            "redis://u:secret@h:1",
            "redis://h?role=cache",
            "s3://k:secret@b/x",
            "redis://h?copies=x",
        ] {
            let said = refused(text);
            assert!(!said.contains("secret"), "{said}");
        }
        assert!(is_url("s3://b") && !is_url("/a") && !is_url("a://b/c".trim_start_matches('a')));
    }
}

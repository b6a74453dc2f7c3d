//! Words for tiers. In: text, as a user writes it. Out: what it names, or what is wrong with it and what would be
//! right. It opens nothing, and keeps no secret: one in a URL is refused and not repeated.

mod error;
mod list;
mod quantity;
mod url;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use error::SpecError;
use error::shown;
pub use list::parse_tiers;
use quantity::Amount;
pub use quantity::parse_bytes;
pub use url::{ClaimPlace, ReadFrom, RedisSpec, S3Spec};

/// A tier as a user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TierSpec {
    /// `device:20GiB`: memory of the GPU.
    Device {
        /// Budget, in bytes.
        bytes: u64,
    },
    /// `ram:4GiB`: memory of the process.
    Ram {
        /// Budget, in bytes.
        bytes: u64,
    },
    /// `cache:/nvme/hr:400GiB`: files in a folder of a fast drive.
    Cache {
        /// Folder, which is the cache's own.
        folder: PathBuf,
        /// Budget, in bytes.
        bytes: u64,
    },
    /// `store`: the store itself.
    Store,
    /// `/path`, `folder:path` or `file:///path`: a folder of shards.
    Folder {
        /// Folder.
        folder: PathBuf,
    },
    /// `redis://host:port,host:port?option=value` or `rediss://`: Redis or Valkey.
    Redis(RedisSpec),
    /// `s3://bucket/prefix?option=value`: an object store.
    S3(S3Spec),
}

impl FromStr for TierSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(SpecError::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(SpecError::Control);
        }
        if text == "store" {
            return Ok(Self::Store);
        }
        if text.starts_with('/') {
            return folder(text).map(|folder| Self::Folder { folder });
        }
        let unknown = || SpecError::Unknown { tier: shown(text) };
        let (kind, rest) = text.split_once(':').ok_or_else(unknown)?;
        match (kind, rest.strip_prefix("//")) {
            ("redis" | "rediss", Some(rest)) => {
                RedisSpec::parse(kind == "rediss", rest).map(Self::Redis)
            }
            ("s3", Some(rest)) => S3Spec::parse(rest).map(Self::S3),
            ("file", Some(rest)) => file_url(rest).map(|folder| Self::Folder { folder }),
            ("folder", _) => folder(rest).map(|folder| Self::Folder { folder }),
            ("device", _) => Ok(Self::Device { bytes: parse_bytes(rest)? }),
            ("ram", _) => Ok(Self::Ram { bytes: parse_bytes(rest)? }),
            // A path may have colons.
            ("cache", _) => match rest.rsplit_once(':') {
                Some((path, size)) if !path.is_empty() => {
                    Ok(Self::Cache { folder: folder(path)?, bytes: parse_bytes(size)? })
                }
                _ => Err(SpecError::Folder { text: text.to_owned(), usage: "cache:FOLDER:SIZE" }),
            },
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for TierSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device { bytes } => write!(f, "device:{}", Amount(*bytes)),
            Self::Ram { bytes } => write!(f, "ram:{}", Amount(*bytes)),
            Self::Cache { folder, bytes } => {
                write!(f, "cache:{}:{}", folder.display(), Amount(*bytes))
            }
            Self::Store => f.write_str("store"),
            Self::Folder { folder } => write!(f, "folder:{}", folder.display()),
            Self::Redis(redis) => redis.fmt(f),
            Self::S3(s3) => s3.fmt(f),
        }
    }
}

fn folder(path: &str) -> Result<PathBuf, SpecError> {
    let path = path.trim();
    match path {
        "" => Err(SpecError::Folder { text: path.to_owned(), usage: "folder:FOLDER" }),
        path => Ok(Path::new(path).to_owned()),
    }
}

/// Returns the folder of a URL. Signs that mean something else in URLs are refused: `folder:` takes them as
/// they are.
fn file_url(rest: &str) -> Result<PathBuf, SpecError> {
    match rest.starts_with('/') && !rest.contains(['%', '?', '#']) {
        true => folder(rest),
        false => {
            let text = format!("file://{rest}");
            Err(SpecError::Folder { text, usage: "file:///FOLDER or folder:FOLDER" })
        }
    }
}

#[cfg(test)]
mod tests;

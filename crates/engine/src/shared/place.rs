//! Places that stores are exported to and read from: a URL or a folder comes in, an open place goes out. Nothing is
//! sent before something is asked for.

use std::env;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyperrag_core::{FileTier, Tier, TierError};
use hyperrag_tiers::{FolderTier, ObjectLogin, ObjectOptions, ObjectTier, RedisOptions, RedisTier};

use crate::shared::error::ShareError;

/// Longest wait for bytes of a place that is near.
const NEAR: Duration = Duration::from_secs(2);
/// Longest wait for bytes of an object store.
const FAR: Duration = Duration::from_secs(10);
/// Largest file of certificates, in bytes.
const CERTIFICATES_BYTES_MAX: u64 = 4 << 20;

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
    /// Secrets are read from the environment, as programs of AWS and the tiers name them.
    ///
    /// # Errors
    /// [`ShareError::Url`] for a text that is none of these, [`ShareError::Place`] for settings that cannot
    /// be.
    pub fn open(text: &str) -> Result<Self, ShareError> {
        let place = |error| ShareError::Place { place: without_query(text), source: error };
        match text.split_once("://") {
            Some(("s3", rest)) => Self::s3(text, rest).map_err(place),
            Some((scheme @ ("redis" | "rediss"), rest)) => {
                let options = redis_options(scheme == "rediss", rest)?;
                Self::redis(options).map_err(place)
            }
            Some(("file", rest)) if rest.starts_with('/') && !rest.contains(['%', '?', '#']) => {
                Self::folder(Path::new(rest))
            }
            None => Self::folder(Path::new(text)),
            Some(_) => {
                Err(url(text, "write s3://, redis://, rediss://, file:///FOLDER or a folder"))
            }
        }
    }

    fn s3(text: &str, rest: &str) -> Result<Self, TierError> {
        if rest.contains(['@', '?']) {
            let what = "keys and options come from the environment, not from the URL";
            return Err(TierError::Refused(what.to_owned()));
        }
        let endpoint = variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
        let keys = variable("AWS_ACCESS_KEY_ID").zip(variable("AWS_SECRET_ACCESS_KEY"));
        let login = match keys {
            Some((access_key, secret_key)) => {
                let session_token = variable("AWS_SESSION_TOKEN");
                ObjectLogin::Keys { access_key, secret_key, session_token }
            }
            None => ObjectLogin::Unsigned,
        };
        let options = ObjectOptions {
            region: variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")),
            // Who names a server of http:// wants it: there is no other way to reach it.
            allow_http: endpoint.as_ref().is_some_and(|url| url.starts_with("http://")),
            endpoint,
            login,
            ca_pem: variable("AWS_CA_BUNDLE").map(|path| certificates(&path)).transpose()?,
            ..ObjectOptions::new(text)
        };
        let tier = Arc::new(ObjectTier::open(&options)?);
        let name = text.trim_end_matches('/').to_owned();
        Ok(Self {
            name,
            whole_shards: true,
            patience: FAR,
            files: Arc::clone(&tier) as _,
            blocks: tier,
        })
    }

    fn redis(options: RedisOptions) -> Result<Self, TierError> {
        let scheme = if options.tls { "rediss" } else { "redis" };
        let (nodes, prefix) = (options.nodes.join(","), options.prefix.clone());
        let name = format!("{scheme}://{nodes}?prefix={prefix}");
        let tier = Arc::new(RedisTier::open(options)?);
        Ok(Self {
            name,
            whole_shards: false,
            patience: NEAR,
            files: Arc::clone(&tier) as _,
            blocks: tier,
        })
    }

    fn folder(folder: &Path) -> Result<Self, ShareError> {
        let full = std::path::absolute(folder).map_err(|source| {
            let place = folder.display().to_string();
            ShareError::Place { place, source: TierError::Refused(source.to_string()) }
        })?;
        let tier = Arc::new(FolderTier::new(&full));
        let name = format!("file://{}", full.display());
        let name = name.trim_end_matches('/').to_owned();
        Ok(Self {
            name,
            whole_shards: true,
            patience: NEAR,
            files: Arc::clone(&tier) as _,
            blocks: tier,
        })
    }
}

/// Returns a URL without what may be a secret.
fn without_query(text: &str) -> String {
    let text = text.split('?').next().unwrap_or_default();
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    if scheme.is_empty() { rest.to_owned() } else { format!("{scheme}://{rest}") }
}

fn url(text: &str, what: &'static str) -> ShareError {
    ShareError::Url { url: without_query(text), what }
}

/// Reads nodes and the options `prefix` and `copies`.
fn redis_options(tls: bool, rest: &str) -> Result<RedisOptions, ShareError> {
    let (nodes, query) = rest.split_once('?').unwrap_or((rest, ""));
    if nodes.contains('@') {
        return Err(url(nodes, "user and password come from the environment"));
    }
    let default = RedisOptions::default();
    let ca = variable("HYPERRAG_REDIS_CA").filter(|_| tls).map(|path| certificates(&path));
    let ca = ca
        .transpose()
        .map_err(|source| ShareError::Place { place: without_query(nodes), source })?;
    let mut options = RedisOptions {
        nodes: nodes.trim_end_matches('/').split(',').map(str::to_owned).collect(),
        tls,
        ca,
        username: variable("HYPERRAG_REDIS_USERNAME"),
        password: variable("HYPERRAG_REDIS_PASSWORD"),
        ..default
    };
    for option in query.split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("prefix", prefix)) => options.prefix = prefix.to_owned(),
            Some(("copies", copies)) => {
                options.copies = copies.parse().map_err(|_| url(nodes, "copies is a number"))?;
            }
            // What keeps only what is read lately is no place of a store.
            Some(("role", "home")) => {}
            _ => return Err(url(nodes, "its options are prefix, copies and role=home")),
        }
    }
    Ok(options)
}

fn variable(name: &str) -> Option<String> {
    let value = env::var(name).ok()?.trim().to_owned();
    (!value.is_empty()).then_some(value)
}

/// Reads a file of certificates.
fn certificates(path: &str) -> Result<Vec<u8>, TierError> {
    let path = PathBuf::from(path);
    let failed = |error: io::Error| TierError::Refused(format!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = File::open(&path).map_err(failed)?;
    file.take(CERTIFICATES_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > CERTIFICATES_BYTES_MAX {
        true => Err(TierError::Refused(format!("{}: too long for certificates", path.display()))),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_one_name_and_no_secret_is_repeated() {
        let name = |text: &str| SharedPlace::open(text).unwrap().name;
        assert_eq!(name("file:///a/b/"), "file:///a/b");
        assert_eq!(name("/a/b"), name("file:///a/b"));
        assert_eq!(name("redis://h:1,i:2?copies=1"), "redis://h:1,i:2?prefix=hr1");
        let refused = |text: &str| SharedPlace::open(text).unwrap_err().to_string();
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

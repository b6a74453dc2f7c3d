//! The place of objects: a bucket, below a prefix. In: options and names. Out: whole small objects,
//! lengths, and paths. Knows no block.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use hyperrag_core::TierError;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, ClientOptions, GetOptions, ObjectStore, ObjectStoreExt, RetryConfig,
};

use super::health::Health;
use super::http::{Clients, Failure};
use super::options::{ObjectLogin, ObjectOptions};
use super::retry::repeated;
use crate::names::check_file_name;

/// Metadata of an object that names its writer's attempt.
const WRITER: &str = "hyperrag-writer";

/// Variables by which AWS tells a machine its role.
const ROLES: [(&str, AmazonS3ConfigKey); 7] = [
    ("AWS_WEB_IDENTITY_TOKEN_FILE", AmazonS3ConfigKey::WebIdentityTokenFile),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    ("AWS_ENDPOINT_URL_STS", AmazonS3ConfigKey::StsEndpoint),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", AmazonS3ConfigKey::ContainerCredentialsRelativeUri),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", AmazonS3ConfigKey::ContainerCredentialsFullUri),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", AmazonS3ConfigKey::ContainerAuthorizationTokenFile),
];

/// A place that holds objects.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) store: Arc<AmazonS3>,
    pub(super) name: String,
    pub(super) endpoint: String,
    prefix: String,
    pub(super) patience: Duration,
    pub(super) health: Health,
    bucket_seen: AtomicBool,
}

/// A small object, whole.
#[derive(Debug)]
pub(super) struct Small {
    pub(super) bytes: Bytes,
    pub(super) e_tag: Option<String>,
    pub(super) writer: Option<String>,
}

impl Place {
    /// Opens the place that the options name. Sends nothing.
    pub(super) fn open(options: &ObjectOptions) -> Result<Self, TierError> {
        let refused = |words: &str| TierError::Refused(format!("{}: {words}", options.shown()));
        let url = reqwest::Url::parse(&options.url).map_err(|_| refused("no URL"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TierError::Refused(
                "a URL with a password: give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
                    .to_owned(),
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refused("a URL without ? and # is needed"));
        }
        if url.scheme() != "s3" {
            return Err(refused("it is not of the form s3://BUCKET/PREFIX"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let bucket = url.host_str().filter(|bucket| {
            bucket.len() >= 3 && bucket.chars().all(plain) && url.port().is_none()
        });
        let bucket =
            bucket.ok_or_else(|| refused("names no bucket, which has at least three letters"))?;
        let prefix = url.path().trim_matches('/');
        if !prefix.is_empty() {
            check_file_name(prefix)?;
        }
        let (store, endpoint) = bucket_of(options, bucket)?;
        Ok(Self {
            store: Arc::new(store),
            name: options.shown(),
            endpoint,
            prefix: prefix.to_owned(),
            patience: options.patience,
            health: Health::default(),
            bucket_seen: AtomicBool::new(false),
        })
    }

    pub(super) fn objects(&self) -> &dyn ObjectStore {
        self.store.as_ref()
    }

    /// Returns the path of a file, if its name is one.
    pub(super) fn path(&self, name: &str) -> Result<Path, TierError> {
        check_file_name(name)?;
        let separator = if self.prefix.is_empty() { "" } else { "/" };
        Path::parse(format!("{}{separator}{name}", self.prefix))
            .map_err(|error| TierError::Refused(error.to_string()))
    }

    /// Returns length and `ETag` of an object.
    pub(super) async fn head(&self, path: &Path) -> Result<(u64, Option<String>), Failure> {
        let head = || async { self.objects().head(path).await.map_err(Failure::unconditional) };
        let mut found = repeated(self.patience, head).await;
        // A HEAD says of an absent bucket no more than of an absent object. A GET does.
        if matches!(found, Err(Failure::Absent)) && !self.bucket_seen.load(Relaxed) {
            match self.small(path, 0).await {
                // It came meanwhile.
                Ok(_) | Err(Failure::TooLong(_)) => found = repeated(self.patience, head).await,
                Err(failure) => return Err(failure),
            }
        }
        let meta = found?;
        self.bucket_seen.store(true, Relaxed);
        Ok((meta.size, meta.e_tag))
    }

    /// Reads an object of at most `bytes_max` bytes.
    pub(super) async fn small(&self, path: &Path, bytes_max: u64) -> Result<Small, Failure> {
        let small = repeated(self.patience, || self.small_once(path, bytes_max)).await;
        // The answer came from a bucket that is there.
        if matches!(small, Ok(_) | Err(Failure::Absent | Failure::TooLong(_))) {
            self.bucket_seen.store(true, Relaxed);
        }
        small
    }

    async fn small_once(&self, path: &Path, bytes_max: u64) -> Result<Small, Failure> {
        let got = self.objects().get_opts(path, GetOptions::new()).await;
        let got = got.map_err(Failure::unconditional)?;
        let size = got.meta.size;
        if size > bytes_max {
            return Err(too_long(path, size, bytes_max));
        }
        let e_tag = got.meta.e_tag.clone();
        let writer = got.attributes.get(&Attribute::Metadata(WRITER.into()));
        let writer = writer.map(|writer| writer.to_string());
        let mut body = got.into_stream();
        let mut bytes = BytesMut::new();
        while let Some(more) = body.next().await {
            bytes.extend_from_slice(&more?);
            if bytes.len() as u64 > size {
                break;
            }
        }
        if bytes.len() as u64 != size {
            let words = format!("{} bytes instead of {size}", bytes.len());
            return Err(TierError::Protocol(words).into());
        }
        Ok(Small { bytes: bytes.freeze(), e_tag, writer })
    }

    /// Returns the attribute that marks an object as written by this attempt.
    pub(super) fn marked(writer: &str) -> Attributes {
        Attributes::from_iter([(Attribute::Metadata(WRITER.into()), writer.to_owned())])
    }
}

/// Returns the error of a file that is longer than its reader wants.
pub(super) fn too_long(path: &Path, bytes: u64, bytes_max: u64) -> Failure {
    Failure::TooLong(format!("{path} has {bytes} bytes, more than {bytes_max}"))
}

fn bucket_of(options: &ObjectOptions, bucket: &str) -> Result<(AmazonS3, String), TierError> {
    let region = options.region.as_deref().unwrap_or("us-east-1");
    let endpoint = match &options.endpoint {
        Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
        None => format!("https://s3.{region}.amazonaws.com"),
    };
    let url = reqwest::Url::parse(&endpoint).ok().filter(|url| {
        url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
    });
    match url.as_ref().map(reqwest::Url::scheme) {
        Some("https") => {}
        Some("http") if options.allow_http => {}
        Some("http") => {
            return Err(TierError::Refused(format!(
                "{endpoint} sends all in clear: give an https:// endpoint, or allow http"
            )));
        }
        _ => {
            let words = "the endpoint is not of the form https://HOST:PORT, without a password";
            return Err(TierError::Refused(words.to_owned()));
        }
    }
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region)
        .with_endpoint(&endpoint)
        .with_allow_http(options.allow_http)
        .with_client_options(ClientOptions::new().with_allow_http(options.allow_http))
        .with_disable_bulk_delete(true)
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
        .with_http_connector(Clients::new(options.ca_pem.as_deref())?);
    match &options.login {
        ObjectLogin::Keys { access_key, secret_key, session_token } => {
            builder = builder.with_access_key_id(access_key).with_secret_access_key(secret_key);
            if let Some(token) = session_token {
                builder = builder.with_token(token);
            }
        }
        ObjectLogin::Machine { variables } => {
            for (name, value) in variables {
                if let Some((_, key)) = ROLES.iter().find(|(role, _)| role == name) {
                    builder = builder.with_config(*key, value);
                }
            }
        }
        ObjectLogin::Unsigned => builder = builder.with_skip_signature(true),
    }
    let store = builder.build().map_err(|error| TierError::Refused(error.to_string()))?;
    Ok((store, endpoint))
}

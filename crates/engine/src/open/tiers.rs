//! Tiers as a user names them: specifications and logins come in, opened tiers go out. Nothing is sent before
//! something is asked for.

use std::env;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyperrag_core::{Classified, ErrorKind, FileTier, Tier, TierError};
use hyperrag_store::TierChoice;
use hyperrag_tiers::{
    CacheTier, FolderTier, ObjectLogin, ObjectOptions, ObjectTier, RamTier, ReadFrom, Readers,
    RedisOptions, RedisSpec, RedisTier, S3Spec,
};
pub use hyperrag_tiers::{SpecError, TierSpec, parse_tiers};

/// Longest wait for bytes from a place that is near.
const NEAR: Duration = Duration::from_millis(800);
/// Longest wait for bytes from an object store.
const FAR: Duration = Duration::from_secs(10);
/// Length of the longest file of certificates, in bytes.
const CERTIFICATES_BYTES_MAX: u64 = 4 << 20;

/// Reason why a tier cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{tier}: {source}")]
pub struct TierOpenError {
    /// Name of the tier, without secrets.
    pub tier: String,
    /// Cause.
    source: TierError,
}

impl TierOpenError {
    fn new(tier: impl ToString, source: TierError) -> Self {
        Self { tier: tier.to_string(), source }
    }
}

impl Classified for TierOpenError {
    fn kind(&self) -> ErrorKind {
        self.source.kind()
    }
}

/// Secrets and settings of servers.
#[derive(Clone, Default)]
pub struct TierLogins {
    redis_username: Option<String>,
    redis_password: Option<String>,
    redis_ca: Option<PathBuf>,
    object: Option<ObjectLogin>,
    region: Option<String>,
    endpoint: Option<String>,
    ca: Option<PathBuf>,
}

impl TierLogins {
    /// Reads them from the environment: `HYPERRAG_REDIS_USERNAME`, `_PASSWORD` and `_CA`, and the variables
    /// of AWS's own programs.
    #[must_use]
    pub fn from_environment() -> Self {
        let get = |name: &str| env::var(name).ok().map(|value| value.trim().to_owned());
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let keys = get("AWS_ACCESS_KEY_ID").zip(get("AWS_SECRET_ACCESS_KEY"));
        let machine = [
            "AWS_ROLE_ARN",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        ];
        let object = match keys {
            Some((access_key, secret_key)) => {
                let session_token = get("AWS_SESSION_TOKEN");
                Some(ObjectLogin::Keys { access_key, secret_key, session_token })
            }
            None if machine.iter().any(|name| env::var_os(name).is_some()) => {
                let variables = env::vars_os();
                let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                };
                let variables = variables.filter_map(text);
                let variables = variables.filter(|(name, _)| name.starts_with("AWS_"));
                Some(ObjectLogin::Machine { variables: variables.collect() })
            }
            None => None,
        };
        Self {
            redis_username: get("HYPERRAG_REDIS_USERNAME"),
            redis_password: get("HYPERRAG_REDIS_PASSWORD"),
            redis_ca: get("HYPERRAG_REDIS_CA").map(PathBuf::from),
            object,
            region: get("AWS_REGION").or_else(|| get("AWS_DEFAULT_REGION")),
            endpoint: get("AWS_ENDPOINT_URL_S3").or_else(|| get("AWS_ENDPOINT_URL")),
            ca: get("AWS_CA_BUNDLE").map(PathBuf::from),
        }
    }

    fn redis(&self, spec: &RedisSpec) -> Result<RedisOptions, TierError> {
        let default = RedisOptions::default();
        let readers = spec.readers.map(|readers| match readers {
            ReadFrom::Replicas => Readers::Replica,
            ReadFrom::Masters => Readers::Master,
        });
        Ok(RedisOptions {
            nodes: spec.nodes.clone(),
            tls: spec.tls,
            ca: self.redis_ca.as_ref().filter(|_| spec.tls).map(certificates).transpose()?,
            username: self.redis_username.clone(),
            password: self.redis_password.clone(),
            prefix: spec.prefix.clone().unwrap_or(default.prefix),
            role: spec.role.unwrap_or(default.role),
            copies: spec.copies.unwrap_or(default.copies),
            ttl: spec.ttl,
            timeout: spec.timeout.unwrap_or(default.timeout),
            in_flight_bytes: spec.in_flight_bytes.unwrap_or(default.in_flight_bytes),
            readers: readers.unwrap_or(default.readers),
        })
    }

    /// Returns the options of a bucket.
    pub(crate) fn object(&self, spec: &S3Spec) -> Result<ObjectOptions, TierError> {
        let url = format!("s3://{}/{}", spec.bucket, spec.prefix);
        let endpoint = spec.endpoint.clone().or_else(|| self.endpoint.clone());
        Ok(ObjectOptions {
            region: spec.region.clone().or_else(|| self.region.clone()),
            // Who names a server of http:// wants it: there is no other way to reach it.
            allow_http: endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://")),
            endpoint,
            login: self.object.clone().unwrap_or(ObjectLogin::Unsigned),
            ca_pem: self.ca.as_ref().map(certificates).transpose()?,
            ..ObjectOptions::new(url)
        })
    }
}

/// Reads a file of certificates.
fn certificates(path: &PathBuf) -> Result<Vec<u8>, TierError> {
    let failed = |error: std::io::Error| TierError::Refused(format!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(CERTIFICATES_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > CERTIFICATES_BYTES_MAX {
        true => Err(TierError::Refused(format!("{}: too long for certificates", path.display()))),
        false => Ok(bytes),
    }
}

/// A tier that is open.
#[derive(Clone)]
pub struct OpenTier {
    /// Specification by which it was opened.
    pub spec: TierSpec,
    /// The tier.
    pub tier: Arc<dyn Tier>,
    /// Place of whole files, if the tier is one.
    pub files: Option<Arc<dyn FileTier>>,
    /// Longest time to wait for bytes.
    pub patience: Duration,
}

impl OpenTier {
    fn new<T: Tier + 'static>(spec: &TierSpec, tier: T, patience: Duration) -> Self {
        Self { spec: spec.clone(), tier: Arc::new(tier), files: None, patience }
    }

    fn of_files<T: Tier + FileTier + 'static>(
        spec: &TierSpec,
        tier: T,
        patience: Duration,
    ) -> Self {
        let tier = Arc::new(tier);
        let files: Option<Arc<dyn FileTier>> = Some(Arc::clone(&tier) as _);
        Self { spec: spec.clone(), tier, files, patience }
    }

    /// Opens a tier for blocks of at most `block_bytes` bytes. Returns `None` for the store itself.
    ///
    /// # Errors
    /// [`TierOpenError`] for settings that cannot be, or a folder that cannot be used.
    pub fn open(
        spec: &TierSpec,
        logins: &TierLogins,
        block_bytes: u64,
    ) -> Result<Option<Self>, TierOpenError> {
        let failed = |error| TierOpenError::new(spec, error);
        Ok(Some(match spec {
            TierSpec::Store => return Ok(None),
            TierSpec::Device { .. } => {
                let what = "memory of a GPU is not a place for stored blocks yet: leave it out";
                return Err(failed(TierError::Refused(what.to_owned())));
            }
            TierSpec::Ram { bytes } => {
                Self::new(spec, RamTier::for_blocks(*bytes, block_bytes), NEAR)
            }
            TierSpec::Cache { folder, bytes } => {
                Self::new(spec, CacheTier::new(folder, *bytes).map_err(failed)?, NEAR)
            }
            TierSpec::Folder { folder } => Self::of_files(spec, FolderTier::new(folder), NEAR),
            TierSpec::Redis(redis) => {
                let options = logins.redis(redis).map_err(failed)?;
                let patience = redis.timeout.unwrap_or(NEAR);
                Self::of_files(spec, RedisTier::open(options).map_err(failed)?, patience)
            }
            TierSpec::S3(s3) => {
                let options = logins.object(s3).map_err(failed)?;
                Self::of_files(spec, ObjectTier::open(&options).map_err(failed)?, FAR)
            }
        }))
    }
}

/// Opens tiers in the order in which blocks are to be asked for.
///
/// # Errors
/// See [`OpenTier::open`].
pub fn open_tiers(
    specs: &[TierSpec],
    logins: &TierLogins,
    block_bytes: u64,
) -> Result<Vec<TierChoice>, TierOpenError> {
    let open = |spec| {
        let opened = OpenTier::open(spec, logins, block_bytes)?;
        Ok(opened.map_or(TierChoice::Store, |OpenTier { tier, patience, .. }| TierChoice::Tier {
            tier,
            patience,
        }))
    };
    specs.iter().map(open).collect()
}

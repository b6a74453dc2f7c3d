//! The HTTP client of an object store, and the meaning of its failures. In: options of TLS, errors. Out: a
//! client that follows no redirect, and [`Failure`]. Knows no object.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use hyperrag_core::TierError;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Most of an answer's error text that is looked at, in bytes.
const TEXT_MAX: usize = 4096;

/// Maker of clients that trust some authorities.
#[derive(Clone, Debug)]
pub(super) struct Clients(rustls::ClientConfig);

impl Clients {
    /// Trusts the authorities that are compiled in and those of `ca_pem`.
    ///
    /// # Errors
    /// [`TierError::Refused`] if the certificates cannot be read or TLS cannot be set up.
    pub(super) fn new(ca_pem: Option<&[u8]>) -> Result<Self, TierError> {
        let mut roots = rustls::RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        for certificate in ca_pem.into_iter().flat_map(CertificateDer::pem_slice_iter) {
            let unread = |error: &dyn Error| refused("certificates of the authority", error);
            let certificate = certificate.map_err(|error| unread(&error))?;
            roots.add(certificate).map_err(|error| unread(&error))?;
        }
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .map_err(|error| refused("TLS", &error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(tls))
    }
}

impl HttpConnector for Clients {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let plain = options.get_config_value(&ClientConfigKey::AllowHttp);
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(self.0.clone())
            .https_only(plain.as_deref() != Some("true"))
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            .connect_timeout(CONNECT)
            .build();
        let client = client.map_err(|error| object_store::Error::Generic {
            store: "HTTP",
            source: Box::new(error),
        })?;
        Ok(HttpClient::new(Client(client)))
    }
}

fn refused(of: &str, error: &dyn Error) -> TierError {
    TierError::Refused(format!("cannot set up {of}: {error}"))
}

/// Client that turns answers with an error status into [`Status`].
#[derive(Debug)]
struct Client(reqwest::Client);

impl HttpService for Client {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let response = self.0.call(request).await?;
            let status = response.status().as_u16();
            // Those that object_store itself knows; of 404, only the absent object.
            if matches!(status, 0..300 | 304 | 409 | 412) {
                return Ok(response);
            }
            let (parts, body) = response.into_parts();
            let text = text(body.bytes_stream()).await;
            let status = Status { status, code: code(&text) };
            if status.status == 404 && status.code != "NoSuchBucket" {
                return Ok(HttpResponse::from_parts(parts, text.into()));
            }
            Err(HttpError::new(HttpErrorKind::Unknown, status))
        })
    }
}

/// Reads the begin of an error's text; a text that breaks off is good enough.
async fn text(
    mut body: impl futures_util::Stream<Item = Result<bytes::Bytes, HttpError>> + Unpin,
) -> Vec<u8> {
    let mut text = Vec::new();
    while let Some(Ok(bytes)) = body.next().await {
        text.extend(bytes.iter().take(TEXT_MAX - text.len()));
        if text.len() == TEXT_MAX {
            break;
        }
    }
    text
}

/// Returns the error code of S3's XML, empty where there is none.
fn code(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let code = text.split_once("<Code>").map_or("", |(_, rest)| rest);
    code.chars().take_while(char::is_ascii_alphanumeric).take(64).collect()
}

/// Answer with an error status.
#[derive(Debug, thiserror::Error)]
#[error("status {status} {code}")]
pub(super) struct Status {
    status: u16,
    code: String,
}

/// Failure of a request to an object store.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no such object.
    Absent,
    /// The condition of the request does not hold, or another request ran at the same time.
    Conflict,
    /// The object has other contents than those that are being read.
    Changed,
    /// The object is longer than its reader wants.
    TooLong(String),
    /// Anything else.
    Tier(TierError),
}

impl Failure {
    /// Returns the meaning of an error of a request that has no condition, or only one on the version. Status
    /// 409 means that another request runs at the same time: it is worth a second try.
    pub(super) fn unconditional(error: object_store::Error) -> Self {
        match error {
            object_store::Error::AlreadyExists { .. } => {
                let words = "another request for the object runs at the same time";
                Self::Tier(TierError::Unreachable(words.to_owned()))
            }
            error => error.into(),
        }
    }
}

impl From<TierError> for Failure {
    fn from(error: TierError) -> Self {
        Self::Tier(error)
    }
}

impl From<Failure> for TierError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Absent => Self::Protocol("an object is gone".to_owned()),
            Failure::Conflict => {
                Self::Protocol("it tells of a conflict time after time".to_owned())
            }
            Failure::Changed => Self::Protocol("an object changed while it was read".to_owned()),
            Failure::TooLong(words) => Self::Refused(words),
            Failure::Tier(error) => error,
        }
    }
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error as E;
        match &error {
            E::NotFound { .. } => return Self::Absent,
            E::AlreadyExists { .. } | E::Precondition { .. } | E::NotModified { .. } => {
                return Self::Conflict;
            }
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
                return Self::Tier(TierError::Refused(rights("")));
            }
            _ => {}
        }
        if let Some(status) = causes(&error).find_map(|error| error.downcast_ref::<Status>()) {
            return Self::Tier(status.meaning());
        }
        if let Some(http) = causes(&error).find_map(|error| error.downcast_ref::<HttpError>()) {
            return Self::Tier(TierError::Unreachable(deepest(http)));
        }
        if let Some(file) = causes(&error).find_map(|error| error.downcast_ref::<io::Error>()) {
            return Self::Tier(of_file(file));
        }
        Self::Tier(TierError::Protocol(deepest(&error)))
    }
}

impl Status {
    fn meaning(&self) -> TierError {
        let region = |code: &str| {
            [
                "AuthorizationHeaderMalformed",
                "PermanentRedirect",
                "IllegalLocationConstraintException",
            ]
            .contains(&code)
        };
        match (self.status, self.code.as_str()) {
            (401 | 403, code) | (400, code @ ("ExpiredToken" | "InvalidToken")) => {
                TierError::Refused(rights(code))
            }
            (404, _) => TierError::Refused(
                "there is no bucket of this name at the endpoint: \
                check the bucket, the endpoint and the region"
                    .to_owned(),
            ),
            (300..400, code) => TierError::Refused(elsewhere(code)),
            (_, code) if region(code) => TierError::Refused(elsewhere(code)),
            (408 | 429 | 500 | 502..=504, _) | (400, "RequestTimeout") => {
                TierError::Unreachable(self.to_string())
            }
            (507, _) => TierError::Full(self.to_string()),
            (405 | 501, _) => TierError::Refused(format!("{self}: the server lacks this request")),
            _ => TierError::Protocol(self.to_string()),
        }
    }
}

fn rights(code: &str) -> String {
    let code = if code.is_empty() { String::new() } else { format!(" ({code})") };
    format!(
        "no right to the object{code}: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, the bucket and the \
         region; S3 answers so for an absent object too if the key may not list the bucket"
    )
}

fn elsewhere(code: &str) -> String {
    let code = if code.is_empty() { String::new() } else { format!(" ({code})") };
    format!("the bucket is elsewhere{code}: check the region and the endpoint")
}

/// Returns the meaning of a file's error.
pub(super) fn of_file(error: &io::Error) -> TierError {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            TierError::Refused(error.to_string())
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            TierError::Full(error.to_string())
        }
        _ => TierError::Unreachable(error.to_string()),
    }
}

/// Returns an error and its causes.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| Error::source(error))
}

/// Returns the words of the innermost cause, which say most and name no address.
fn deepest(error: &(dyn Error + 'static)) -> String {
    let last = causes(error).last();
    let words = last.map_or_else(String::new, ToString::to_string);
    words.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Makes an absent object a value.
pub(super) fn present<T>(found: Result<T, Failure>) -> Result<Option<T>, TierError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Failure::Absent) => Ok(None),
        Err(failure) => Err(failure.into()),
    }
}

//! Requests to the hub: lists of files, names of blobs, and downloads that go on where they stopped.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::Response;
use ureq::{Agent, Body};

/// Address of the hub, unless `HF_ENDPOINT` names another.
const ENDPOINT: &str = "https://huggingface.co";
/// Largest size of a list of files, in bytes.
const LISTING_BYTES_MAX: u64 = 64 << 20;
/// Largest number of redirections within the hub before it gives the place of the bytes.
const REDIRECTIONS_MAX: usize = 8;

pub(super) struct HubClient {
    endpoint: String,
    token: Option<String>,
    /// Follows redirections anywhere; the token goes to the hub alone.
    follows: Agent,
    stays: Agent,
}

/// Reason why the hub gave nothing.
pub(super) enum Failure {
    /// Status with which the hub refused.
    Status(u16),
    /// Reason why the hub was not reached, or why its answer is of no use.
    Other(String),
}

/// Commit and files of a revision of a model.
#[derive(Deserialize)]
pub(super) struct RevisionListing {
    #[serde(rename = "sha")]
    pub(super) commit: String,
    #[serde(rename = "siblings")]
    pub(super) files: Vec<RevisionFile>,
}

/// A file of a model.
#[derive(Deserialize)]
pub(super) struct RevisionFile {
    #[serde(rename = "rfilename")]
    pub(super) name: String,
}

impl HubClient {
    pub(super) fn new(endpoint: Option<String>, token: Option<String>) -> Self {
        let agent = |redirections| {
            Agent::new_with_config(
                Agent::config_builder()
                    .http_status_as_error(false)
                    .max_redirects(redirections)
                    .redirect_auth_headers(RedirectAuthHeaders::SameHost)
                    .timeout_connect(Some(Duration::from_secs(30)))
                    .timeout_per_read(Some(Duration::from_secs(120)))
                    .user_agent(concat!("hyperrag/", env!("CARGO_PKG_VERSION")))
                    .build(),
            )
        };
        let endpoint = endpoint.unwrap_or_else(|| ENDPOINT.to_owned());
        Self { endpoint, token, follows: agent(10), stays: agent(0) }
    }

    fn get(
        &self,
        agent: &Agent,
        url: &str,
        range: Option<String>,
    ) -> Result<Response<Body>, Failure> {
        let mut request = agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(range) = range {
            request = request.header("range", range);
        }
        request.call().map_err(Failure::other)
    }

    /// Fetches the commit and the files of a revision.
    pub(super) fn listing(&self, repo: &str, revision: &str) -> Result<RevisionListing, Failure> {
        let revision = revision.replace('/', "%2F");
        let url = format!("{}/api/models/{repo}/revision/{revision}", self.endpoint);
        let mut response = succeeded(self.get(&self.follows, &url, None)?)?;
        let body = response.body_mut().with_config().limit(LISTING_BYTES_MAX);
        let text = body.read_to_string().map_err(Failure::other)?;
        serde_json::from_str(&text).map_err(Failure::other)
    }

    pub(super) fn url(&self, repo: &str, commit: &str, file: &str) -> String {
        format!("{}/{repo}/resolve/{commit}/{file}", self.endpoint)
    }

    /// Returns the name in the hub's cache of the bytes at `url`: their SHA-256, or git's name of them.
    pub(super) fn blob(&self, url: &str) -> Result<String, Failure> {
        let mut url = url.to_owned();
        for _ in 0..REDIRECTIONS_MAX {
            let response = self.get(&self.stays, &url, Some("bytes=0-0".to_owned()))?;
            let within = header(&response, "location").filter(|place| place.starts_with('/'));
            if let Some(place) = within.filter(|_| response.status().is_redirection()) {
                url = format!("{}{place}", self.endpoint);
                continue;
            }
            if !response.status().is_redirection() {
                return tag(&succeeded(response)?);
            }
            return tag(&response);
        }
        Err(Failure::Other("it sends in circles".to_owned()))
    }

    /// Appends the missing rest of the bytes at `url` to the file `partial`.
    pub(super) fn download(&self, url: &str, partial: &Path) -> Result<(), Failure> {
        let mut file =
            OpenOptions::new().create(true).append(true).open(partial).map_err(Failure::other)?;
        let mut start = file.metadata().map_err(Failure::other)?.len();
        let from = |start: u64| self.get(&self.follows, url, Some(format!("bytes={start}-")));
        let mut response = from(start)?;
        if start > 0 && response.status() != 206 {
            // The server has fewer bytes, or does not send parts.
            file.set_len(0).map_err(Failure::other)?;
            (start, response) = (0, from(0)?);
        }
        let response = succeeded(response)?;
        let total = header(&response, "content-range").and_then(|range| range.rsplit('/').next());
        let total = total.or_else(|| header(&response, "content-length"));
        let total = total.and_then(|bytes| bytes.parse::<u64>().ok());
        let bar = match total {
            Some(bytes) => ProgressBar::new(bytes).with_style(style()),
            None => ProgressBar::no_length(),
        };
        bar.set_position(start);
        let mut body = bar.wrap_read(response.into_body().into_reader());
        io::copy(&mut body, &mut file).map_err(Failure::other)?;
        bar.finish_and_clear();
        file.sync_all().map_err(Failure::other)?;
        let bytes = file.metadata().map_err(Failure::other)?.len();
        match total.filter(|total| *total != bytes) {
            Some(total) => Err(Failure::Other(format!("it gave {bytes} of {total} bytes"))),
            None => Ok(()),
        }
    }
}

fn style() -> ProgressStyle {
    let template = "{elapsed_precise} {bar:24} {bytes}/{total_bytes}, ETA {eta_precise}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn succeeded(response: Response<Body>) -> Result<Response<Body>, Failure> {
    match response.status().is_success() {
        true => Ok(response),
        false => Err(Failure::Status(response.status().as_u16())),
    }
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// Returns the tag by which an answer names its bytes. It becomes the name of a file.
fn tag(response: &Response<Body>) -> Result<String, Failure> {
    let tag = header(response, "x-linked-etag").or_else(|| header(response, "etag"));
    let tag = tag.unwrap_or_default().trim_start_matches("W/").trim_matches('"');
    let word = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    match (1..=128).contains(&tag.len()) && tag.chars().all(word) {
        true => Ok(tag.to_owned()),
        false => Err(Failure::Other(format!("it names the file's bytes {tag:?}"))),
    }
}

impl Failure {
    fn other(error: impl ToString) -> Self {
        Self::Other(error.to_string())
    }
}

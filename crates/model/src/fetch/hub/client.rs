//! Requests to the hub: lists of files, names of blobs, and downloads that go on where they stopped.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use hyperrag_core::Warning;
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
/// Statuses of a hub that is busy.
const BUSY: [u16; 2] = [429, 503];
/// Number of requests to a busy hub, and longest time between two of them, in seconds.
const REQUESTS_MAX: u32 = 5;
const WAIT_SECONDS_MAX: u64 = 60;

pub(super) struct HubClient {
    endpoint: String,
    token: Option<String>,
    warn: fn(&Warning),
    /// Follows redirections anywhere; the token goes to the hub alone.
    follows: Agent,
    stays: Agent,
}

/// Reason why the hub gave nothing.
pub(super) enum Failure {
    /// Status with which the hub refused.
    Status(u16),
    /// Status with which the hub refused again and again, or for longer than this program waits.
    Busy {
        /// Last status.
        status: u16,
        /// Time that the hub named.
        wait_seconds: Option<u64>,
    },
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
    /// Length in bytes, where the hub states it.
    pub(super) size: Option<u64>,
}

impl HubClient {
    pub(super) fn new(endpoint: Option<String>, token: Option<String>, warn: fn(&Warning)) -> Self {
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
        Self { endpoint, token, warn, follows: agent(10), stays: agent(0) }
    }

    /// Requests once more, after a time, while the hub is busy.
    fn get(
        &self,
        agent: &Agent,
        url: &str,
        range: Option<&str>,
    ) -> Result<Response<Body>, Failure> {
        for request in 1.. {
            let response = self.get_once(agent, url, range)?;
            let status = response.status().as_u16();
            if !BUSY.contains(&status) {
                return Ok(response);
            }
            let asked = header(&response, "retry-after").and_then(seconds);
            let wait = asked.unwrap_or(1 << (request - 1));
            if request >= REQUESTS_MAX || wait > WAIT_SECONDS_MAX {
                return Err(Failure::Busy { status, wait_seconds: asked });
            }
            let what = format!("the hub is busy (status {status}): trying again in {wait} s");
            (self.warn)(&what.into());
            thread::sleep(Duration::from_secs(wait));
        }
        unreachable!("the last request returns")
    }

    fn get_once(
        &self,
        agent: &Agent,
        url: &str,
        range: Option<&str>,
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
        let url = format!("{}/api/models/{repo}/revision/{revision}?blobs=true", self.endpoint);
        let mut response = succeeded(self.get(&self.follows, &url, None)?)?;
        let body = response.body_mut().with_config().limit(LISTING_BYTES_MAX);
        let text = body.read_to_string().map_err(Failure::other)?;
        serde_json::from_str(&text).map_err(Failure::other)
    }

    pub(super) fn url(&self, repo: &str, commit: &str, file: &str) -> String {
        format!("{}/{repo}/resolve/{commit}/{file}", self.endpoint)
    }

    /// Returns the name in the hub's cache of the bytes at `url`: their SHA-256, or git's name of them;
    /// `None` where a mirror does not tell.
    pub(super) fn blob(&self, url: &str) -> Result<Option<String>, Failure> {
        let mut url = url.to_owned();
        for _ in 0..REDIRECTIONS_MAX {
            let response = self.get(&self.stays, &url, Some("bytes=0-0"))?;
            let within = header(&response, "location").filter(|place| place.starts_with('/'));
            if let Some(place) = within.filter(|_| response.status().is_redirection()) {
                url = format!("{}{place}", origin(&self.endpoint));
                continue;
            }
            if !response.status().is_redirection() {
                return Ok(tag(&succeeded(response)?));
            }
            return Ok(tag(&response));
        }
        Err(Failure::Other("it sends in circles".to_owned()))
    }

    /// Appends the missing rest of the bytes at `url` to the file `partial`.
    pub(super) fn download(&self, url: &str, partial: &Path) -> Result<(), Failure> {
        let mut file =
            OpenOptions::new().create(true).append(true).open(partial).map_err(Failure::other)?;
        let mut start = file.metadata().map_err(Failure::other)?.len();
        let from = |start: u64| self.get(&self.follows, url, Some(&format!("bytes={start}-")));
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

/// Returns the tag by which an answer names its bytes; `None` if it has none that can name a file.
fn tag(response: &Response<Body>) -> Option<String> {
    let tag = header(response, "x-linked-etag").or_else(|| header(response, "etag"))?;
    let tag = tag.trim_start_matches("W/").trim_matches('"');
    let word = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    ((1..=128).contains(&tag.len()) && tag.chars().all(word)).then(|| tag.to_owned())
}

/// Returns the seconds of a header that names a time from now, or a date to come.
fn seconds(wait: &str) -> Option<u64> {
    let until = || {
        let date = httpdate::parse_http_date(wait.trim()).ok()?;
        Some(date.duration_since(SystemTime::now()).ok()?.as_secs() + 1)
    };
    wait.trim().parse().ok().or_else(until)
}

/// Returns scheme and host of an address.
fn origin(address: &str) -> &str {
    let host = address.find("://").map_or(0, |at| at + 3);
    address[host..].find('/').map_or(address, |end| &address[..host + end])
}

impl Failure {
    fn other(error: impl ToString) -> Self {
        Self::Other(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_wait_are_seconds_or_dates() {
        assert_eq!(seconds(" 7 "), Some(7));
        // A date that is past says nothing of how long to wait.
        assert_eq!(seconds("Wed, 21 Oct 2015 07:28:00 GMT"), None);
        let soon = SystemTime::now() + Duration::from_secs(30);
        assert!((29..=31).contains(&seconds(&httpdate::fmt_http_date(soon)).unwrap()));
        assert_eq!(seconds("soon"), None);
    }

    #[test]
    fn a_place_on_the_hub_begins_at_its_host() {
        assert_eq!(origin("https://hub.example/mirror"), "https://hub.example");
        assert_eq!(origin("http://127.0.0.1:80"), "http://127.0.0.1:80");
    }
}

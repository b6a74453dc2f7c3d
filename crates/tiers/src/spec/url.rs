//! URLs of servers. In: what follows their scheme. Out: hosts, buckets and options, and a URL that is read back
//! as them.

use std::fmt;
use std::time::Duration;

use hyperrag_core::TierRole;

use super::error::{SpecError, shown};
use super::quantity::{Amount, Time, parse_bytes, parse_time};
use crate::names::check_file_name;

/// Variables for the login of a Redis server.
const REDIS_VARIABLES: &str = "HYPERRAG_REDIS_USERNAME and HYPERRAG_REDIS_PASSWORD";

/// Variables for the keys of an object store.
const S3_VARIABLES: &str = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";

/// Servers of Redis or Valkey, and how they are used. What is absent is as the tier has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSpec {
    /// Whether connections are encrypted.
    pub tls: bool,
    /// Nodes to start from, each `host`, `host:port` or `[address]:port`.
    pub nodes: Vec<String>,
    /// Duty: `role=home` or `role=cache`.
    pub role: Option<TierRole>,
    /// Replicas that must have a block before it counts as written: `copies=1`.
    pub copies: Option<u32>,
    /// Start of all keys: `prefix=hr1`.
    pub prefix: Option<String>,
    /// Time after which a block may be dropped: `ttl=30d`.
    pub ttl: Option<Duration>,
    /// Longest wait for one answer: `timeout=5s`.
    pub timeout: Option<Duration>,
    /// Bytes that may be under way from one node: `inflight=2MiB`.
    pub in_flight_bytes: Option<u64>,
    /// Nodes that are read: `readers=replica` or `readers=master`.
    pub readers: Option<ReadFrom>,
}

/// Nodes that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// Masters and replicas.
    Replicas,
    /// Masters alone.
    Masters,
}

/// A place in an object store. What is absent is as the tier has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Spec {
    /// Bucket.
    pub bucket: String,
    /// Start of all names, without slashes at its ends. It may be empty.
    pub prefix: String,
    /// Region: `region=eu-central-1`.
    pub region: Option<String>,
    /// Server: `endpoint=https://host:port`.
    pub endpoint: Option<String>,
    /// Place of the claims of workers: `claims=conditional`, `claims=redis` or `claims=folder`.
    pub claims: Option<ClaimPlace>,
}

/// Place where workers that build together claim their shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimPlace {
    /// The object store, which makes an object only if there is none.
    Conditional,
    /// Redis.
    Redis,
    /// A folder.
    Folder,
}

/// Options of a URL, by name.
struct Options<'a> {
    tier: &'static str,
    names: &'static [&'static str],
    known: &'static str,
    values: Vec<Option<&'a str>>,
}

impl<'a> Options<'a> {
    fn parse(
        tier: &'static str,
        names: &'static [&'static str],
        known: &'static str,
        text: Option<&'a str>,
    ) -> Result<Self, SpecError> {
        let mut options = Self { tier, names, known, values: vec![None; names.len()] };
        for option in text.into_iter().flat_map(|text| text.split('&')) {
            options.add(option)?;
        }
        Ok(options)
    }

    fn add(&mut self, option: &'a str) -> Result<(), SpecError> {
        // Not repeated: it may be a password.
        let no_value = SpecError::NoValue { tier: self.tier };
        let (name, value) = option.split_once('=').ok_or(no_value.clone())?;
        let Some(n) = self.names.iter().position(|known| *known == name) else {
            let (tier, name, known) = (self.tier, shown(name), self.known);
            return Err(SpecError::UnknownOption { tier, name, known });
        };
        if value.is_empty() {
            return Err(no_value);
        }
        match self.values[n].replace(value) {
            Some(_) => Err(SpecError::Twice { name: self.names[n] }),
            None => Ok(()),
        }
    }

    /// Returns what `read` makes of an option's value.
    fn value<T>(
        &self,
        name: &'static str,
        allowed: &'static str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<Option<T>, SpecError> {
        let found = self.names.iter().position(|known| *known == name);
        let Some(value) = found.and_then(|n| self.values[n]) else { return Ok(None) };
        let wrong = || SpecError::Value { name, value: shown(value), allowed };
        read(value).ok_or_else(wrong).map(Some)
    }
}

/// Returns what `choices` has for a name.
fn choose<T: Copy>(choices: &[(&str, T)]) -> impl FnOnce(&str) -> Option<T> {
    move |value| choices.iter().find(|(name, _)| *name == value).map(|(_, choice)| *choice)
}

/// Returns the name of a choice.
fn name_of<T: PartialEq>(choices: &[(&'static str, T)], choice: &T) -> &'static str {
    choices.iter().find(|(_, other)| other == choice).map_or("", |(name, _)| name)
}

const ROLES: [(&str, TierRole); 2] = [("home", TierRole::Home), ("cache", TierRole::Cache)];
const READERS: [(&str, ReadFrom); 2] =
    [("replica", ReadFrom::Replicas), ("master", ReadFrom::Masters)];
const CLAIMS: [(&str, ClaimPlace); 3] = [
    ("conditional", ClaimPlace::Conditional),
    ("redis", ClaimPlace::Redis),
    ("folder", ClaimPlace::Folder),
];

impl RedisSpec {
    /// Parses what follows `redis://`.
    pub(super) fn parse(tls: bool, text: &str) -> Result<Self, SpecError> {
        let (nodes, options) = split_options(text);
        if nodes.contains('@') {
            return Err(SpecError::Secret { variables: REDIS_VARIABLES });
        }
        let nodes = nodes.strip_suffix('/').unwrap_or(nodes);
        let nodes: Result<Vec<String>, SpecError> = nodes.split(',').map(parse_node).collect();
        let options = Options::parse(
            "redis",
            &["role", "copies", "prefix", "ttl", "timeout", "inflight", "readers"],
            "role, copies, prefix, ttl, timeout, inflight and readers",
            options,
        )?;
        let time = "a time, as in 400ms, 15s, 12h or 30d";
        let number = |text: &str| text.parse().ok().filter(|copies| *copies <= 100);
        let prefix = "up to 64 letters, digits, dots, dashes, underscores and colons";
        let size = "a size, as in 2MiB";
        Ok(Self {
            tls,
            nodes: nodes?,
            role: options.value("role", "home or cache", choose(&ROLES))?,
            copies: options.value("copies", "a number up to 100", number)?,
            prefix: options.value("prefix", prefix, |text| usual(text, b".-_:", 64))?,
            ttl: options.value("ttl", time, parse_time)?,
            timeout: options.value("timeout", time, parse_time)?,
            in_flight_bytes: options.value("inflight", size, |text| parse_bytes(text).ok())?,
            readers: options.value("readers", "replica or master", choose(&READERS))?,
        })
    }
}

impl fmt::Display for RedisSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let options = [
            ("role", self.role.map(|role| name_of(&ROLES, &role).to_owned())),
            ("copies", self.copies.map(|copies| copies.to_string())),
            ("prefix", self.prefix.clone()),
            ("ttl", self.ttl.map(|time| Time(time).to_string())),
            ("timeout", self.timeout.map(|time| Time(time).to_string())),
            ("inflight", self.in_flight_bytes.map(|bytes| Amount(bytes).to_string())),
            ("readers", self.readers.map(|readers| name_of(&READERS, &readers).to_owned())),
        ];
        write!(f, "{scheme}://{}{}", self.nodes.join(","), Query(&options))
    }
}

impl S3Spec {
    /// Parses what follows `s3://`.
    pub(super) fn parse(text: &str) -> Result<Self, SpecError> {
        let (place, options) = split_options(text);
        let secret = SpecError::Secret { variables: S3_VARIABLES };
        // Neither a bucket nor a host has such a sign.
        if place.contains('@') || options.is_some_and(|options| options.contains('@')) {
            return Err(secret);
        }
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let prefix = prefix.trim_matches('/');
        let wrong = || SpecError::Bucket { text: shown(place) };
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let small = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = bucket.as_bytes();
        let bucket_is_right = (3..=63).contains(&bucket.len())
            && bucket.bytes().all(|byte| small(byte) || b".-".contains(&byte))
            && edge(bytes.first())
            && edge(bytes.last());
        let prefix_is_right = prefix.is_empty() || check_file_name(prefix).is_ok();
        if !bucket_is_right || !prefix_is_right || prefix.len() > 512 {
            return Err(wrong());
        }
        let options = Options::parse(
            "s3",
            &["region", "endpoint", "claims"],
            "region, endpoint and claims",
            options,
        )?;
        let region = "letters, digits and dashes, as in eu-central-1";
        let endpoint = "http://HOST:PORT or https://HOST:PORT";
        let claims = "conditional, redis or folder";
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            region: options.value("region", region, |text| usual(text, b"-", 64))?,
            endpoint: options.value("endpoint", endpoint, parse_endpoint)?,
            claims: options.value("claims", claims, choose(&CLAIMS))?,
        })
    }
}

impl fmt::Display for S3Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        let options = [
            ("region", self.region.clone()),
            ("endpoint", self.endpoint.clone()),
            ("claims", self.claims.map(|claims| name_of(&CLAIMS, &claims).to_owned())),
        ];
        write!(f, "s3://{}{slash}{}{}", self.bucket, self.prefix, Query(&options))
    }
}

/// Options that are written after a URL.
struct Query<'a>(&'a [(&'static str, Option<String>)]);

impl fmt::Display for Query<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = self.0.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        for (n, (name, value)) in given.enumerate() {
            let sign = if n == 0 { '?' } else { '&' };
            write!(f, "{sign}{name}={value}")?;
        }
        Ok(())
    }
}

fn split_options(text: &str) -> (&str, Option<&str>) {
    match text.split_once('?') {
        Some((place, "")) => (place, None),
        Some((place, options)) => (place, Some(options)),
        None => (text, None),
    }
}

/// Returns a text of letters, digits and `others`, with 1 to `length_max` signs.
fn usual(text: &str, others: &[u8], length_max: usize) -> Option<String> {
    let right = |byte: u8| byte.is_ascii_alphanumeric() || others.contains(&byte);
    let fits = (1..=length_max).contains(&text.len()) && text.bytes().all(right);
    fits.then(|| text.to_owned())
}

/// Checks a host with or without a port.
fn parse_node(text: &str) -> Result<String, SpecError> {
    let text = text.trim();
    let right = || {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, rest) = rest.split_once(']')?;
                address.parse::<std::net::Ipv6Addr>().ok()?;
                (None, rest.strip_prefix(':').or(rest.is_empty().then_some(""))?)
            }
            None => {
                let (host, port) = text.split_once(':').unwrap_or((text, ""));
                (Some(host), port)
            }
        };
        if let Some(host) = host {
            usual(host, b".-_", 253)?;
        }
        let colon = text.ends_with(':');
        let number = port.is_empty() || port.parse::<u16>().is_ok_and(|port| port > 0);
        (number && !colon && !port.starts_with('+')).then_some(())
    };
    match right() {
        Some(()) => Ok(text.to_owned()),
        None => Err(SpecError::Host { text: shown(text) }),
    }
}

fn parse_endpoint(text: &str) -> Option<String> {
    let (scheme, host) = text.split_once("://")?;
    let host = host.strip_suffix('/').unwrap_or(host);
    let node = parse_node(host).ok()?;
    matches!(scheme, "http" | "https").then(|| format!("{scheme}://{node}"))
}

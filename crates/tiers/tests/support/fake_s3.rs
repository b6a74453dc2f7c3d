//! A small server that speaks S3 over plain HTTP/1.1 and fails by seed. In: a plan of faults. Out: an endpoint,
//! and what it saw. It checks no signature, only the name of the key.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConnection, StreamOwned};

pub(crate) const BUCKET: &str = "bucket";
pub(crate) const KEY: &str = "reader";

/// A way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// An error status; nothing landed.
    Status(u16),
    /// An error status though the put landed.
    Landed(u16),
    /// The connection ends without an answer; nothing landed.
    Drop,
    /// The connection ends without an answer though the put landed.
    LandedDrop,
    /// No answer.
    Hang,
    /// Fewer bytes than asked, as if that were all.
    Short,
    /// More bytes than asked.
    Long,
    /// The body breaks off in the middle.
    Cut,
    /// The body breaks off in the middle, and another object takes the place of this one.
    Replaced,
    /// The body comes in small parts with pauses.
    Slow,
    /// Another range than asked.
    Elsewhere,
    /// Only a part of the object is stored.
    Half,
}

#[derive(Clone, Default)]
struct Object {
    bytes: Arc<Vec<u8>>,
    e_tag: String,
    meta: Vec<(String, String)>,
}

/// Request that the server saw.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) range: Option<Range<u64>>,
}

/// Function that is told of each request twice: before it has an effect, and after that.
type Watch = dyn Fn(&Seen, bool) + Send + Sync;

#[derive(Default)]
struct State {
    watch: Mutex<Option<Arc<Watch>>>,
    objects: Mutex<HashMap<String, Object>>,
    uploads: Mutex<HashMap<String, BTreeMap<usize, Vec<u8>>>>,
    seen: Mutex<Vec<Seen>>,
    faults: Mutex<BTreeMap<Fault, usize>>,
    kinds: Mutex<Vec<Fault>>,
    per_mille: AtomicU64,
    /// Faults of the next GETs, one each, before those by seed.
    next: Mutex<Vec<Fault>>,
    seed: AtomicU64,
    versions: AtomicU64,
    pause_ms: AtomicU64,
    running: AtomicUsize,
    most: AtomicUsize,
    sent: AtomicU64,
}

/// The server. It ends with the process.
pub(crate) struct FakeS3 {
    state: Arc<State>,
    pub(crate) endpoint: String,
}

impl FakeS3 {
    pub(crate) fn start(seed: u64) -> Self {
        Self::start_with(seed, "http", |stream| stream)
    }

    /// Starts a server that speaks TLS, with a certificate of the authority `tls/ca.pem`.
    pub(crate) fn start_tls(seed: u64) -> Self {
        use rustls::pki_types::pem::PemObject;
        let certificates = CertificateDer::pem_slice_iter(include_bytes!("tls/server.pem"));
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/server.key")).unwrap();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates.map(Result::unwrap).collect(), key)
            .unwrap();
        let config = Arc::new(config);
        Self::start_with(seed, "https", move |stream| {
            StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream)
        })
    }

    fn start_with<S: Read + Write + Send + 'static>(
        seed: u64,
        scheme: &str,
        wrap: impl Fn(TcpStream) -> S + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("{scheme}://{}", listener.local_addr().unwrap());
        let state = Arc::new(State { seed: AtomicU64::new(seed), ..State::default() });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                stream.set_nodelay(true).unwrap();
                let stream = wrap(stream);
                std::thread::spawn(move || {
                    let _ = serve(&state, stream);
                });
            }
        });
        Self { state, endpoint }
    }

    /// Fails `per_mille` of a thousand requests, in one of these ways.
    pub(crate) fn fail(&self, per_mille: u64, kinds: &[Fault]) {
        *self.state.kinds.lock().unwrap() = kinds.to_vec();
        self.state.per_mille.store(per_mille, SeqCst);
    }

    /// Has `watch` called with each request before it has an effect (`false`), and once more between that and the
    /// answer (`true`).
    pub(crate) fn watch(&self, watch: impl Fn(&Seen, bool) + Send + Sync + 'static) {
        *self.state.watch.lock().unwrap() = Some(Arc::new(watch));
    }

    /// Returns the objects whose names begin with `prefix`, by the rest of their names.
    pub(crate) fn objects(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        let (objects, start) = (self.state.objects.lock().unwrap(), format!("/{BUCKET}/{prefix}"));
        let named = |(name, object): (&String, &Object)| {
            Some((name.strip_prefix(&start)?.to_owned(), object.bytes.to_vec()))
        };
        objects.iter().filter_map(named).collect()
    }

    /// Fails the next requests in these ways, in order.
    pub(crate) fn fail_next(&self, faults: &[Fault]) {
        *self.state.next.lock().unwrap() = faults.iter().rev().copied().collect();
    }

    /// Waits before each answer.
    pub(crate) fn pause(&self, pause: Duration) {
        self.state.pause_ms.store(pause.as_millis() as u64, SeqCst);
    }

    pub(crate) fn store(&self, name: &str, bytes: Vec<u8>) {
        let e_tag = format!("\"s{}\"", self.state.versions.fetch_add(1, SeqCst));
        let object = Object { bytes: Arc::new(bytes), e_tag, meta: vec![] };
        self.state.objects.lock().unwrap().insert(format!("/{BUCKET}/{name}"), object);
    }

    pub(crate) fn stored(&self, name: &str) -> Option<Vec<u8>> {
        let objects = self.state.objects.lock().unwrap();
        objects.get(&format!("/{BUCKET}/{name}")).map(|object| object.bytes.to_vec())
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// Number of faults of the kinds that a reader cannot mend.
    pub(crate) fn faults(&self, of: impl Fn(Fault) -> bool) -> usize {
        let faults = self.state.faults.lock().unwrap();
        faults.iter().filter(|(fault, _)| of(**fault)).map(|(_, n)| n).sum()
    }

    /// Most requests at one time.
    pub(crate) fn most(&self) -> usize {
        self.state.most.load(SeqCst)
    }

    /// Bytes of bodies that were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.state.sent.load(SeqCst)
    }
}

struct Request {
    method: String,
    path: String,
    query: HashMap<String, String>,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

fn request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default().to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let query = query.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { method, path: path.to_owned(), query, headers, body }))
}

/// An answer: status, headers, body.
type Reply = (u16, Vec<(String, String)>, Vec<u8>);

fn serve(state: &State, stream: impl Read + Write) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = request(&mut stream)? {
        let running = state.running.fetch_add(1, SeqCst) + 1;
        state.most.fetch_max(running, SeqCst);
        std::thread::sleep(Duration::from_millis(state.pause_ms.load(SeqCst)));
        let done = answer(state, &request, stream.get_mut());
        state.running.fetch_sub(1, SeqCst);
        if !done? {
            break;
        }
    }
    Ok(())
}

fn mix(state: &State) -> u64 {
    let mut z = state.seed.fetch_add(0x9E37_79B9_7F4A_7C15, SeqCst);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn fault(state: &State) -> Option<Fault> {
    let kinds = state.kinds.lock().unwrap();
    let chance = mix(state);
    let by_seed = || {
        let hit = chance % 1000 < state.per_mille.load(SeqCst) && !kinds.is_empty();
        hit.then(|| kinds[(chance / 1000) as usize % kinds.len()])
    };
    let fault = state.next.lock().unwrap().pop().or_else(by_seed);
    if let Some(fault) = fault {
        *state.faults.lock().unwrap().entry(fault).or_default() += 1;
    }
    fault
}

/// Answers a request. Returns whether the connection stays.
fn answer(state: &State, request: &Request, writer: &mut impl Write) -> io::Result<bool> {
    let range = request.headers.get("range").and_then(|range| parsed(range));
    let (method, path) = (request.method.clone(), request.path.clone());
    let seen = Seen { method, path, range: range.clone() };
    state.seen.lock().unwrap().push(seen.clone());
    let watch = state.watch.lock().unwrap().clone();
    let tell = |done| watch.iter().for_each(|watch| watch(&seen, done));
    tell(false);
    let fault = fault(state);
    match fault {
        Some(Fault::Status(status)) => {
            return send(state, writer, request, &error(status, "Fault"), None);
        }
        Some(Fault::Drop) => return Ok(false),
        Some(Fault::Hang) => {
            std::thread::sleep(Duration::from_secs(60));
            return Ok(false);
        }
        _ => {}
    }
    let reply = handled(state, request, range, fault);
    tell(true);
    match fault {
        Some(Fault::Landed(status)) if request.method != "GET" => {
            send(state, writer, request, &error(status, "Fault"), None)
        }
        Some(Fault::LandedDrop) if request.method != "GET" => Ok(false),
        _ => send(state, writer, request, &reply, fault),
    }
}

fn parsed(range: &str) -> Option<Range<u64>> {
    let (start, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    Some(start.parse().ok()?..last.parse::<u64>().ok()? + 1)
}

fn error(status: u16, code: &str) -> Reply {
    (status, vec![], format!("<Error><Code>{code}</Code></Error>").into_bytes())
}

fn handled(
    state: &State,
    request: &Request,
    range: Option<Range<u64>>,
    fault: Option<Fault>,
) -> Reply {
    let allowed = request.headers.get("authorization");
    if !allowed.is_some_and(|line| line.contains(&format!("Credential={KEY}/"))) {
        return error(403, "InvalidAccessKeyId");
    }
    if request.method == "GET" && request.query.contains_key("list-type") {
        return list(state, request);
    }
    if !request.path.starts_with(&format!("/{BUCKET}/")) {
        return error(404, "NoSuchBucket");
    }
    match request.method.as_str() {
        "GET" | "HEAD" => get(state, request, range, fault),
        "PUT" => put(state, request, fault),
        "POST" => post(state, request),
        "DELETE" => {
            state.objects.lock().unwrap().remove(&request.path);
            (204, vec![], vec![])
        }
        _ => error(405, "MethodNotAllowed"),
    }
}

/// Names that a list has at most; the rest is in further ones.
const PAGE: usize = 3;

/// Lists the objects and folders directly below a prefix.
fn list(state: &State, request: &Request) -> Reply {
    if request.path.trim_end_matches('/') != format!("/{BUCKET}") {
        return error(404, "NoSuchBucket");
    }
    let query = |name: &str| request.query.get(name).map(|value| value.replace("%2F", "/"));
    let prefix = query("prefix").unwrap_or_default();
    let objects = state.objects.lock().unwrap();
    let start = format!("/{BUCKET}/{prefix}");
    let below =
        objects.iter().filter_map(|(name, object)| Some((name.strip_prefix(&start)?, object)));
    // A folder ends with a slash, and has no object of its own.
    let mut entries = BTreeMap::new();
    for (rest, object) in below {
        match rest.split_once('/') {
            Some((folder, _)) => entries.insert(format!("{prefix}{folder}/"), None),
            None => entries.insert(format!("{prefix}{rest}"), Some(object)),
        };
    }
    let after = query("continuation-token").unwrap_or_default();
    let mut left = entries.iter().filter(|(name, _)| **name > after);
    let mut xml = "<ListBucketResult>".to_owned();
    let mut last = "";
    for (name, object) in left.by_ref().take(PAGE) {
        last = name;
        xml += &match object {
            None => format!("<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>"),
            Some(object) => format!(
                "<Contents><Key>{name}</Key><Size>{}</Size><ETag>{}</ETag>\
                 <LastModified>2026-12-01T00:00:00.000Z</LastModified></Contents>",
                object.bytes.len(),
                object.e_tag
            ),
        };
    }
    if left.next().is_some() {
        xml += &format!("<NextContinuationToken>{last}</NextContinuationToken>");
    }
    (200, vec![], format!("{xml}</ListBucketResult>").into_bytes())
}

fn get(state: &State, request: &Request, range: Option<Range<u64>>, fault: Option<Fault>) -> Reply {
    let Some(object) = state.objects.lock().unwrap().get(&request.path).cloned() else {
        return error(404, "NoSuchKey");
    };
    if request.headers.get("if-match").is_some_and(|e_tag| *e_tag != object.e_tag) {
        return error(412, "PreconditionFailed");
    }
    let size = object.bytes.len() as u64;
    let mut headers = vec![
        ("ETag".to_owned(), object.e_tag.clone()),
        ("Last-Modified".to_owned(), "Tue, 01 Dec 2026 00:00:00 GMT".to_owned()),
    ];
    headers.extend(object.meta);
    if request.method == "HEAD" {
        headers.push(("Content-Length".to_owned(), size.to_string()));
        return (200, headers, vec![]);
    }
    let Some(range) = range else { return (200, headers, object.bytes.to_vec()) };
    if range.start >= size {
        return error(416, "InvalidRange");
    }
    let end = range.end.min(size);
    let shift = u64::from(fault == Some(Fault::Elsewhere) && range.start > 0);
    let told = format!("bytes {}-{}/{size}", range.start - shift, end - 1 - shift);
    headers.push(("Content-Range".to_owned(), told));
    (206, headers, object.bytes[range.start as usize..end as usize].to_vec())
}

fn put(state: &State, request: &Request, fault: Option<Fault>) -> Reply {
    let version = state.versions.fetch_add(1, SeqCst);
    let e_tag = format!("\"v{version}\"");
    let mut bytes = request.body.clone();
    if fault == Some(Fault::Half) {
        bytes.truncate(bytes.len() / 2);
    }
    if let Some(id) = request.query.get("uploadId") {
        let mut uploads = state.uploads.lock().unwrap();
        let Some(upload) = uploads.get_mut(id) else { return error(404, "NoSuchUpload") };
        upload.insert(request.query["partNumber"].parse().unwrap(), bytes);
        return (200, vec![("ETag".to_owned(), e_tag)], vec![]);
    }
    let mut objects = state.objects.lock().unwrap();
    let now = objects.get(&request.path);
    let fails = request.headers.contains_key("if-none-match") && now.is_some()
        || request
            .headers
            .get("if-match")
            .is_some_and(|e_tag| now.is_none_or(|now| now.e_tag != *e_tag));
    if fails {
        return error(412, "PreconditionFailed");
    }
    let meta = request.headers.iter().filter(|(name, _)| name.starts_with("x-amz-meta-"));
    let meta = meta.map(|(name, value)| (name.clone(), value.clone())).collect();
    let object = Object { bytes: Arc::new(bytes), e_tag: e_tag.clone(), meta };
    objects.insert(request.path.clone(), object);
    (200, vec![("ETag".to_owned(), e_tag)], vec![])
}

fn post(state: &State, request: &Request) -> Reply {
    let version = state.versions.fetch_add(1, SeqCst);
    let Some(id) = request.query.get("uploadId") else {
        state.uploads.lock().unwrap().insert(format!("u{version}"), BTreeMap::new());
        let xml = format!(
            "<InitiateMultipartUploadResult><UploadId>u{version}</UploadId></InitiateMultipartUploadResult>"
        );
        return (200, vec![], xml.into_bytes());
    };
    let Some(parts) = state.uploads.lock().unwrap().remove(id) else {
        return error(404, "NoSuchUpload");
    };
    let bytes = Arc::new(parts.into_values().flatten().collect());
    let object = Object { bytes, e_tag: format!("\"m{version}\""), meta: vec![] };
    state.objects.lock().unwrap().insert(request.path.clone(), object);
    let xml = format!(
        "<CompleteMultipartUploadResult><ETag>m{version}</ETag></CompleteMultipartUploadResult>"
    );
    (200, vec![], xml.into_bytes())
}

fn send(
    state: &State,
    writer: &mut impl Write,
    request: &Request,
    (status, headers, body): &Reply,
    fault: Option<Fault>,
) -> io::Result<bool> {
    let mut body = body.clone();
    match fault {
        Some(Fault::Short) => body.truncate(body.len() / 2),
        Some(Fault::Long) => body.extend_from_slice(b"and more"),
        _ => {}
    }
    let mut head = format!("HTTP/1.1 {status} Status\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if request.method != "HEAD" || *status != 200 {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    writer.write_all(format!("{head}\r\n").as_bytes())?;
    writer.flush()?;
    if request.method == "HEAD" {
        return Ok(true);
    }
    if fault == Some(Fault::Replaced) {
        let object = Object { bytes: Arc::new(vec![1; body.len()]), ..Object::default() };
        state.objects.lock().unwrap().insert(request.path.clone(), object);
    }
    if matches!(fault, Some(Fault::Cut | Fault::Replaced)) && body.len() > 1 {
        let at = 1 + mix(state) as usize % (body.len() - 1);
        writer.write_all(&body[..at])?;
        writer.flush()?;
        return Ok(false);
    }
    let (step, pause) =
        if fault == Some(Fault::Slow) { (body.len() / 8 + 1, 20) } else { (64 << 10, 0) };
    for part in body.chunks(step) {
        writer.write_all(part)?;
        writer.flush()?;
        state.sent.fetch_add(part.len() as u64, SeqCst);
        std::thread::sleep(Duration::from_millis(pause));
    }
    Ok(true)
}

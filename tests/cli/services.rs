//! Servers of the folder that `HYPERRAG_SERVICES` names, which `scripts/services.sh` fills. In: nothing. Out: running
//! servers, which end with the value. The files below test the program with them.

mod cluster;
mod containers;
mod copies;
mod inputs;
mod lost_nodes;
mod page;
mod parallel;
mod places;
mod slurm;
mod workers;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Name and secret of the one key of the bucket.
const KEY: (&str, &str) = ("A", "S");

/// Name of the one bucket.
pub(crate) const BUCKET: &str = "test-bucket";

/// Longest wait for a server, on a machine that is slow and busy.
const READY: Duration = Duration::from_secs(120);

/// The folder of services, and the right to start some: one test at a time has it.
pub(crate) struct Services {
    folder: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

/// A server of one process, with a folder for its data.
pub(crate) struct Server {
    child: Child,
    _folder: TempDir,
    /// Folder of programs.
    bin: PathBuf,
    /// Port on this machine.
    pub(crate) port: u16,
    /// Port of SeaweedFS's file server, which has buckets as folders.
    filer: Option<u16>,
}

impl Services {
    /// Returns `None` where no folder is named: then the tests that need one check nothing.
    pub(crate) fn find() -> Option<Self> {
        static TURN: Mutex<()> = Mutex::new(());
        let folder = std::env::var_os("HYPERRAG_SERVICES")?;
        let folder = fs::canonicalize(&folder).expect("the folder of HYPERRAG_SERVICES");
        // A test that failed leaves nothing behind.
        Some(Self { folder, _turn: TURN.lock().unwrap_or_else(PoisonError::into_inner) })
    }

    /// Folder of programs.
    fn bin(&self) -> PathBuf {
        self.folder.join("bin")
    }

    /// Returns a server's program. Its process dies with the test, however that ends.
    fn program(&self, name: &str) -> Command {
        let path = self.bin().join(name);
        assert!(path.is_file(), "no {name} in {}", self.folder.display());
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Starts a Redis server without any limit.
    pub(crate) fn redis(&self) -> Server {
        self.redis_with(&[])
    }

    /// Starts a Redis server with flags.
    fn redis_with(&self, flags: &[&str]) -> Server {
        let (folder, [port]) = (TempDir::new().unwrap(), free_ports());
        let mut command = self.program("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()]);
        let child = command.args(flags).arg("--dir").arg(folder.path()).spawn().unwrap();
        let server = Server { child, _folder: folder, bin: self.bin(), port, filer: None };
        server.wait_for(port);
        server
    }

    /// Starts SeaweedFS with the bucket [`BUCKET`].
    pub(crate) fn weed(&self) -> Server {
        let folder = TempDir::new().unwrap();
        let identity = format!(
            r#"{{"identities": [{{"name": "a", "credentials": [{{"accessKey": "{}", "secretKey": "{}"}}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"]}}]}}"#,
            KEY.0, KEY.1
        );
        fs::write(folder.path().join("s3.json"), identity).unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        let ports: [u16; 4] = free_ports();
        let flag = |name: &str, n: usize| format!("-{name}={}", ports[n]);
        let mut command = self.program("weed");
        command.args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]);
        command.args([flag("master.port", 0), flag("volume.port", 1), flag("filer.port", 2)]);
        // It would take two fixed ports for services that nobody here uses, and end if they are taken.
        command.args([flag("s3.port", 3).as_str(), "-s3.port.iceberg=0", "-s3.port.lance=0"]);
        command.args(["-volume.max=50", "-master.volumeSizeLimitMB=64", "-master.telemetry=false"]);
        command.arg(format!("-dir={}", folder.path().join("data").display()));
        command.arg(format!("-s3.config={}", folder.path().join("s3.json").display()));
        let child = command.spawn().unwrap();
        let (bin, filer) = (self.bin(), Some(ports[2]));
        let server = Server { child, _folder: folder, bin, port: ports[3], filer };
        ports.iter().for_each(|port| server.wait_for(*port));
        make_bucket(ports[2]);
        server
    }
}

/// Makes the bucket, which is a folder of the filer at `port`.
fn make_bucket(port: u16) {
    put(port, "", &[]);
}

/// Stores an object of the bucket by the filer at `port`. An empty name makes the bucket.
fn put(port: u16, name: &str, bytes: &[u8]) {
    // It makes folders by one method, and takes the bytes of a file as they are by the other.
    let method = if name.is_empty() { "POST" } else { "PUT" };
    let kind = if name.is_empty() { "" } else { "Content-Type: application/octet-stream\r\n" };
    let request = format!(
        "{method} /buckets/{BUCKET}/{name} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\
         {kind}Connection: close\r\n\r\n",
        bytes.len()
    );
    let start = Instant::now();
    loop {
        let mut answer = String::new();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let sent = stream.write_all(request.as_bytes()).and_then(|()| stream.write_all(bytes));
        let read = sent.and_then(|()| stream.read_to_string(&mut answer));
        if read.is_ok() && answer.starts_with("HTTP/1.1 201") {
            return;
        }
        assert!(start.elapsed() < READY, "{answer}");
        sleep(Duration::from_millis(100));
    }
}

/// Returns ports that are free now, as are those 10,000 higher: of the bus of a cluster, and of gRPC.
fn free_ports<const N: usize>() -> [u16; N] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Below the ports that systems give out by themselves.
    let first = (std::process::id() % 200) as u16 * 50;
    let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    std::array::from_fn(|_| {
        loop {
            let port = 11_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
            if free(port) && free(port + 10_000) {
                return port;
            }
        }
    })
}

impl Server {
    /// Variables with which the program reaches the bucket.
    pub(crate) fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ACCESS_KEY_ID", KEY.0.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", KEY.1.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port)),
        ]
    }

    /// Stores an object in the bucket.
    fn put(&self, name: &str, bytes: &[u8]) {
        put(self.filer.expect("a server of objects"), name, bytes);
    }

    fn wait_for(&self, port: u16) {
        until(&format!("a server at port {port}"), || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
    }

    /// Runs a command by Redis's own client and returns what it prints.
    fn cli(&self, words: &[&str]) -> String {
        // A server that is stopped answers nothing.
        let mut command = Command::new("timeout");
        command.args(["-k", "1", "30"]).arg(self.bin.join("redis-cli"));
        command.args(["-p", &self.port.to_string()]).args(words).stdin(Stdio::null());
        String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
    }

    /// Returns a value of Redis's `INFO`; empty if there is none.
    fn info(&self, name: &str) -> String {
        let info = self.cli(&["INFO"]);
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_default().trim().to_owned()
    }

    /// Sends a signal: `STOP`, `CONT` or `KILL`.
    fn signal(&self, signal: &str) {
        let mut kill = Command::new("kill");
        let sent = kill.arg(format!("-{signal}")).arg(self.child.id().to_string()).status();
        assert!(sent.unwrap().success(), "{signal}: the server is gone");
    }
}

/// Waits until something holds; fails if that takes too long.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < READY, "waited in vain for {what}");
        sleep(Duration::from_millis(50));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! Servers of the folder that `HYPERRAG_SERVICES` names, which `scripts/services.sh` fills. In: nothing. Out: running
//! servers, which end with the value.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Name and secret of the one key of the bucket.
const KEY: (&str, &str) = ("A", "S");

/// Name of the one bucket.
pub(crate) const BUCKET: &str = "test-bucket";

/// The folder of services.
pub(crate) struct Services(PathBuf);

/// A server of one process, with a folder for its data.
pub(crate) struct Server {
    child: Child,
    _folder: TempDir,
    /// Port on this machine.
    pub(crate) port: u16,
}

impl Services {
    /// Returns `None` where no folder is named: then the tests that need one check nothing.
    pub(crate) fn find() -> Option<Self> {
        let folder = std::env::var_os("HYPERRAG_SERVICES")?;
        Some(Self(fs::canonicalize(&folder).expect("the folder of HYPERRAG_SERVICES")))
    }

    fn program(&self, name: &str) -> Command {
        let path = self.0.join("bin").join(name);
        assert!(path.is_file(), "no {name} in {}", self.0.display());
        let mut command = Command::new(path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Starts a Redis server without any limit.
    pub(crate) fn redis(&self) -> Server {
        let (folder, port) = (TempDir::new().unwrap(), free_port());
        let mut command = self.program("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()]);
        let child = command.arg("--dir").arg(folder.path()).spawn().unwrap();
        let server = Server { child, _folder: folder, port };
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
        // Its ports of gRPC are 10000 higher.
        let ports: Vec<u16> =
            (0..4).map(|n| 22_000 + (std::process::id() % 800) as u16 * 8 + n).collect();
        let flag = |name: &str, n: usize| format!("-{name}={}", ports[n]);
        let mut command = self.program("weed");
        command.args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]);
        command.args([flag("master.port", 0), flag("volume.port", 1), flag("filer.port", 2)]);
        command.args([flag("s3.port", 3)]);
        command.args(["-volume.max=50", "-master.volumeSizeLimitMB=64", "-master.telemetry=false"]);
        command.arg(format!("-dir={}", folder.path().join("data").display()));
        command.arg(format!("-s3.config={}", folder.path().join("s3.json").display()));
        let server = Server { child: command.spawn().unwrap(), _folder: folder, port: ports[3] };
        ports.iter().for_each(|port| server.wait_for(*port));
        make_bucket(ports[2]);
        server
    }
}

/// Makes the bucket, which is a folder of the filer at `port`.
fn make_bucket(port: u16) {
    let request = format!(
        "POST /buckets/{BUCKET}/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let start = Instant::now();
    loop {
        let mut answer = String::new();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let read = stream.read_to_string(&mut answer);
        if read.is_ok() && answer.starts_with("HTTP/1.1 201") {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{answer}");
        sleep(Duration::from_millis(100));
    }
}

/// Returns a port that is free now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
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

    fn wait_for(&self, port: u16) {
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "nothing at port {port}");
            sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

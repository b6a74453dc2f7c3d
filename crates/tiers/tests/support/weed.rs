//! SeaweedFS, from the folder that `HYPERRAG_SERVICES` names. In: nothing. Out: an endpoint with one bucket, or
//! `None` where the variable is not set.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hyperrag_core::Tier;
use hyperrag_tiers::{ObjectOptions, ObjectTier};

pub(crate) struct Weed {
    server: Child,
    folder: tempfile::TempDir,
    pub(crate) endpoint: String,
}

impl Weed {
    /// Starts the server and waits until `options` reach their bucket, which the server makes by itself.
    pub(crate) fn start(
        options: impl Fn(&str) -> ObjectOptions,
        keys: (&str, &str),
    ) -> Option<Self> {
        let services = PathBuf::from(std::env::var_os("HYPERRAG_SERVICES")?);
        let folder = tempfile::tempdir().unwrap();
        let identity = format!(
            r#"{{"identities": [{{"name": "a", "credentials": [{{"accessKey": "{}", "secretKey": "{}"}}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"]}}]}}"#,
            keys.0, keys.1
        );
        std::fs::write(folder.path().join("s3.json"), identity).unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        // Its ports of gRPC are 10000 higher, and still below those that the system hands out.
        let base = 11_000 + (std::process::id() % 800) * 10;
        let port = |name: &str, n: u32| format!("-{name}={}", base + n);
        let program = services.join("bin/weed");
        let absent = format!("{} is absent: run scripts/services.sh install", program.display());
        assert!(program.exists(), "{absent}");
        // The server dies with the test, however that ends.
        let server = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args([
                "server",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                "-s3",
                "-master.telemetry=false",
            ])
            .args([port("master.port", 0), port("volume.port", 1), port("filer.port", 2)])
            .args([
                port("s3.port", 3),
                "-volume.max=50".to_owned(),
                "-master.volumeSizeLimitMB=256".to_owned(),
            ])
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0"])
            .arg(format!("-dir={}", data.display()))
            .arg(format!("-s3.config={}", folder.path().join("s3.json").display()))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let endpoint = format!("http://127.0.0.1:{}", base + 3);
        let weed = Self { server, folder, endpoint };
        let tier = ObjectTier::open(&options(&weed.endpoint)).unwrap();
        let start = Instant::now();
        let name = tempfile::NamedTempFile::new().unwrap();
        loop {
            use hyperrag_core::FileTier;
            let ready = tier.put_file("ready", name.path()).and_then(|()| tier.probe());
            match ready {
                Ok(_) => return Some(weed),
                Err(error) if start.elapsed() > Duration::from_secs(120) => {
                    let log = std::fs::read_to_string(weed.folder.path().join("log")).unwrap();
                    panic!("{error}\n{log}");
                }
                Err(_) => std::thread::sleep(Duration::from_millis(300)),
            }
        }
    }
}

impl Drop for Weed {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

//! Servers for tests: single ones and clusters of six, on free ports, in a folder of their own, gone when the
//! test is.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longest wait for servers to become ready.
const READY: Duration = Duration::from_secs(120);

/// Program of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program {
    Redis,
    Valkey,
}

/// Returns the folder with the servers' programs; `None` where tests with servers are not asked for.
pub(crate) fn services() -> Option<PathBuf> {
    std::env::var_os("HYPERRAG_SERVICES").map(PathBuf::from)
}

/// Returns a program of the servers; fails where there is none.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = services().expect("HYPERRAG_SERVICES is set").join("bin").join(name);
    assert!(path.exists(), "{} is absent: run scripts/services.sh install", path.display());
    path
}

/// A server. It ends with the value, and with the process of the test.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    kind: Program,
    dir: PathBuf,
    flags: Vec<String>,
}

impl Server {
    fn start(kind: Program, dir: PathBuf, port: u16, flags: &[&str]) -> Self {
        let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let child = spawn(kind, &dir, port, &flags);
        let server = Self { child, port, kind, dir, flags };
        server.wait_for("an answer to PING", |server| server.cli(&["PING"]).contains("PONG"));
        server
    }

    /// Starts a single server with flags.
    pub(crate) fn single(kind: Program, dir: &TempDir, flags: &[&str]) -> Self {
        let flags = [&["--save", "", "--appendonly", "no"], flags].concat();
        Self::start(kind, dir.path().to_owned(), free_port(), &flags)
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Runs a command by the servers' own client and returns what it prints.
    pub(crate) fn cli(&self, command: &[&str]) -> String {
        let port = self.port.to_string();
        let limited = ["-k", "1", "10"];
        let output = Command::new("timeout")
            .args(limited)
            .arg(program("redis-cli"))
            .args(["-p", &port])
            .args(command)
            .output()
            .expect("redis-cli runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Returns a value of `INFO`.
    pub(crate) fn info(&self, name: &str) -> String {
        let info = self.cli(&["INFO", "everything"]);
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    }

    /// Returns the number of `HGET` that the server has run.
    pub(crate) fn reads(&self) -> u64 {
        let line = self.info("cmdstat_hget");
        let calls = line.strip_prefix("calls=").and_then(|rest| rest.split(',').next());
        calls.and_then(|calls| calls.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn wait_for(&self, what: &str, ready: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !ready(self) {
            assert!(start.elapsed() < READY, "no {what} from port {}", self.port);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the server is there");
    }

    /// Ends the server at once.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the server is there");
        self.child.wait().expect("the server ends");
    }

    /// Stops the server where it is.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a stopped server go on.
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Starts a killed server again.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(self.kind, &self.dir, self.port, &self.flags);
        self.wait_for("an answer", |server| !server.cli(&["PING"]).is_empty());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors say that it has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(kind: Program, dir: &Path, port: u16, flags: &[String]) -> Child {
    let server = program(match kind {
        Program::Redis => "redis-server",
        Program::Valkey => "valkey-server",
    });
    let log = std::fs::File::create(dir.join("log")).expect("the folder is there");
    // The server dies with the test, however that ends.
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(server)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(flags)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log)
        .spawn()
        .expect("setpriv of util-linux starts the server")
}

/// Returns a port that is free, as is that of the cluster's bus, 10,000 above.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Below the ports that systems give out by themselves.
    let first = (std::process::id() % 200) as u16 * 50;
    loop {
        let port = 11_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        let free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
}

/// Three masters with a replica each.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Server>,
    kind: Program,
    node_timeout: Duration,
    dir: TempDir,
}

impl Cluster {
    /// Starts a cluster whose nodes are in no hurry to think one of them dead.
    pub(crate) fn start(kind: Program) -> Self {
        Self::start_with(kind, Duration::from_secs(15))
    }

    /// Starts a cluster whose masters are replaced after a silence of `node_timeout`.
    pub(crate) fn start_with(kind: Program, node_timeout: Duration) -> Self {
        let dir = TempDir::new().expect("a folder");
        let mut cluster = Self { nodes: Vec::new(), kind, node_timeout, dir };
        (0..6).for_each(|_| cluster.add());
        let mut create = vec!["--cluster".to_owned(), "create".to_owned()];
        create.extend(cluster.addresses());
        create.extend(["--cluster-replicas", "1", "--cluster-yes"].map(str::to_owned));
        let create: Vec<_> = create.iter().map(String::as_str).collect();
        let said = cluster.nodes[0].cli(&create);
        assert!(said.contains("[OK] All 16384 slots covered"), "{said}");
        for node in &cluster.nodes {
            node.wait_for("whole cluster", |node| {
                node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
            });
            node.wait_for("link to the master", |node| {
                node.info("role") == "master" || node.info("master_link_status") == "up"
            });
            // Gossip tells it of the others' replicas later than of the slots.
            let ports = || cluster.nodes.iter().map(|node| node.port.to_string());
            node.wait_for("six nodes with slots", |node| {
                let slots = node.cli(&["CLUSTER", "SLOTS"]);
                ports().all(|port| slots.lines().any(|line| line == port))
            });
        }
        let replicas = cluster.nodes.iter().filter(|node| node.info("role") == "slave").count();
        assert_eq!(replicas, 3);
        cluster
    }

    /// Starts one more node, which belongs to no cluster yet.
    pub(crate) fn add(&mut self) {
        let dir = self.dir.path().join(self.nodes.len().to_string());
        std::fs::create_dir(&dir).expect("a folder");
        let node_timeout = self.node_timeout.as_millis().to_string();
        let flags = [
            ["--cluster-enabled", "yes"],
            ["--cluster-node-timeout", &node_timeout],
            ["--save", ""],
            ["--appendonly", "no"],
            ["--repl-diskless-sync-delay", "0"],
            ["--cluster-require-full-coverage", "no"],
            ["--cluster-allow-reads-when-down", "yes"],
            ["--repl-backlog-size", "256mb"],
            ["--client-output-buffer-limit", "replica 4gb 4gb 0"],
        ];
        self.nodes.push(Server::start(self.kind, dir, free_port(), flags.as_flattened()));
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(Server::address).collect()
    }

    /// Returns the numbers of a master and of its replica.
    pub(crate) fn a_master_and_its_replica(&self) -> (usize, usize) {
        let number = |port: &str| self.nodes.iter().position(|node| node.port.to_string() == port);
        let replica = self.nodes.iter().position(|node| node.info("role") == "slave");
        let replica = replica.expect("a replica");
        let master = number(&self.nodes[replica].info("master_port")).expect("its master");
        (master, replica)
    }
}

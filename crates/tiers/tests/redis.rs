//! Blocks and files in real servers, of Redis 7 and Valkey 9: alone and as a cluster whose nodes die, hang, come
//! back and change hands. Runs where `HYPERRAG_SERVICES` names the folder of scripts/services.sh.

#![expect(clippy::print_stdout, reason = "times are shown with --nocapture")]

mod support;

#[path = "support/suite.rs"]
mod suite;

use std::collections::HashSet;
use std::io::{Read, Seek};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyperrag_core::{
    Answer, Blob, BlobKey, FactValue, FetchSink, FileTier, Piece, ShardId, Slot, Swapped, Tier,
    TierError, TierFact, TierRole,
};
use hyperrag_tiers::contract::Harness;
use hyperrag_tiers::{RedisOptions, RedisTier};
use suite::{run_blocks, run_files};
use support::{Cluster, Program, Server, free_port, program, services};
use tempfile::TempDir;

const FRAME: u64 = (1 << 20) - 100;
const PATIENCE: Duration = Duration::from_secs(4);
/// Silence after which a cluster replaces a master, where that is tested.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs one test at a time: each has servers of its own.
fn turn() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    services()?;
    Some(TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

struct Sink {
    answers: Mutex<(Vec<Option<Answer>>, usize)>,
    arrived: Condvar,
}

impl Sink {
    fn new(pieces: usize) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new((vec![None; pieces], pieces)),
            arrived: Condvar::new(),
        })
    }

    fn all(&self) -> Vec<Answer> {
        let mut answers = self.answers.lock().unwrap();
        while answers.1 > 0 {
            let (again, timeout) =
                self.arrived.wait_timeout(answers, Duration::from_secs(60)).unwrap();
            answers = again;
            assert!(!timeout.timed_out() || answers.1 == 0, "{} pieces never came", answers.1);
        }
        answers.0.iter().map(|answer| answer.clone().unwrap()).collect()
    }
}

impl FetchSink for Sink {
    fn deliver(&self, n: usize, answer: Answer) {
        let mut answers = self.answers.lock().unwrap();
        assert!(answers.0[n].replace(answer).is_none(), "piece {n} was delivered twice");
        answers.1 -= 1;
        self.arrived.notify_all();
    }
}

fn pieces(blob: &Blob) -> Vec<Piece> {
    (0..blob.frames(FRAME)).map(|frame| Piece { blob: *blob, frame }).collect()
}

/// Reads a whole block: `None` if all of it is absent.
fn read(tier: &RedisTier, blob: &Blob) -> Result<Option<Bytes>, TierError> {
    let pieces = pieces(blob);
    let sink = Sink::new(pieces.len());
    let _request = tier.fetch(&pieces, PATIENCE, sink.clone());
    let answers = sink.all().into_iter().collect::<Result<Vec<_>, _>>()?;
    let there = answers.iter().flatten().count();
    assert!(there == 0 || there == pieces.len(), "{there} of {} frames", pieces.len());
    Ok((there > 0).then(|| answers.into_iter().flatten().flatten().collect::<Vec<_>>().into()))
}

fn block(slot: u32, bytes: u64) -> (Blob, Bytes) {
    let key = BlobKey { table: *b"table of a shard", slot: Slot(slot) };
    let mut state = u64::from(slot).wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1;
    let contents: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(bytes as usize)
    .collect();
    (Blob { key, shard: ShardId(0), offset: 4096, bytes }, contents.into())
}

/// Blocks of three frames.
fn blocks(count: u32) -> Vec<(Blob, Bytes)> {
    (0..count).map(|slot| block(slot, 2_600_000)).collect()
}

fn options(nodes: Vec<String>) -> RedisOptions {
    // The machine may be slow. Nothing here waits for it.
    RedisOptions { nodes, timeout: Duration::from_secs(30), ..RedisOptions::default() }
}

fn open(nodes: Vec<String>) -> RedisTier {
    RedisTier::open(options(nodes)).unwrap()
}

fn hash_key(blob: &Blob) -> String {
    format!("hr1:{{{}}}", blob.key)
}

fn client(server: &Server) -> redis::Connection {
    redis::Client::open(format!("redis://{}/", server.address())).unwrap().get_connection().unwrap()
}

fn words<'a>(facts: &'a [TierFact], name: &str) -> Vec<&'a str> {
    let of = |fact: &'a TierFact| match &fact.value {
        FactValue::Text(text) if fact.name == name => Some(text.as_str()),
        _ => None,
    };
    facts.iter().filter_map(of).collect()
}

fn number(facts: &[TierFact], name: &str) -> f64 {
    let of = |fact: &TierFact| match fact.value {
        FactValue::Number(number) if fact.name == name => Some(number),
        _ => None,
    };
    facts.iter().find_map(of).unwrap()
}

/// Blocks of all kinds of length come back; what is absent is absent; what is asked in vain ends.
fn round_trips(tier: &RedisTier) {
    let lengths =
        [1, FRAME - 1, FRAME, FRAME + 1, 5_898_240, 16 * FRAME, 16 * FRAME + 1, 40 * FRAME + 7];
    let blocks: Vec<_> = (0..).zip(lengths).map(|(slot, bytes)| block(slot, bytes)).collect();
    tier.put_many(&blocks[..4]).unwrap();
    for (blob, bytes) in &blocks[4..] {
        tier.put(blob, bytes).unwrap();
    }
    for (blob, bytes) in &blocks {
        assert!(read(tier, blob).unwrap().unwrap() == *bytes, "block of {} bytes", blob.bytes);
    }
    let absent = block(99, FRAME * 20).0;
    assert_eq!(read(tier, &absent).unwrap(), None);
    let blobs: Vec<_> = blocks.iter().map(|(blob, _)| *blob).chain([absent]).collect();
    let mut expected = vec![true; blocks.len()];
    expected.push(false);
    assert_eq!(tier.holds(&blobs).unwrap(), expected);
    let cut = blocks[0].1.slice(..0);
    assert!(matches!(tier.put(&blocks[0].0, &cut), Err(TierError::Refused(_))));
}

/// Files come back, are replaced whole, and are swapped by one of those who try.
fn files(tier: &RedisTier) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("file");
    for bytes in [0, 1, FRAME, 3 * FRAME + 1, 20 * FRAME, 100] {
        let contents = block(bytes as u32, bytes).1;
        std::fs::write(&path, &contents).unwrap();
        tier.put_file("chunks/000001.zst", &path).unwrap();
        assert_eq!(tier.file_bytes("chunks/000001.zst").unwrap(), Some(bytes));
        let mut copy = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut copy, b"before").unwrap();
        let got = tier.get_file("chunks/000001.zst", bytes, &mut copy).unwrap();
        assert_eq!(got, Some(bytes));
        let mut read = Vec::new();
        copy.rewind().unwrap();
        copy.read_to_end(&mut read).unwrap();
        assert!(read == [b"before", &contents[..]].concat(), "file of {bytes} bytes");
        assert!(tier.read_small("chunks/000001.zst", bytes).unwrap().unwrap() == contents);
        if bytes > 0 {
            assert!(tier.read_small("chunks/000001.zst", bytes - 1).is_err());
        }
    }
    assert_eq!(tier.file_bytes("chunks/000002.zst").unwrap(), None);
    assert_eq!(tier.read_small("chunks/000002.zst", 9).unwrap(), None);
    assert!(matches!(tier.file_bytes("a{b}"), Err(TierError::Refused(_))));

    assert_eq!(tier.swap_small("CURRENT", Some(b"0"), b"1").unwrap(), Swapped::Changed);
    assert_eq!(tier.swap_small("CURRENT", None, b"0").unwrap(), Swapped::Done);
    assert_eq!(tier.swap_small("CURRENT", None, b"1").unwrap(), Swapped::Changed);
    let winners = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for round in 0..20 {
                    // Another's round may be over already, which is no win.
                    let (old, new) = (round.to_string(), (round + 1).to_string());
                    let swapped = tier.swap_small("CURRENT", Some(old.as_bytes()), new.as_bytes());
                    if swapped.unwrap() == Swapped::Done {
                        *winners.lock().unwrap() += 1;
                    }
                }
            });
        }
    });
    let last = tier.read_small("CURRENT", 9).unwrap().unwrap();
    assert_eq!(winners.into_inner().unwrap().to_string().as_bytes(), &last[..]);
}

struct InRedis(Arc<RedisTier>);

impl Harness for InRedis {
    fn tier(&self) -> Arc<dyn Tier> {
        self.0.clone()
    }

    fn fill(&self, blobs: &[(Blob, Bytes)]) {
        self.0.put_many(blobs).unwrap();
    }

    fn writable(&self) -> bool {
        true
    }
}

/// Runs the suite that every tier passes.
fn keeps_promises(nodes: Vec<String>) {
    let tier = Arc::new(open(nodes));
    run_files(&*tier);
    run_blocks(InRedis(tier));
}

/// A file of several hashes that is replaced while it is read is seen whole, and leaves nothing behind.
#[test]
fn long_files_are_seen_whole_while_they_are_replaced() {
    let Some(_turn) = turn() else { return };
    let dir = TempDir::new().unwrap();
    let server = Server::single(Program::Redis, &dir, &[]);
    let tier = open(vec![server.address()]);
    let versions = [block(1, 20 * FRAME).1, block(2, 17 * FRAME + 1).1, block(3, 10).1];
    let paths = [0, 1, 2].map(|n| dir.path().join(n.to_string()));
    for (path, contents) in paths.iter().zip(&versions) {
        std::fs::write(path, contents).unwrap();
    }
    tier.put_file("f", &paths[0]).unwrap();
    let mut reads = 0;
    std::thread::scope(|scope| {
        let replacing = scope.spawn(|| {
            for n in 1..30 {
                tier.put_file("f", &paths[n % 3]).unwrap();
            }
        });
        while !replacing.is_finished() || reads < 3 {
            let found = tier.read_small("f", 30 * FRAME).unwrap().unwrap();
            assert!(versions.contains(&found), "{} bytes of no version", found.len());
            reads += 1;
        }
    });
    // What another version had is gone.
    tier.put_file("f", &paths[2]).unwrap();
    assert_eq!(server.cli(&["DBSIZE"]).trim(), "1");
}

#[test]
fn servers_are_there_where_they_are_asked_for() {
    if services().is_none() {
        return;
    }
    for (name, version) in
        [("redis-server", "v="), ("redis-cli", "redis-cli "), ("valkey-server", "v=9.")]
    {
        let said = std::process::Command::new(program(name)).arg("--version").output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains(version), "{name} --version says {said:?}");
    }
}

#[test]
fn single_servers_keep_the_promises_of_tiers() {
    let Some(_turn) = turn() else { return };
    for kind in [Program::Redis, Program::Valkey] {
        let dir = TempDir::new().unwrap();
        let server = Server::single(kind, &dir, &[]);
        keeps_promises(vec![server.address()]);
    }
}

#[test]
fn clusters_keep_the_promises_of_tiers() {
    let Some(_turn) = turn() else { return };
    for kind in [Program::Redis, Program::Valkey] {
        let cluster = Cluster::start(kind);
        keeps_promises(cluster.addresses());
    }
}

#[test]
fn round_trips_on_a_cluster() {
    let Some(_turn) = turn() else { return };
    for kind in [Program::Redis, Program::Valkey] {
        let cluster = Cluster::start(kind);
        let nodes = cluster.addresses()[2..].to_vec();
        let tier = RedisTier::open(RedisOptions { copies: 1, ..options(nodes.clone()) }).unwrap();
        round_trips(&tier);
        files(&tier);
        // A replica may copy all anew after the cluster was made.
        cluster.nodes[0].wait_for("replicas with a link", |_| {
            number(&tier.probe().unwrap(), "replicas_up") == 3.0
        });
        let facts = tier.probe().unwrap();
        assert_eq!(words(&facts, "mode"), ["cluster"]);
        assert!(words(&facts, "version")[0].starts_with(&format!("{kind:?} ")), "{facts:?}");
        assert_eq!((number(&facts, "masters"), number(&facts, "replicas_up")), (3.0, 3.0));
        assert_eq!(words(&facts, "warning"), [""; 0]);
        // Both copies of each slot are read.
        let blocks = blocks(30);
        tier.put_many(&blocks).unwrap();
        let before: Vec<_> = cluster.nodes.iter().map(Server::reads).collect();
        // Copies get reads in turn only in the long run: one that had more than its share waits.
        let mut rounds = 0;
        while cluster.nodes.iter().zip(&before).any(|(node, before)| node.reads() == *before) {
            assert!(rounds < 100, "nothing was read from one of the nodes");
            rounds += 1;
            for (blob, bytes) in &blocks {
                assert!(read(&tier, blob).unwrap().unwrap() == *bytes);
            }
        }
        // More copies than there are replicas.
        let greedy = RedisTier::open(RedisOptions { copies: 2, ..options(nodes) }).unwrap();
        let error = greedy.put(&blocks[0].0, &blocks[0].1).unwrap_err();
        assert!(error.to_string().contains("1 replicas that confirm"), "{error}");
        assert!(words(&greedy.probe().unwrap(), "warning")[0].contains("copies=2"));
    }
}

#[test]
fn round_trips_on_a_single_server() {
    let Some(_turn) = turn() else { return };
    for kind in [Program::Redis, Program::Valkey] {
        let dir = TempDir::new().unwrap();
        let server = Server::single(kind, &dir, &[]);
        let tier = open(vec![server.address()]);
        round_trips(&tier);
        files(&tier);
        let facts = tier.probe().unwrap();
        assert_eq!(words(&facts, "mode"), ["single"]);
        assert!(number(&facts, "memory_free_bytes") > 0.0);
        assert!(words(&facts, "warning").is_empty());
        let options = RedisOptions { role: TierRole::Cache, ..options(vec![server.address()]) };
        let cache = RedisTier::open(options).unwrap();
        let warnings = cache.probe().unwrap();
        assert!(words(&warnings, "warning")[0].contains("allkeys"), "{warnings:?}");
        let two = open(vec![server.address(), "127.0.0.1:1".to_owned()]);
        assert!(matches!(two.probe(), Err(TierError::Refused(_))));
    }
}

/// Reads `count` blocks in turn, with `at` called before each, and prints how long they took.
fn read_in_turn(
    name: &str,
    tier: &RedisTier,
    blocks: &[(Blob, Bytes)],
    count: usize,
    mut at: impl FnMut(usize),
) {
    let (mut times, mut errors, mut wrong) = (Vec::new(), Vec::new(), 0);
    for (n, (blob, bytes)) in blocks.iter().cycle().take(count).enumerate() {
        at(n);
        let start = Instant::now();
        match read(tier, blob) {
            Ok(Some(read)) => wrong += usize::from(read != *bytes),
            Ok(None) => errors.push("absent".to_owned()),
            Err(error) => errors.push(error.to_string()),
        }
        times.push(start.elapsed());
    }
    times.sort();
    let (median, longest) = (times[count / 2], times[count - 1]);
    println!(
        "{name}: {count} reads, median {median:?}, longest {longest:?}, {} failed",
        errors.len()
    );
    assert!(errors.is_empty(), "{} of {count} failed, such as {}", errors.len(), errors[0]);
    assert_eq!(wrong, 0);
}

/// Reads while `end` ends a master and its replica takes over, then while `begin` brings it back, until it is
/// read again.
fn replace_a_master(kind: Program, end: fn(&mut Server), begin: fn(&mut Server)) {
    let full = std::env::var("SERVICES").is_ok_and(|services| services == "full");
    let reads = if full { 3000 } else { 600 };
    let mut cluster = Cluster::start_with(kind, NODE_TIMEOUT);
    let tier = open(cluster.addresses());
    let blocks = blocks(30);
    tier.put_many(&blocks).unwrap();
    let (master, replica) = cluster.a_master_and_its_replica();
    read_in_turn(&format!("{kind:?}"), &tier, &blocks, reads, |n| {
        if n == reads / 10 {
            end(&mut cluster.nodes[master]);
        }
    });
    cluster.nodes[replica].wait_for("new master", |node| {
        read_in_turn("taking over", &tier, &blocks, 30, |_| {});
        node.info("role") == "master"
    });
    read_in_turn("taken over", &tier, &blocks, reads / 10, |_| {});
    begin(&mut cluster.nodes[master]);
    let node = &cluster.nodes[master];
    node.wait_for("link to its new master", |node| {
        read_in_turn("coming back", &tier, &blocks, 30, |_| {});
        node.info("master_link_status") == "up"
    });
    let (start, before) = (Instant::now(), node.reads());
    while node.reads() == before {
        assert!(start.elapsed() < Duration::from_secs(30), "the node is not used");
        read_in_turn("back", &tier, &blocks, 10, |_| {});
    }
    println!("{kind:?}: used again {:?} after it had its copy", start.elapsed());
}

#[test]
fn a_master_that_dies_is_not_noticed_and_is_used_when_it_is_back() {
    let Some(_turn) = turn() else { return };
    for kind in [Program::Redis, Program::Valkey] {
        replace_a_master(kind, Server::kill, Server::restart);
    }
}

#[test]
fn a_master_that_hangs_is_not_noticed_and_is_used_when_it_goes_on() {
    let Some(_turn) = turn() else { return };
    for kind in [Program::Redis, Program::Valkey] {
        replace_a_master(kind, |node| node.stop(), |node| node.go_on());
    }
}

#[test]
fn the_third_without_master_and_replica_fails_soon_and_the_rest_is_right() {
    let Some(_turn) = turn() else { return };
    let mut cluster = Cluster::start_with(Program::Redis, NODE_TIMEOUT);
    let timeout = Duration::from_secs(2);
    let tier = RedisTier::open(RedisOptions { timeout, ..options(cluster.addresses()) }).unwrap();
    let blocks = blocks(30);
    tier.put_many(&blocks).unwrap();
    let (master, replica) = cluster.a_master_and_its_replica();
    let mut node = client(&cluster.nodes[master]);
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut node).unwrap();
    let keys: HashSet<_> = keys.into_iter().collect();
    assert!(!keys.is_empty() && keys.len() < blocks.len());
    cluster.nodes[replica].kill();
    cluster.nodes[master].kill();
    let mut longest = Duration::ZERO;
    for (blob, bytes) in blocks.iter().chain(&blocks) {
        let start = Instant::now();
        let found = read(&tier, blob);
        longest = longest.max(start.elapsed());
        if keys.contains(&hash_key(blob)) {
            assert!(matches!(found, Err(TierError::Unreachable(_))), "{:?}", found.err());
        } else {
            assert!(found.unwrap().unwrap() == *bytes);
        }
    }
    println!("master and replica gone: longest {longest:?}");
    assert!(longest < PATIENCE);
    assert!(tier.put(&blocks[0].0, &blocks[0].1).is_ok() || keys.contains(&hash_key(&blocks[0].0)));
}

#[test]
fn slots_that_move_under_load_are_followed() {
    let Some(_turn) = turn() else { return };
    let mut cluster = Cluster::start(Program::Redis);
    let tier = open(cluster.addresses());
    let blocks = blocks(60);
    tier.put_many(&blocks).unwrap();
    cluster.add();
    let (master, _) = cluster.a_master_and_its_replica();
    let (old, new) = (&cluster.nodes[master], &cluster.nodes[6]);
    let said = old.cli(&["--cluster", "add-node", &new.address(), &old.address()]);
    assert!(said.contains("[OK] New node added"), "{said}");
    let id = |node: &Server| node.cli(&["CLUSTER", "MYID"]).trim().to_owned();
    let (from, to, at) = (id(old), id(new), old.address());
    for node in &cluster.nodes {
        node.wait_for("new node", |node| node.cli(&["CLUSTER", "NODES"]).contains(&to));
    }
    let done = AtomicBool::new(false);
    let mut rounds = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let cli = services().unwrap().join("bin/redis-cli");
            let moved = std::process::Command::new(cli)
                .args(["--cluster", "reshard", &at, "--cluster-from", &from, "--cluster-to", &to])
                .args(["--cluster-slots", "2000", "--cluster-yes", "--cluster-timeout", "60000"])
                .output();
            done.store(true, Ordering::SeqCst);
            let moved = moved.unwrap();
            assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stdout));
        });
        while !done.load(Ordering::SeqCst) {
            read_in_turn("slots move", &tier, &blocks, blocks.len(), |_| {});
            rounds += 1;
        }
    });
    assert!(rounds > 0);
    let before = new.reads();
    read_in_turn("slots moved", &tier, &blocks, blocks.len(), |_| {});
    assert!(new.reads() > before, "the new node is not used");
    // Writing goes to the new owner as well.
    tier.put_many(&blocks).unwrap();
}

#[test]
fn a_cache_that_is_too_small_holds_whole_blocks_or_nothing() {
    let Some(_turn) = turn() else { return };
    let dir = TempDir::new().unwrap();
    let flags = ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lfu"];
    let server = Server::single(Program::Redis, &dir, &flags);
    let options = RedisOptions { role: TierRole::Cache, ..options(vec![server.address()]) };
    let tier = RedisTier::open(options).unwrap();
    assert!(words(&tier.probe().unwrap(), "warning").is_empty());
    let blocks = blocks(80);
    tier.put_many(&blocks).unwrap();
    let mut whole = 0;
    for (blob, bytes) in &blocks {
        // `read` fails on a block of which a part is there.
        if let Some(read) = read(&tier, blob).unwrap() {
            assert!(read == *bytes);
            whole += 1;
        }
    }
    println!("{whole} of {} blocks are whole, the others absent", blocks.len());
    assert!(whole > 10 && whole < 60);
    // A place for all blocks says that this policy drops some.
    let facts = open(vec![server.address()]).probe().unwrap();
    assert!(words(&facts, "warning")[0].contains("allkeys-lfu"));
}

#[test]
fn a_full_server_says_so() {
    let Some(_turn) = turn() else { return };
    let dir = TempDir::new().unwrap();
    let server = Server::single(Program::Redis, &dir, &["--maxmemory", "20mb"]);
    let tier = open(vec![server.address()]);
    let blocks = blocks(20);
    let full = blocks.iter().find_map(|(blob, bytes)| tier.put(blob, bytes).err());
    assert!(matches!(full, Some(TierError::Full(_))), "{full:?}");
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("file"), &blocks[0].1).unwrap();
    assert!(matches!(tier.put_file("f", &dir.path().join("file")), Err(TierError::Full(_))));
    // What was there before is still right.
    assert!(read(&tier, &blocks[0].0).unwrap().unwrap() == blocks[0].1);
}

#[test]
fn a_wrong_password_is_named() {
    let Some(_turn) = turn() else { return };
    let dir = TempDir::new().unwrap();
    let server = Server::single(Program::Redis, &dir, &[]);
    server.cli(&[
        "ACL", "SETUSER", "reader", "on", ">word", "~*", "+@read", "+ping", "+cluster", "+info",
    ]);
    server.cli(&["CONFIG", "SET", "requirepass", "secret"]);
    let (blob, bytes) = block(1, 10);
    let with = |username: Option<&str>, password: Option<&str>| {
        RedisTier::open(RedisOptions {
            username: username.map(str::to_owned),
            password: password.map(str::to_owned),
            ..options(vec![server.address()])
        })
        .unwrap()
    };
    for wrong in [with(None, None), with(None, Some("wrong")), with(Some("nobody"), Some("secret"))]
    {
        for error in [
            read(&wrong, &blob).unwrap_err(),
            wrong.put(&blob, &bytes).unwrap_err(),
            wrong.holds(&[blob]).unwrap_err(),
            wrong.probe().unwrap_err(),
            wrong.file_bytes("f").unwrap_err(),
        ] {
            assert!(matches!(error, TierError::Refused(_)), "{error:?}");
            assert!(error.to_string().contains("HYPERRAG_REDIS_PASSWORD"), "{error}");
            assert!(!error.to_string().contains("secret") && !error.to_string().contains("wrong"));
        }
    }
    let right = with(None, Some("secret"));
    right.put(&blob, &bytes).unwrap();
    assert!(!format!("{:?}", options(vec![])).contains("password"));
    let reader = with(Some("reader"), Some("word"));
    assert!(read(&reader, &blob).unwrap().unwrap() == bytes);
    let error = reader.put(&blob, &bytes).unwrap_err();
    assert!(
        matches!(error, TierError::Refused(_)) && error.to_string().contains("NOPERM"),
        "{error}"
    );
}

#[test]
fn tls_trusts_the_authorities_that_are_given_and_no_others() {
    let Some(_turn) = turn() else { return };
    let (dir, port) = (TempDir::new().unwrap(), free_port());
    let file = |name| format!("{}/tests/support/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let files = ["server.pem", "server.key", "ca.pem"].map(file);
    let port_flag = port.to_string();
    let flags = [
        ["--tls-port", &port_flag],
        ["--tls-cert-file", &files[0]],
        ["--tls-key-file", &files[1]],
        ["--tls-ca-cert-file", &files[2]],
        ["--tls-auth-clients", "no"],
    ];
    let flags = [flags.as_flattened(), &["--bind", "127.0.0.1", "127.0.0.2"]].concat();
    let server = Server::single(Program::Redis, &dir, &flags);
    let ca: &[u8] = include_bytes!("support/tls/ca.pem");
    let other: &[u8] = include_bytes!("support/tls/other-ca.pem");
    let with = |node: String, tls: bool, ca: Option<&[u8]>| {
        let ca = ca.map(<[u8]>::to_vec);
        RedisTier::open(RedisOptions { tls, ca, ..options(vec![node]) })
    };
    let at = |host: &str| format!("{host}:{port}");
    let both = [other, ca].concat();
    for (host, ca) in [("127.0.0.1", ca), ("localhost", ca), ("127.0.0.1", &both)] {
        let tier = with(at(host), true, Some(ca)).unwrap();
        round_trips(&tier);
        assert_eq!(words(&tier.probe().unwrap(), "mode"), ["single"]);
        assert!(Tier::name(&tier).starts_with("rediss://"), "{}", Tier::name(&tier));
    }
    let (blob, bytes) = block(1, 10);
    let wrong = [("127.0.0.1", Some(other)), ("127.0.0.1", None), ("127.0.0.2", Some(ca))];
    for (host, ca) in wrong {
        let tier = with(at(host), true, ca).unwrap();
        for error in [
            read(&tier, &blob).unwrap_err(),
            tier.put(&blob, &bytes).unwrap_err(),
            tier.holds(&[blob]).unwrap_err(),
            tier.probe().unwrap_err(),
            tier.file_bytes("f").unwrap_err(),
        ] {
            assert!(matches!(error, TierError::Refused(_)), "{host}: {error:?}");
            let error = error.to_string();
            assert!(
                error.contains("certificate") && error.contains("HYPERRAG_REDIS_CA"),
                "{error}"
            );
        }
    }
    // One side speaks TLS, the other does not.
    assert!(with(server.address(), true, Some(ca)).unwrap().probe().is_err());
    assert!(with(at("127.0.0.1"), false, None).unwrap().probe().is_err());
    for no_pem in [&b""[..], b"certificate", b"-----BEGIN CERTIFICATE-----\n!\n"] {
        let error = with(at("127.0.0.1"), true, Some(no_pem)).err().unwrap();
        assert!(error.to_string().contains("HYPERRAG_REDIS_CA"), "{error}");
    }
}

#[test]
fn foreign_and_damaged_fields_are_never_handed_out() {
    let Some(_turn) = turn() else { return };
    let dir = TempDir::new().unwrap();
    let server = Server::single(Program::Redis, &dir, &[]);
    let tier = open(vec![server.address()]);
    let blocks = blocks(2);
    tier.put_many(&blocks).unwrap();
    let mut raw = client(&server);
    let field = |raw: &mut redis::Connection, blob: &Blob, n: u32| -> Vec<u8> {
        redis::cmd("HGET").arg(hash_key(blob)).arg(n).query(raw).unwrap()
    };
    let own = field(&mut raw, &blocks[0].0, 0);
    let mut damaged = own.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let cut = own[..own.len() - 1].to_vec();
    let others = field(&mut raw, &blocks[1].0, 0);
    let next = field(&mut raw, &blocks[0].0, 1);
    for (contents, why) in [
        (damaged, "checksum"),
        (cut, "bytes in place of"),
        (others, "another block"),
        (next, "another frame"),
        (b"something else".to_vec(), "shorter"),
        (vec![b'x'; own.len()], "not written by hyperrag"),
    ] {
        let key = hash_key(&blocks[0].0);
        redis::cmd("HSET").arg(key).arg(0).arg(contents).query::<()>(&mut raw).unwrap();
        let error = read(&tier, &blocks[0].0).unwrap_err();
        assert!(matches!(error, TierError::Protocol(_)), "{error:?}");
        assert!(error.to_string().contains(why), "{error}");
    }
    let key = hash_key(&blocks[0].0);
    redis::cmd("SET").arg(key).arg("a text").query::<()>(&mut raw).unwrap();
    assert!(matches!(read(&tier, &blocks[0].0), Err(TierError::Protocol(_))));
    assert!(read(&tier, &blocks[1].0).unwrap().unwrap() == blocks[1].1);
    // The same of files.
    let path = dir.path().join("file");
    std::fs::write(&path, b"contents").unwrap();
    tier.put_file("f", &path).unwrap();
    redis::cmd("HSET").arg("hr1:file:{f}").arg(0).arg("Contents").query::<()>(&mut raw).unwrap();
    assert!(matches!(tier.read_small("f", 99), Err(TierError::Protocol(_))));
    redis::cmd("HDEL").arg("hr1:file:{f}").arg(0).query::<()>(&mut raw).unwrap();
    assert!(matches!(tier.read_small("f", 99), Err(TierError::Protocol(_))));
}

#[test]
fn a_server_that_is_gone_answers_errors_and_is_found_again() {
    let Some(_turn) = turn() else { return };
    let dir = TempDir::new().unwrap();
    let mut server = Server::single(Program::Redis, &dir, &[]);
    let tier = open(vec![server.address()]);
    let (blob, bytes) = block(1, 100);
    tier.put(&blob, &bytes).unwrap();
    server.kill();
    for _ in 0..10 {
        assert!(matches!(read(&tier, &blob), Err(TierError::Unreachable(_))));
    }
    server.restart();
    let start = Instant::now();
    while read(&tier, &blob).is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "the server is not found again");
    }
    println!("found again after {:?}", start.elapsed());
    tier.put(&blob, &bytes).unwrap();
    // A stopped server costs one wait, then nothing.
    server.stop();
    let pieces = pieces(&blob);
    let patience = Duration::from_millis(300);
    for _ in 0..20 {
        let sink = Sink::new(1);
        let start = Instant::now();
        let _request = tier.fetch(&pieces, patience, sink.clone());
        assert!(sink.all()[0].is_err());
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    server.go_on();
}

#[test]
fn a_dropped_request_is_not_sent_and_a_sink_that_panics_hurts_nobody_else() {
    struct Panics;
    impl FetchSink for Panics {
        fn deliver(&self, _: usize, _: Answer) {
            panic!("a sink of a test panics");
        }
    }
    let Some(_turn) = turn() else { return };
    let dir = TempDir::new().unwrap();
    let server = Server::single(Program::Redis, &dir, &[]);
    let tier = open(vec![server.address()]);
    let blocks = blocks(2);
    tier.put_many(&blocks).unwrap();
    let many: Vec<_> =
        std::iter::repeat_with(|| pieces(&blocks[0].0)).take(300).flatten().collect();
    let before = server.reads();
    let sink = Sink::new(many.len());
    drop(tier.fetch(&many, PATIENCE, sink.clone()));
    assert!(read(&tier, &blocks[1].0).unwrap().unwrap() == blocks[1].1);
    let reads = server.reads() - before;
    assert!(reads < 450, "{reads} reads of {}", many.len());

    let request = tier.fetch(&pieces(&blocks[0].0), PATIENCE, Arc::new(Panics));
    // What was queued behind it may get an error, but gets an answer; the next is served.
    drop(read(&tier, &blocks[1].0));
    drop(request);
    assert!(read(&tier, &blocks[1].0).unwrap().unwrap() == blocks[1].1);
    // Requests of a tier that is gone are answered.
    let sink = Sink::new(many.len());
    let _request = tier.fetch(&many, PATIENCE, sink.clone());
    drop(tier);
    assert!(sink.all().last().unwrap().is_err());
}

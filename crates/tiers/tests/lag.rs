//! Writing to a real master whose replica hangs, goes on or is gone. Runs where `HYPERRAG_SERVICES` names the folder
//! of scripts/services.sh.

#[expect(dead_code, reason = "other tests use the rest")]
mod support;

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/sink.rs"]
mod sink;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use hyperrag_core::{Blob, BlobKey, Piece, ShardId, Slot, Tier, TierError};
use hyperrag_tiers::{RedisOptions, RedisTier};
use sink::Sink;
use support::{Cluster, Program, Server, services};
use tempfile::TempDir;

const FRAME: u64 = (1 << 20) - 100;
/// Length of a block of two frames, in bytes, and number of blocks: far more than a replica may be behind.
const BLOCK: u64 = 2_000_000;
const BLOCKS: u32 = 60;

/// Runs one test at a time: each has servers of its own.
fn turn() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    services()?;
    Some(TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A master and its replica, which may be 8 MiB behind.
struct Pair {
    master: Server,
    replica: Server,
    _folders: [TempDir; 2],
}

impl Pair {
    fn start(kind: Program) -> Self {
        let folders = [(); 2].map(|()| TempDir::new().unwrap());
        let flags = [
            ["--repl-diskless-sync-delay", "0"],
            ["--repl-backlog-size", "32mb"],
            ["--client-output-buffer-limit", "replica 4gb 4gb 0"],
        ];
        let [master, replica] =
            [0, 1].map(|n: usize| Server::single(kind, &folders[n], flags.as_flattened()));
        let port = master.port.to_string();
        assert!(replica.cli(&["REPLICAOF", "127.0.0.1", &port]).contains("OK"));
        replica
            .wait_for("link to the master", |replica| replica.info("master_link_status") == "up");
        master.wait_for("replica", |master| master.info("slave0").contains("state=online"));
        Self { master, replica, _folders: folders }
    }

    fn tier(&self, copies: u32, timeout: Duration) -> RedisTier {
        let nodes = vec![self.master.address()];
        RedisTier::open(RedisOptions { nodes, copies, timeout, ..RedisOptions::default() }).unwrap()
    }

    /// Bytes that the master has sent or would send to its replica.
    fn offset(&self) -> u64 {
        self.master.info("master_repl_offset").parse().unwrap()
    }
}

fn blocks(count: u32) -> Vec<(Blob, Bytes)> {
    let of = |slot: u32| {
        let key = BlobKey { table: *b"table of a shard", slot: Slot(slot) };
        let bytes: Vec<u8> =
            (0..BLOCK).map(|n| (n.wrapping_mul(31) >> 3) as u8 ^ slot as u8).collect();
        (Blob { key, shard: ShardId(0), offset: 4096, bytes: BLOCK }, bytes.into())
    };
    (0..count).map(of).collect()
}

fn expect_all(tier: &RedisTier, blocks: &[(Blob, Bytes)]) {
    for (blob, bytes) in blocks {
        let pieces: Vec<_> =
            (0..blob.frames(FRAME)).map(|frame| Piece { blob: *blob, frame }).collect();
        let sink = Sink::new(pieces.len());
        let _request = tier.fetch(&pieces, Duration::from_secs(60), sink.clone());
        let read: Vec<u8> = sink
            .wait(pieces.len())
            .into_iter()
            .flat_map(|answer| answer.unwrap().unwrap())
            .collect();
        assert!(read == *bytes, "block {}", blob.key);
    }
}

#[test]
fn a_writer_waits_while_a_replica_hangs_and_goes_on_with_it() {
    let Some(_turn) = turn() else { return };
    for kind in [Program::Redis, Program::Valkey] {
        let pair = Pair::start(kind);
        let tier = pair.tier(0, Duration::from_secs(120));
        let (blocks, before) = (blocks(BLOCKS), pair.offset());
        pair.replica.stop();
        thread::scope(|scope| {
            let writing = scope.spawn(|| tier.put_many(&blocks));
            pair.master.wait_for("wait for the replica", |_| tier.write_waits().now.is_some());
            let now = tier.write_waits().now.unwrap();
            assert!(now.contains("MiB behind") && now.contains(&pair.master.address()), "{now}");
            // Nothing but signs of life is written any more.
            let written = pair.offset();
            assert!(written - before < 48 << 20, "{}", written - before);
            thread::sleep(Duration::from_millis(500));
            assert!(!writing.is_finished() && pair.offset() - written < 1 << 20);
            pair.replica.go_on();
            writing.join().unwrap().unwrap();
        });
        let waits = tier.write_waits();
        assert!(waits.waited >= Duration::from_millis(500) && waits.now.is_none(), "{waits:?}");
        expect_all(&tier, &blocks);
        let keys = pair.master.cli(&["DBSIZE"]);
        pair.replica.wait_for("whole copy", |replica| replica.cli(&["DBSIZE"]) == keys);
        let told =
            |master: &Server| master.info("slave0").contains(&format!("offset={},", pair.offset()));
        pair.master.wait_for("word of the replica", told);
        // A replica that follows is not waited for.
        let quick = pair.tier(1, Duration::from_secs(120));
        quick.put_many(&blocks[..4]).unwrap();
        assert!(quick.write_waits().waited.is_zero());
    }
}

#[test]
fn a_replica_that_does_not_move_is_waited_for_once() {
    let Some(_turn) = turn() else { return };
    let pair = Pair::start(Program::Redis);
    let timeout = Duration::from_secs(2);
    let tier = pair.tier(0, timeout);
    let blocks = blocks(BLOCKS);
    pair.replica.stop();
    tier.put_many(&blocks).unwrap();
    let waited = tier.write_waits().waited;
    assert!(waited >= timeout, "{waited:?}");
    tier.put_many(&blocks).unwrap();
    assert_eq!(tier.write_waits().waited, waited);
    expect_all(&tier, &blocks);
    // Who asked for copies is told that there are none, and soon.
    let error = pair.tier(1, timeout).put_many(&blocks[..1]).unwrap_err();
    assert!(error.to_string().contains("0 replicas that confirm"), "{error}");
    pair.replica.go_on();
    pair.tier(1, Duration::from_secs(60)).put_many(&blocks[..1]).unwrap();
}

#[test]
fn writing_begins_when_every_replica_follows() {
    let Some(_turn) = turn() else { return };
    let timeout = Duration::from_secs(1);
    let folder = TempDir::new().unwrap();
    let alone = Server::single(Program::Redis, &folder, &[]);
    let options =
        |nodes, copies| RedisOptions { nodes, copies, timeout, ..RedisOptions::default() };
    let tier = |nodes: Vec<String>, copies| RedisTier::open(options(nodes, copies)).unwrap();
    let refused = |nodes: Vec<String>, copies| {
        let error = tier(nodes, copies).ready_to_write().unwrap_err();
        assert!(matches!(error, TierError::Refused(_)), "{error:?}");
        error.to_string()
    };
    tier(vec![alone.address()], 0).ready_to_write().unwrap();
    let error = refused(vec![alone.address()], 1);
    assert!(error.contains("0 replicas that follow it, not 1; start its replicas"), "{error}");

    let mut cluster = Cluster::start(Program::Redis);
    let nodes = cluster.addresses();
    tier(nodes.clone(), 1).ready_to_write().unwrap();
    let error = refused(nodes.clone(), 2);
    assert!(error.contains("1 replicas that follow it, not 2"), "{error}");
    // One of two replicas that has lost its master.
    let (master, replica) = cluster.a_master_and_its_replica();
    cluster.add();
    let [lost, to] = [6, master].map(|n: usize| &cluster.nodes[n]);
    let id = to.cli(&["CLUSTER", "MYID"]);
    let (new, old) = (lost.address(), to.address());
    let add =
        ["--cluster", "add-node", &new, &old, "--cluster-slave", "--cluster-master-id", id.trim()];
    let said = to.cli(&add);
    assert!(said.contains("[OK] New node added"), "{said}");
    lost.wait_for("link", |node| node.info("master_link_status") == "up");
    to.wait_for("second replica", |node| node.info("slave1").contains("state=online"));
    for node in &cluster.nodes {
        let known =
            |node: &Server| node.cli(&["CLUSTER", "SLOTS"]).contains(&lost.port.to_string());
        node.wait_for("word of the new replica", known);
    }
    lost.cli(&["CONFIG", "SET", "masterauth", "of another"]);
    lost.cli(&["CLIENT", "KILL", "TYPE", "master"]);
    lost.wait_for("lost link", |node| node.info("master_link_status") == "down");
    let error = refused(nodes.clone(), 1);
    let expected = format!(
        "the replica {} does not follow its master (master_link_status is down)",
        lost.address()
    );
    assert!(error.contains(&expected) && error.contains("wait until it has copied"), "{error}");
    lost.cli(&["CONFIG", "SET", "masterauth", ""]);
    let patient = Duration::from_secs(60);
    RedisTier::open(RedisOptions { timeout: patient, ..options(nodes.clone(), 1) })
        .unwrap()
        .ready_to_write()
        .unwrap();
    cluster.nodes[6].kill();
    cluster.nodes[replica].kill();
    let error = refused(nodes, 1);
    assert!(error.contains("follow") && error.contains("copies"), "{error}");
}

//! Redis and SeaweedFS over ways that are long, narrow, cut and silent. Runs where `HYPERRAG_SERVICES` names the
//! folder of scripts/services.sh.

#![expect(clippy::print_stdout, reason = "times are shown with --nocapture")]

#[path = "support/sink.rs"]
#[expect(dead_code, reason = "other tests count what came so far")]
mod sink;
#[path = "support/mod.rs"]
#[expect(dead_code, reason = "clusters are for other tests")]
mod support;
#[path = "support/weed.rs"]
mod weed;
#[path = "support/wire.rs"]
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyperrag_core::{Blob, BlobKey, FileTier, Piece, ShardId, Slot, Tier, TierError};
use hyperrag_tiers::{ObjectLogin, ObjectOptions, ObjectTier, RedisOptions, RedisTier};
use sink::Sink;
use support::{Program, Server, services};
use tempfile::TempDir;
use wire::Wire;

const BLOCKS: u32 = 12;
const BLOCK: u64 = 1_500_000;
const LONG: Duration = Duration::from_secs(30);

/// A tier at the end of a way, and what it holds.
struct Far {
    tier: Arc<dyn Tier>,
    wire: Wire,
    blocks: Vec<(Blob, Bytes)>,
}

impl Far {
    /// Reads a block.
    fn read(&self, n: usize, patience: Duration) -> Result<Bytes, TierError> {
        let blob = self.blocks[n].0;
        let frame_bytes = self.tier.shape().frame_bytes;
        let pieces: Vec<_> =
            (0..blob.frames(frame_bytes)).map(|frame| Piece { blob, frame }).collect();
        let sink = Sink::new(pieces.len());
        let fetch = self.tier.fetch(&pieces, patience, sink.clone());
        fetch.allow(pieces.len());
        let answers = sink.wait(pieces.len()).into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(answers.into_iter().flat_map(Option::unwrap).collect::<Vec<u8>>().into())
    }

    /// Reads every block, and fails if one does not come or is wrong.
    fn is_right(&self) {
        for (n, (_, bytes)) in self.blocks.iter().enumerate() {
            assert!(self.read(n, LONG).unwrap() == *bytes, "block {n}");
        }
    }

    /// Reads until a block comes again.
    fn comes_back(&self) {
        let start = Instant::now();
        while let Err(error) = self.read(0, LONG) {
            assert!(start.elapsed() < LONG, "{error}");
            std::thread::sleep(Duration::from_millis(50));
        }
        println!("{}: there again after {:?}", self.tier.name(), start.elapsed());
        self.is_right();
    }
}

fn blocks() -> Vec<(Blob, Bytes)> {
    let block = |slot: u32| {
        let key = BlobKey { table: *b"table of a shard", slot: Slot(slot) };
        let offset = 4096 + u64::from(slot) * BLOCK;
        let byte = |n: u64| ((n * n) >> 7) as u8 ^ slot as u8;
        let bytes: Vec<u8> = (0..BLOCK).map(byte).collect();
        (Blob { key, shard: ShardId(0), offset, bytes: BLOCK }, bytes.into())
    };
    (0..BLOCKS).map(block).collect()
}

/// A single Redis at the end of a way.
fn redis(server: &Server) -> Far {
    let blocks = blocks();
    let wire = Wire::to(server.port);
    let nodes = vec![format!("127.0.0.1:{}", wire.port)];
    let options = RedisOptions { nodes, timeout: LONG, ..RedisOptions::default() };
    let tier = RedisTier::open(options).unwrap();
    tier.put_many(&blocks).unwrap();
    Far { tier: Arc::new(tier), wire, blocks }
}

/// SeaweedFS at the end of a way.
fn bucket(weed: &weed::Weed) -> Far {
    let blocks = blocks();
    let wire = Wire::to(weed.endpoint.rsplit(':').next().unwrap().parse().unwrap());
    let tier = ObjectTier::open(&options(&format!("http://127.0.0.1:{}", wire.port))).unwrap();
    let mut shard = vec![0; 4096];
    blocks.iter().for_each(|(_, bytes)| shard.extend_from_slice(bytes));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), shard).unwrap();
    let name = format!("shards/000000.{}.kv", blocks[0].0.key.table_name());
    tier.put_file(&name, file.path()).unwrap();
    Far { tier: Arc::new(tier), wire, blocks }
}

fn options(endpoint: &str) -> ObjectOptions {
    ObjectOptions {
        endpoint: Some(endpoint.to_owned()),
        allow_http: true,
        login: ObjectLogin::Keys {
            access_key: "key".to_owned(),
            secret_key: "secret".to_owned(),
            session_token: None,
        },
        ..ObjectOptions::new("s3://bucket/prefix")
    }
}

/// Tries a tier on a long and narrow way, then on one that is cut while it reads, then on one that is silent.
fn survives(far: &Far) {
    far.is_right();
    far.wire.shape(Duration::from_millis(30), 20_000_000);
    far.is_right();

    let done = AtomicBool::new(false);
    let (mut right, mut failed) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..10 {
                std::thread::sleep(Duration::from_millis(400));
                far.wire.cut();
            }
            done.store(true, SeqCst);
        });
        while !done.load(SeqCst) {
            for (n, (_, bytes)) in far.blocks.iter().enumerate() {
                match far.read(n, LONG) {
                    Ok(read) => {
                        assert!(read == *bytes, "block {n}");
                        right += 1;
                    }
                    Err(TierError::Unreachable(_) | TierError::Timeout(_)) => failed += 1,
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
    });
    println!("{}: {right} blocks read, {failed} failed while it was cut", far.tier.name());
    far.comes_back();

    far.wire.silence(true);
    let patience = Duration::from_millis(300);
    for n in 0..far.blocks.len() {
        let start = Instant::now();
        assert!(far.read(n, patience).is_err());
        assert!(start.elapsed() < LONG, "block {n} took {:?}", start.elapsed());
    }
    far.wire.cut();
    far.wire.silence(false);
    far.comes_back();
}

#[test]
fn redis_is_right_over_bad_ways() {
    if services().is_none() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let server = Server::single(Program::Redis, &dir, &[]);
    survives(&redis(&server));
}

#[test]
fn a_bucket_is_right_over_bad_ways() {
    if let Some(weed) = weed::Weed::start(options, ("key", "secret")) {
        survives(&bucket(&weed));
    }
}

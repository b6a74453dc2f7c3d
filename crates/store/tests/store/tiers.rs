//! Blocks from tiers: at hand and distant, in frames and streams, absent, wrong and late.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyperrag_core::{
    Blob, BlobKey, Fetch, FetchSink, Piece, Tier, TierError, TierFact, TierRole, TierShape,
};
use hyperrag_store::{TierChoice, TierWork, Tiered};
use hyperrag_tiers::{FaultRates, Faulty, RamTier};

use super::*;

/// A tier that answers from another thread, some time later.
struct Distant {
    name: &'static str,
    shape: TierShape,
    delay: Duration,
    blocks: Mutex<HashMap<BlobKey, Bytes>>,
    /// Whether it never answers.
    silent: AtomicBool,
    asked: AtomicU64,
}

impl Distant {
    fn new(frame_bytes: u64, streams: bool, role: TierRole) -> Arc<Self> {
        let shape = TierShape { frame_bytes, streams, immediate: false, role };
        let (delay, silent) = (Duration::from_micros(200), AtomicBool::new(false));
        let (blocks, asked) = (Mutex::default(), AtomicU64::new(0));
        Arc::new(Self { name: "distant", shape, delay, blocks, silent, asked })
    }
}

/// Number of pieces that a stream may deliver, and whether it was dropped.
#[derive(Default)]
struct Leave(Mutex<usize>, Condvar, AtomicBool);

struct Request(Arc<Leave>);

impl Fetch for Request {
    fn allow(&self, end: usize) {
        let mut allowed = self.0.0.lock().unwrap();
        *allowed = end.max(*allowed);
        self.0.1.notify_all();
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.0.2.store(true, SeqCst);
        self.0.1.notify_all();
    }
}

impl Tier for Distant {
    fn name(&self) -> &str {
        self.name
    }

    fn shape(&self) -> TierShape {
        self.shape
    }

    fn fetch(&self, pieces: &[Piece], _: Duration, to: Arc<dyn FetchSink>) -> Box<dyn Fetch> {
        self.asked.fetch_add(1, SeqCst);
        let leave = Arc::new(Leave::default());
        let request = Box::new(Request(Arc::clone(&leave)));
        if self.silent.load(SeqCst) {
            return request;
        }
        let blocks = self.blocks.lock().unwrap();
        let answer = |piece: &Piece| {
            let block = blocks.get(&piece.blob.key)?;
            let range = piece.blob.frame(piece.frame, self.shape.frame_bytes);
            Some(block.slice(range.start as usize..range.end as usize))
        };
        let answers: Vec<Option<Bytes>> = pieces.iter().map(answer).collect();
        let (delay, streams) = (self.delay, self.shape.streams);
        thread::spawn(move || {
            thread::sleep(delay);
            for (n, answer) in answers.into_iter().enumerate() {
                let mut allowed = leave.0.lock().unwrap();
                while streams && *allowed <= n && !leave.2.load(SeqCst) {
                    allowed = leave.1.wait(allowed).unwrap();
                }
                drop(allowed);
                if leave.2.load(SeqCst) {
                    return;
                }
                to.deliver(n, Ok(answer));
            }
        });
        request
    }

    fn put(&self, blob: &Blob, bytes: &Bytes) -> Result<(), TierError> {
        self.blocks.lock().unwrap().insert(blob.key, bytes.clone());
        Ok(())
    }

    fn holds(&self, blobs: &[Blob]) -> Result<Vec<bool>, TierError> {
        let blocks = self.blocks.lock().unwrap();
        Ok(blobs.iter().map(|blob| blocks.contains_key(&blob.key)).collect())
    }

    fn probe(&self) -> Result<Vec<TierFact>, TierError> {
        Ok(Vec::new())
    }
}

const PATIENCE: Duration = Duration::from_millis(100);

fn choice(tier: Arc<dyn Tier>) -> TierChoice {
    TierChoice::Tier { tier, patience: PATIENCE }
}

/// Puts every block of a store into a tier, with the bytes of its shards.
fn fill(root: &Path, tier: &dyn Tier) {
    let manifest = Store::open(root).unwrap().manifest().clone();
    for record in &manifest.shards {
        let bytes = fs::read(shard(root, record.shard.0)).unwrap();
        let number = |at: usize, n: usize| {
            let mut field = [0; 8];
            field[..n].copy_from_slice(&bytes[at..at + n]);
            u64::from_le_bytes(field)
        };
        for slot in 0..record.chunks as u32 {
            let entry = HEADER + slot as usize * ENTRY;
            let (offset, length) = (number(entry + 32, 8), number(entry + 40, 8));
            let table = *record.kv.digest.0.first_chunk().unwrap();
            let key = BlobKey { table, slot: Slot(slot) };
            let blob = Blob { key, shard: record.shard, offset, bytes: length };
            let block = bytes[offset as usize..(offset + length) as usize].to_vec();
            tier.put(&blob, &Bytes::from(block)).unwrap();
        }
    }
}

/// Reads all blocks layer by layer, and whole, and compares them with those of the store's folder.
fn check(root: &Path, store: &Tiered, shards: u32) -> usize {
    let folder = Store::open(root).unwrap();
    let mut failovers = 0;
    for number in 0..shards {
        let expected = folder.get_many(&keys(number));
        let mut buffer = Vec::new();
        for (expected, opened) in expected.iter().zip(store.open_many(&keys(number))) {
            let (expected, block) = (expected.as_ref().unwrap().as_ref().unwrap(), opened.unwrap());
            let block = block.unwrap();
            for layer in 0..2 {
                block.prefetch(layer + 1);
                assert_eq!(block.layer(layer, &mut buffer).unwrap(), expected.layer(layer));
            }
            assert_eq!(block.hidden().unwrap(), expected.hidden());
            // A layer may be read again, after its frames were dropped.
            assert_eq!(block.layer(0, &mut buffer).unwrap(), expected.layer(0));
            failovers += block.failovers().len();
        }
        for (expected, read) in expected.iter().zip(store.get_many(&keys(number))) {
            let (expected, read) = (expected.as_ref().unwrap(), read.unwrap());
            assert_eq!(kv_of(read.as_ref()), kv_of(expected.as_ref()));
        }
    }
    failovers
}

fn kv_of(block: Option<&KvBlock>) -> (Vec<u8>, Vec<f32>) {
    let block = block.unwrap();
    (block.kv().to_vec(), block.hidden().to_vec())
}

fn work(store: &Tiered, n: usize) -> TierWork {
    store.tier_work().remove(n)
}

#[test]
fn blocks_come_from_frames_of_any_length_and_from_streams() {
    let folder = store(3);
    let root = folder.path();
    for frame_bytes in [1, 7, 64, 100, 4096, u64::from(u32::MAX)] {
        for streams in [false, true] {
            let tier = Distant::new(frame_bytes, streams, TierRole::Home);
            fill(root, &*tier);
            let store = Tiered::open(root).unwrap().with_tiers(vec![choice(tier)]);
            assert_eq!(check(root, &store, 3), 0, "{frame_bytes} {streams}");
            let work = work(&store, 0);
            assert_eq!((work.misses, work.failures), (0, 0));
            assert!(work.hits > 0 && work.bytes > 0 && work.wait_p50_seconds.is_some());
        }
    }
}

#[test]
fn a_block_that_several_want_at_one_time_is_fetched_once() {
    let folder = store(1);
    let root = folder.path();
    for streams in [false, true] {
        let tier = Distant::new(64, streams, TierRole::Home);
        fill(root, &*tier);
        let bytes: u64 = tier.blocks.lock().unwrap().values().map(|b| b.len() as u64).sum();
        let store = Tiered::open(root).unwrap().with_tiers(vec![choice(tier)]);
        let twice = [keys(0), keys(0)].concat();
        let other = store.open_many(&keys(0));
        let readers: Vec<_> = store.open_many(&twice).into_iter().chain(other).collect();
        let readers: Vec<_> = readers.into_iter().map(|block| block.unwrap().unwrap()).collect();
        let expected = Store::open(root).unwrap().get_many(&keys(0));
        let mut buffer = Vec::new();
        for layer in 0..2 {
            for (reader, expected) in readers.iter().zip(expected.iter().cycle()) {
                let expected = expected.as_ref().unwrap().as_ref().unwrap();
                assert_eq!(reader.layer(layer, &mut buffer).unwrap(), expected.layer(layer));
            }
        }
        for (reader, expected) in readers.iter().zip(expected.iter().cycle()) {
            assert_eq!(
                reader.hidden().unwrap(),
                expected.as_ref().unwrap().as_ref().unwrap().hidden()
            );
        }
        assert_eq!((work(&store, 0).bytes, work(&store, 0).hits), (bytes, keys(0).len() as u64));
        // A block that nobody reads is forgotten, and fetched anew.
        drop(readers);
        assert_eq!(check(root, &store, 1), 0);
        assert!(work(&store, 0).hits > keys(0).len() as u64);
    }
}

#[test]
fn a_store_without_its_shards_reads_from_a_tier_by_its_tables() {
    let folder = store(2);
    let root = folder.path();
    let copy = TempDir::new().unwrap();
    let mut command = std::process::Command::new("cp");
    assert!(command.arg("-r").args([root, copy.path()]).status().unwrap().success());
    let bare = copy.path().join(root.file_name().unwrap());
    let tier = Distant::new(64, false, TierRole::Home);
    fill(root, &*tier);
    fs::create_dir(bare.join("tables")).unwrap();
    for number in 0..2 {
        let bytes = fs::read(shard(&bare, number)).unwrap();
        let blocks = u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize;
        let end = (HEADER + blocks * ENTRY).next_multiple_of(4096);
        fs::write(bare.join(format!("tables/{number:06}.kvt")), &bytes[..end]).unwrap();
    }
    fs::remove_dir_all(bare.join("shards")).unwrap();
    let opened = || Tiered::open(&bare).unwrap().with_tiers(vec![choice(tier.clone())]);
    assert_eq!(check(root, &opened(), 2), 0);
    // A table is checked against the manifest, byte by byte.
    let table = bare.join("tables/000001.kvt");
    let whole = fs::read(&table).unwrap();
    for at in (0..whole.len()).step_by(13) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(&table, changed).unwrap();
        let store = opened();
        let found = store.open_many(&keys(1)[..1]).remove(0);
        assert!(found.err().is_some_and(|error| error.to_string().contains("tables")), "{at}");
    }
}

#[test]
fn what_a_cache_lacks_comes_from_the_next_tier_and_stays_in_the_cache() {
    let folder = store(3);
    let root = folder.path();
    for streams in [false, true] {
        let (ram, far) =
            (Arc::new(RamTier::new(64 << 20)), Distant::new(50, streams, TierRole::Home));
        fill(root, &*far);
        let order = || vec![choice(ram.clone()), choice(far.clone())];
        let store = Tiered::open(root).unwrap().with_tiers(order());
        assert_eq!(check(root, &store, 3), 0);
        assert!(work(&store, 0).misses > 0);
        drop(store);
        let asked = far.asked.load(SeqCst);
        let store = Tiered::open(root).unwrap().with_tiers(order());
        assert_eq!(check(root, &store, 3), 0);
        assert_eq!((far.asked.load(SeqCst), work(&store, 0).misses), (asked, 0));
        assert_eq!(work(&store, 1).hits, 0);
    }
}

#[test]
fn a_cache_that_is_distant_may_miss_too() {
    let folder = store(2);
    let root = folder.path();
    let cache = Distant::new(64, false, TierRole::Cache);
    let home = Distant::new(128, true, TierRole::Home);
    fill(root, &*home);
    let order = vec![choice(cache.clone()), choice(home)];
    let store = Tiered::open(root).unwrap().with_tiers(order);
    assert_eq!(check(root, &store, 2), 0);
    drop(store);
    assert!(!cache.blocks.lock().unwrap().is_empty(), "nothing was kept");
}

#[test]
fn a_silent_tier_is_given_up_and_the_next_asked() {
    let folder = store(1);
    let root = folder.path();
    let silent = Distant::new(64, false, TierRole::Home);
    silent.silent.store(true, SeqCst);
    let order = vec![choice(silent.clone()), TierChoice::Store];
    let store = Tiered::open(root).unwrap().with_tiers(order);
    let opened = store.open_many(&keys(0)[..1]).remove(0).unwrap().unwrap();
    let expected = Store::open(root).unwrap().get_many(&keys(0)[..1]).remove(0).unwrap().unwrap();
    assert_eq!(opened.layer(0, &mut Vec::new()).unwrap(), expected.layer(0));
    let failovers = opened.failovers();
    assert!(failovers[0].what.contains("no answer within"), "{failovers:?}");
    assert_eq!(failovers[0].from, root);
    let alone = Tiered::open(root).unwrap().with_tiers(vec![choice(silent)]);
    let opened = alone.open_many(&keys(0)[..1]).remove(0).unwrap().unwrap();
    assert!(opened.layer(0, &mut Vec::new()).is_err() && opened.hidden().is_err());
}

#[test]
fn a_home_that_lacks_a_block_is_named_and_the_store_serves_it() {
    let folder = store(1);
    let root = folder.path();
    let empty = Distant::new(64, false, TierRole::Home);
    let store = Tiered::open(root).unwrap().with_tiers(vec![choice(empty), TierChoice::Store]);
    assert!(check(root, &store, 1) > 0);
    let nowhere = Tiered::open(root).unwrap();
    let nowhere = nowhere.with_tiers(vec![choice(Distant::new(64, false, TierRole::Home))]);
    let opened = nowhere.open_many(&keys(0)[..1]).remove(0).unwrap().unwrap();
    let error = opened.layer(0, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("distant") && error.contains("does not hold the block"), "{error}");
}

/// Reads blocks from two tiers whose answers are spoiled in every way. A layer is right or an error; with the
/// store's folder behind the tiers, every layer is right. `TORTURE=full` reads 300,000 blocks and more.
#[test]
#[expect(clippy::print_stdout, reason = "the counts are shown with --nocapture")]
fn no_wrong_byte_comes_from_faulty_tiers() {
    let full = std::env::var("TORTURE").is_ok_and(|torture| torture == "full");
    let folder = store(3);
    let root = folder.path();
    let (mut blocks, mut lost, mut failures) = (0, 0, 0);
    for seed in 0..if full { 1700 } else { 6 } {
        for streams in [false, true] {
            let faulty = |seed| {
                let tier = Distant::new(100, streams, TierRole::Home);
                fill(root, &*tier);
                choice(Arc::new(Faulty::new(tier, seed, FaultRates::all(8))))
            };
            let ram =
                Arc::new(Faulty::new(Arc::new(RamTier::new(8 << 20)), seed, FaultRates::all(20)));
            let mut order = vec![choice(ram), faulty(2 * seed), faulty(2 * seed + 1)];
            let homeless = seed % 2 == 0;
            if !homeless {
                order.push(TierChoice::Store);
            }
            let store = Tiered::open(root).unwrap().with_tiers(order);
            let (read, missing) = read_all(&Store::open(root).unwrap(), &store);
            assert!(homeless || missing == 0, "{missing} layers of {read} blocks are lost");
            (blocks, lost) = (blocks + read, lost + missing);
            failures += store.tier_work().iter().map(|work| work.failures).sum::<u64>();
        }
    }
    println!(
        "{blocks} blocks: {lost} layers came from neither of two faulty tiers, none was wrong"
    );
    assert!(failures > 100, "only {failures} answers were spoiled");
    assert!(lost * 20 < blocks, "{lost} layers of {blocks} blocks came from no tier");
    assert!(!full || blocks >= 300_000);
}

/// Reads all blocks of three shards in turn, and compares what comes. Returns the number of blocks, and of layers
/// and hidden states that did not come.
fn read_all(folder: &Store, store: &Tiered) -> (usize, usize) {
    let (mut read, mut lost) = (0, 0);
    for number in (0..3).cycle().take(30) {
        let expected = folder.get_many(&keys(number));
        for (expected, opened) in expected.iter().zip(store.open_many(&keys(number))) {
            let expected = expected.as_ref().unwrap().as_ref().unwrap();
            let block = opened.unwrap().unwrap();
            let mut buffer = Vec::new();
            read += 1;
            for layer in 0..2 {
                match block.layer(layer, &mut buffer) {
                    Ok(bytes) => assert_eq!(bytes, expected.layer(layer)),
                    Err(_) => lost += 1,
                }
            }
            match block.hidden() {
                Ok(hidden) => assert_eq!(hidden, expected.hidden()),
                Err(_) => lost += 1,
            }
        }
    }
    (read, lost)
}

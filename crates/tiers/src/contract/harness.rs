//! Common parts of cases: blocks of their own, a sink that keeps all deliveries, and comparisons. In: a tier. Out: what
//! it delivered. It knows no case.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyperrag_core::{
    Answer, Blob, BlobKey, Fetch, FetchSink, FileTier, Piece, ShardId, Slot, Tier,
};

/// Longest time that a case waits for what must come, far beyond what any tier needs.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// Patience of cases that do not test patience.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Offset of the first block in a shard that a case makes, in bytes. Before it lies what a tier never reads.
pub(super) const FIRST_OFFSET: u64 = 4096;

/// A tier under test, and how blocks get into it.
pub trait Harness {
    /// Returns the tier. All calls return one tier.
    fn tier(&self) -> Arc<dyn Tier>;

    /// Makes the tier hold blocks, in whatever way it holds them: by [`Tier::put`], or by shards with the blocks
    /// at their offsets. All blocks of a shard come in one call, and have one table.
    fn fill(&self, blobs: &[(Blob, Bytes)]);

    /// Whether the tier takes single blocks.
    fn writable(&self) -> bool;

    /// Whether deliveries are right. Behind [`crate::Faulty`] they are not; then the cases ask for one delivery a
    /// piece, in time, and no more.
    fn exact(&self) -> bool {
        true
    }
}

/// A promise of [`Tier`], and the test of it.
#[derive(Clone, Copy)]
pub struct Case {
    /// Name, in snake case.
    pub name: &'static str,
    /// Test, which panics where the promise is broken.
    pub run: fn(&dyn Harness),
}

/// A promise of [`FileTier`], and the test of it.
#[derive(Clone, Copy)]
pub struct FileCase {
    /// Name, in snake case.
    pub name: &'static str,
    /// Test, which panics where the promise is broken.
    pub run: fn(&dyn FileTier),
}

/// Names functions as cases.
macro_rules! name_cases {
    ($kind:ident: $($name:ident),* $(,)?) => {
        vec![$($kind { name: stringify!($name), run: $name }),*]
    };
}
pub(super) use name_cases;

/// Sink that keeps all that was delivered.
pub(super) struct Gathered {
    answers: Mutex<Vec<Vec<Answer>>>,
    arrived: Condvar,
}

impl Gathered {
    pub(super) fn new(pieces: usize) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(vec![Vec::new(); pieces]), arrived: Condvar::new() })
    }

    /// Returns the number of deliveries by piece.
    pub(super) fn counts(&self) -> Vec<usize> {
        self.answers.lock().unwrap().iter().map(Vec::len).collect()
    }

    /// Waits until `done` says so of the numbers of deliveries, or fails.
    pub(super) fn wait(&self, what: &str, done: impl Fn(&[usize]) -> bool) {
        let end = Instant::now() + DEADLINE;
        let mut answers = self.answers.lock().unwrap();
        loop {
            let counts: Vec<usize> = answers.iter().map(Vec::len).collect();
            if done(&counts) {
                return;
            }
            let left = end.saturating_duration_since(Instant::now());
            let missing = counts.iter().filter(|count| **count == 0).count();
            assert!(!left.is_zero(), "{what}: {missing} of {} are missing", counts.len());
            answers = self.arrived.wait_timeout(answers, left).unwrap().0;
        }
    }

    /// Waits until every piece was delivered, and returns the answers. Fails if one was delivered twice.
    pub(super) fn all(&self) -> Vec<Answer> {
        self.wait("waiting for all pieces", |counts| counts.iter().all(|count| *count > 0));
        self.check_no_double();
        self.answers.lock().unwrap().iter().map(|answers| answers[0].clone()).collect()
    }

    pub(super) fn check_no_double(&self) {
        assert!(self.counts().iter().all(|count| *count <= 1), "a piece was delivered twice");
    }
}

impl FetchSink for Gathered {
    fn deliver(&self, n: usize, answer: Answer) {
        self.answers.lock().unwrap()[n].push(answer);
        self.arrived.notify_all();
    }
}

/// Asks for pieces, with leave for all, and returns the answers.
pub(super) fn read_pieces(tier: &dyn Tier, pieces: &[Piece]) -> Vec<Answer> {
    let (sink, request) = ask(tier, pieces);
    request.allow(pieces.len());
    let answers = sink.all();
    drop(request);
    sink.check_no_double();
    answers
}

/// Asks for pieces, without leave.
pub(super) fn ask(tier: &dyn Tier, pieces: &[Piece]) -> (Arc<Gathered>, Box<dyn Fetch>) {
    let sink = Gathered::new(pieces.len());
    let request = tier.fetch(pieces, PATIENCE, Arc::clone(&sink) as Arc<dyn FetchSink>);
    (sink, request)
}

/// Returns all pieces of a block, in order.
pub(super) fn pieces_of(tier: &dyn Tier, blob: &Blob) -> Vec<Piece> {
    let frames = blob.frames(tier.shape().frame_bytes);
    (0..frames).map(|frame| Piece { blob: *blob, frame }).collect()
}

/// A block and its right bytes.
pub(super) type Filled = (Blob, Bytes);

/// Returns the right bytes of a piece of one of `blocks`, `None` for what none of them has.
pub(super) fn right(tier: &dyn Tier, blocks: &[Filled], piece: &Piece) -> Option<Bytes> {
    let (blob, bytes) = blocks.iter().find(|(blob, _)| blob.key == piece.blob.key)?;
    let range = blob.frame(piece.frame, tier.shape().frame_bytes);
    let range = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
    (!range.is_empty()).then(|| bytes.slice(range))
}

/// Reads pieces and compares them with the blocks that the tier was filled with.
pub(super) fn check_pieces(harness: &dyn Harness, blocks: &[Filled], pieces: &[Piece]) {
    let tier = harness.tier();
    check_answers(harness, blocks, pieces, &read_pieces(&*tier, pieces));
}

pub(super) fn check_answers(
    harness: &dyn Harness,
    blocks: &[Filled],
    pieces: &[Piece],
    answers: &[Answer],
) {
    assert_eq!(answers.len(), pieces.len());
    if !harness.exact() {
        return;
    }
    let tier = harness.tier();
    for (n, (piece, answer)) in pieces.iter().zip(answers).enumerate() {
        let expected = right(&*tier, blocks, piece);
        let name = format!("piece {n}, frame {} of {}", piece.frame, piece.blob.key);
        match (answer, &expected) {
            (Ok(Some(bytes)), Some(expected)) => {
                assert_eq!(bytes.len(), expected.len(), "length of {name}");
                assert!(bytes == expected, "bytes of {name}");
            }
            (Ok(None), None) => {}
            (answer, expected) => {
                let answer = answer.as_ref().map(|bytes| bytes.as_ref().map(Bytes::len));
                panic!("{name}: {answer:?}, not {:?}", expected.as_ref().map(Bytes::len));
            }
        }
    }
}

/// Fills the tier with new blocks of these lengths and reads all of them in one request.
pub(super) fn check_lengths(harness: &dyn Harness, lengths: &[u64]) {
    let blocks = new_blocks(lengths);
    harness.fill(&blocks);
    check_whole(harness, &blocks);
}

/// Reads all pieces of blocks in one request.
pub(super) fn check_whole(harness: &dyn Harness, blocks: &[Filled]) {
    let tier = harness.tier();
    let pieces: Vec<Piece> = blocks.iter().flat_map(|(blob, _)| pieces_of(&*tier, blob)).collect();
    check_pieces(harness, blocks, &pieces);
}

/// Returns a length that stands for a frame: of tiers without frames, a mebibyte.
pub(super) fn frame_bytes(harness: &dyn Harness) -> u64 {
    harness.tier().shape().frame_bytes.min(1 << 20)
}

/// Returns new blocks of these lengths in a new shard, with a gap after each.
pub(super) fn new_blocks(lengths: &[u64]) -> Vec<Filled> {
    static SHARD: AtomicU32 = AtomicU32::new(0);
    // Tables differ from one run to the next: some tiers outlive a run.
    static RUN: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    let shard = ShardId(SHARD.fetch_add(1, Ordering::Relaxed));
    let mut table = [0; 16];
    table[..8].copy_from_slice(&RUN.to_le_bytes());
    table[8..].copy_from_slice(&mixed(u64::from(shard.0)).to_le_bytes());
    let mut offset = FIRST_OFFSET;
    let mut blocks = Vec::new();
    for (slot, &bytes) in (0..).map(Slot).zip(lengths) {
        let blob = Blob { key: BlobKey { table, slot }, shard, offset, bytes };
        blocks.push((blob, contents(&blob)));
        offset += bytes.next_multiple_of(64) + 64;
    }
    blocks
}

/// Returns bytes that no other block has.
pub(super) fn contents(blob: &Blob) -> Bytes {
    let seed = mixed((u64::from(blob.shard.0) << 32) | u64::from(blob.key.slot.0));
    let words = (0..blob.bytes.div_ceil(8)).map(|word| mixed(seed ^ word).to_le_bytes());
    let mut bytes: Vec<u8> = words.flatten().collect();
    bytes.truncate(usize::try_from(blob.bytes).unwrap());
    bytes.into()
}

/// Returns a number that looks random (splitmix64).
pub(super) fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

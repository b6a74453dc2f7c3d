//! Object stores as tiers: a fake server that fails by seed, and, with `HYPERRAG_SERVICES`, SeaweedFS.

#![expect(clippy::print_stdout, reason = "the last case before a failure is worth reading")]

#[path = "support/fake_s3.rs"]
#[expect(dead_code, reason = "tests of shared builds watch requests and list objects")]
mod fake_s3;
#[path = "support/sink.rs"]
mod sink;
#[path = "support/suite.rs"]
mod suite;
#[path = "support/weed.rs"]
mod weed;

use std::collections::HashMap;
use std::io::{Read, Seek, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fake_s3::{BUCKET, FakeS3, Fault, KEY};
use hyperrag_core::{
    Answer, Blob, BlobKey, FactValue, FetchSink, FileTier, Piece, RangeError, ShardId, Slot,
    Swapped, Tier, TierError,
};
use hyperrag_tiers::contract::Harness;
use hyperrag_tiers::{ObjectLogin, ObjectOptions, ObjectReader, ObjectTier};
use sink::Sink;
use suite::{run_blocks, run_files};

const FRAME: u64 = 256 << 10;
const LONG: Duration = Duration::from_secs(60);

/// Bytes that differ from place to place.
fn pattern(seed: u64, len: u64) -> Vec<u8> {
    let word =
        |n: u64| (n ^ seed << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29).to_le_bytes();
    (0..len.div_ceil(8)).flat_map(word).take(len as usize).collect()
}

fn blob(shard: u32, offset: u64, bytes: u64) -> Blob {
    let key = BlobKey { table: [shard as u8; 16], slot: Slot(offset as u32) };
    Blob { key, shard: ShardId(shard), offset, bytes }
}

fn shard_name(shard: u32) -> String {
    format!("shards/{shard:06}.{}.kv", blob(shard, 0, 0).key.table_name())
}

fn pieces(blob: Blob) -> Vec<Piece> {
    (0..blob.frames(FRAME)).map(|frame| Piece { blob, frame }).collect()
}

fn options(endpoint: &str, bucket: &str, key: &str) -> ObjectOptions {
    ObjectOptions {
        endpoint: Some(endpoint.to_owned()),
        allow_http: true,
        login: ObjectLogin::Keys {
            access_key: key.to_owned(),
            secret_key: "secret".to_owned(),
            session_token: None,
        },
        patience: Duration::from_secs(20),
        ..ObjectOptions::new(format!("s3://{bucket}/pre/fix"))
    }
}

fn fake(seed: u64) -> (FakeS3, ObjectTier) {
    let server = FakeS3::start(seed);
    let tier = ObjectTier::open(&options(&server.endpoint, BUCKET, KEY)).unwrap();
    (server, tier)
}

fn file_of(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn got(tier: &ObjectTier, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, TierError> {
    let mut file = tempfile::tempfile().unwrap();
    let bytes = tier.get_file(name, bytes_max, &mut file)?;
    let mut read = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut read).unwrap();
    assert!(bytes.is_none_or(|bytes| bytes == read.len() as u64));
    Ok(bytes.map(|_| read))
}

/// Fetches all pieces of a block and returns the answers.
fn fetched(tier: &ObjectTier, pieces: &[Piece], patience: Duration) -> Vec<Answer> {
    let sink = Sink::new(pieces.len());
    let fetch = tier.fetch(pieces, patience, sink.clone());
    fetch.allow(pieces.len());
    sink.wait(pieces.len())
}

fn words(answer: &Answer) -> String {
    answer.as_ref().unwrap_err().to_string()
}

#[test]
fn ten_thousand_reads_with_faults_give_right_bytes_or_a_reason() {
    const READS: usize = 10_000;
    let (server, tier) = fake(7);
    let shards: Vec<Vec<u8>> = (0..4).map(|shard| pattern(shard, 3 << 20)).collect();
    for (shard, bytes) in shards.iter().enumerate() {
        server.store(&format!("pre/fix/{}", shard_name(shard as u32)), bytes.clone());
    }
    use Fault::*;
    let mendable = [Status(500), Status(503), Status(429), Status(409), Drop, Cut, Slow];
    let mut kinds = mendable.repeat(3);
    kinds.extend([Short, Long, Elsewhere, Short, Long, Hang]);
    server.fail(100, &kinds);
    let next = AtomicUsize::new(0);
    let failed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, SeqCst);
                    if n >= READS {
                        return;
                    }
                    let offset = (n as u64 * 7919) % (2 << 20);
                    let bytes =
                        if n.is_multiple_of(20) { 700_000 } else { 1 + (n as u64 * 31) % 40_000 };
                    let blob = blob(n as u32 % 4, offset, bytes);
                    let pieces = pieces(blob);
                    let sink = Sink::new(pieces.len());
                    let fetch = tier.fetch(&pieces, Duration::from_secs(3), sink.clone());
                    for end in 1..=pieces.len() {
                        fetch.allow(end);
                        sink.wait(end);
                    }
                    let answers = sink.wait(pieces.len());
                    drop(fetch);
                    for (piece, answer) in pieces.iter().zip(&answers) {
                        let Ok(answer) = answer else { continue };
                        let answer = answer.as_ref().expect("the shards are there");
                        let range = blob.frame(piece.frame, FRAME);
                        let start = (offset + range.start) as usize;
                        let len = (range.end - range.start) as usize;
                        assert!(**answer == shards[n % 4][start..start + len], "wrong bytes");
                    }
                    failed.fetch_add(usize::from(answers.iter().any(Result::is_err)), SeqCst);
                }
            });
        }
    });
    let faults = server.faults(|_| true);
    assert!((700..1600).contains(&faults), "{faults}");
    // What a second try mends is mended: no more reads failed than met a fault that it does not mend.
    let fatal = server.faults(|fault| matches!(fault, Short | Long | Elsewhere | Hang));
    let failed = failed.load(SeqCst);
    assert!(failed > 0 && failed <= fatal, "{failed} of {fatal}");
}

#[test]
fn pieces_of_one_block_are_one_request_of_their_range_alone() {
    let (server, tier) = fake(1);
    let bytes = pattern(1, 4 << 20);
    server.store(&format!("pre/fix/{}", shard_name(1)), bytes.clone());
    let (a, b) = (blob(1, 100, 1_000_000), blob(1, 2_000_000, 600_000));
    let piece = |blob, frame| Piece { blob, frame };
    let asked = [piece(a, 1), piece(a, 2), piece(b, 0), piece(a, 3), piece(a, 2)];
    let answers = fetched(&tier, &asked, LONG);
    for (piece, answer) in asked.iter().zip(&answers) {
        let range = piece.blob.frame(piece.frame, FRAME);
        let (start, end) = (piece.blob.offset + range.start, piece.blob.offset + range.end);
        assert_eq!(
            answer.as_ref().unwrap().as_ref().unwrap()[..],
            bytes[start as usize..end as usize]
        );
    }
    let mut ranges: Vec<_> = server.seen().into_iter().map(|seen| seen.range.unwrap()).collect();
    ranges.sort_by_key(|range| (range.start, range.end));
    let (at, end) = (100 + FRAME, 100 + 1_000_000);
    let expected = [
        at..at + 2 * FRAME,
        at + FRAME..at + 2 * FRAME,
        at + 2 * FRAME..end,
        2_000_000..2_000_000 + FRAME,
    ];
    assert_eq!(ranges, expected);
}

#[test]
fn nothing_is_read_or_delivered_without_leave() {
    let (server, tier) = fake(2);
    server.store(&format!("pre/fix/{}", shard_name(1)), pattern(1, 90 << 20));
    let pieces = pieces(blob(1, 0, 90 << 20));
    let sink = Sink::new(pieces.len());
    let fetch = tier.fetch(&pieces, LONG, sink.clone());
    std::thread::sleep(Duration::from_millis(100));
    assert!(server.seen().is_empty() && sink.delivered() == 0);
    fetch.allow(3);
    sink.wait(3);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(sink.delivered(), 3);
    // What was sent lies in the buffers of two sockets and of the client.
    assert!(server.sent() < 30 << 20, "{}", server.sent());
    fetch.allow(1);
    drop(fetch);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(sink.delivered(), 3);
}

#[test]
fn requests_that_wait_for_leave_do_not_stop_others() {
    let (server, tier) = fake(3);
    let bytes = pattern(1, 2 << 20);
    server.store(&format!("pre/fix/{}", shard_name(1)), bytes.clone());
    // More than may be read at once, and more than may keep a connection.
    let blobs: Vec<Blob> = (0..300).map(|n| blob(1, n * 100, 600_000)).collect();
    let started = blobs.iter().map(|&blob| {
        let sink = Sink::new(3);
        let fetch = tier.fetch(&pieces(blob), LONG, sink.clone());
        fetch.allow(1);
        (sink, fetch)
    });
    let started: Vec<_> = started.collect();
    for (sink, _) in &started {
        sink.wait(1);
    }
    for ((sink, fetch), blob) in started.iter().zip(&blobs) {
        fetch.allow(3);
        for (frame, answer) in (0..).zip(sink.wait(3)) {
            let range = blob.frame(frame, FRAME);
            let place = (blob.offset + range.start) as usize..(blob.offset + range.end) as usize;
            assert!(answer.unwrap().unwrap()[..] == bytes[place]);
        }
    }
}

#[test]
fn at_most_64_requests_run_and_start_in_order() {
    let (server, tier) = fake(4);
    server.store(&format!("pre/fix/{}", shard_name(1)), pattern(1, 1 << 20));
    server.pause(Duration::from_millis(30));
    let asked: Vec<Piece> = (0..300).map(|n| Piece { blob: blob(1, n, 1000), frame: 0 }).collect();
    assert!(fetched(&tier, &asked, LONG).iter().all(|answer| matches!(answer, Ok(Some(_)))));
    assert!((2..=64).contains(&server.most()), "{}", server.most());
    let starts: Vec<u64> =
        server.seen().iter().map(|seen| seen.range.clone().unwrap().start).collect();
    assert!(starts.iter().enumerate().all(|(n, start)| n.abs_diff(*start as usize) <= 128));
}

#[test]
fn a_cut_body_is_asked_for_again_from_where_it_was_cut() {
    let (server, tier) = fake(5);
    let bytes = pattern(1, 3 << 20);
    server.store(&format!("pre/fix/{}", shard_name(1)), bytes.clone());
    server.fail_next(&[Fault::Cut, Fault::Status(503), Fault::Cut]);
    let answers = fetched(&tier, &pieces(blob(1, 0, 3 << 20)), LONG);
    let all: Vec<u8> = answers.into_iter().flat_map(|answer| answer.unwrap().unwrap()).collect();
    assert!(all == bytes);
    let ranges: Vec<_> = server.seen().into_iter().map(|seen| seen.range.unwrap()).collect();
    assert_eq!(ranges.len(), 4);
    assert!(ranges.iter().all(|range| range.end == 3 << 20));
    assert!(ranges[0].start < ranges[1].start && ranges[1] == ranges[2]);
    assert!(ranges[2].start < ranges[3].start);
}

#[test]
fn wrong_lengths_are_wrong_answers() {
    let (server, tier) = fake(6);
    server.store(&format!("pre/fix/{}", shard_name(1)), pattern(1, 1 << 20));
    let last = |tier| fetched(tier, &pieces(blob(1, 10, 600_000)), LONG).pop().unwrap();
    for fault in [Fault::Short, Fault::Long, Fault::Elsewhere] {
        server.fail_next(&[fault]);
        let answer = last(&tier);
        assert!(matches!(answer, Err(TierError::Protocol(_))), "{fault:?}: {answer:?}");
    }
    assert!(last(&tier).unwrap().is_some());
    // Past the end of the shard, and pieces that no block has.
    let answers = fetched(&tier, &pieces(blob(1, 1 << 20, 1000)), LONG);
    assert!(matches!(answers[0], Err(TierError::Protocol(_))), "{answers:?}");
    let answers = fetched(&tier, &pieces(blob(1, (1 << 20) - 10, 1000)), LONG);
    assert!(matches!(answers[0], Err(TierError::Protocol(_))), "{answers:?}");
    for blob in [blob(1, 0, 1000), blob(1, u64::MAX - 10, 1000), blob(1, 0, 0)] {
        for frame in [1, u32::MAX] {
            let answers = fetched(&tier, &[Piece { blob, frame }], LONG);
            assert!(matches!(answers[0], Err(TierError::Refused(_))), "{answers:?}");
        }
    }
}

#[test]
fn absence_refusal_and_silence_differ() {
    let (server, tier) = fake(8);
    let asked = pieces(blob(1, 0, 600_000));
    assert_eq!(fetched(&tier, &asked, LONG), [Ok(None), Ok(None), Ok(None)]);
    for (bucket, key) in [(BUCKET, "stranger"), ("other-bucket", KEY)] {
        let tier = ObjectTier::open(&options(&server.endpoint, bucket, key)).unwrap();
        let answer = fetched(&tier, &asked, LONG).remove(0);
        assert!(matches!(answer, Err(TierError::Refused(_))), "{answer:?}");
        assert!(words(&answer).contains("bucket") && words(&answer).contains("region"));
        if key != KEY {
            assert!(words(&answer).contains("AWS_ACCESS_KEY_ID"));
            assert!(words(&answer).contains("AWS_SECRET_ACCESS_KEY"));
        }
        assert!(matches!(tier.holds(&[asked[0].blob]), Err(TierError::Refused(_))));
        assert!(matches!(tier.file_bytes("a"), Err(TierError::Refused(_))));
        assert!(matches!(tier.probe(), Err(TierError::Refused(_))));
    }
    server.store(&format!("pre/fix/{}", shard_name(1)), pattern(1, 1 << 20));
    server.fail_next(&[Fault::Hang]);
    let patience = Duration::from_millis(200);
    let start = Instant::now();
    assert_eq!(fetched(&tier, &asked, patience).pop().unwrap(), Err(TierError::Timeout(patience)));
    assert!(start.elapsed() < Duration::from_secs(30));
    // Nobody listens there.
    let nobody = options("http://127.0.0.1:1", BUCKET, KEY);
    let answer = fetched(&ObjectTier::open(&nobody).unwrap(), &asked, LONG).remove(0);
    assert!(matches!(answer, Err(TierError::Unreachable(_))), "{answer:?}");
}

#[test]
fn a_place_that_is_gone_is_left_alone_and_found_again() {
    let (server, tier) = fake(41);
    let bytes = pattern(5, FRAME);
    server.store(&format!("pre/fix/{}", shard_name(0)), bytes.clone());
    let block = pieces(blob(0, 0, FRAME));
    server.fail(1000, &[Fault::Status(503)]);
    for _ in 0..3 {
        assert!(matches!(fetched(&tier, &block, LONG)[0], Err(TierError::Unreachable(_))));
    }
    let before = server.seen().len();
    for _ in 0..200 {
        let answers = fetched(&tier, &block, LONG);
        // The failure that was seen, so that it is told once.
        assert!(words(&answers[0]).contains("503"), "{:?}", answers[0]);
    }
    let asked = server.seen().len() - before;
    assert!(asked < 100, "{asked} requests for 200 blocks of a place that is left alone");
    server.fail(0, &[]);
    let start = Instant::now();
    while fetched(&tier, &block, LONG)[0].is_err() {
        assert!(start.elapsed() < LONG, "the place is not found again");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(fetched(&tier, &block, LONG)[0].clone().unwrap().unwrap() == bytes);
}

#[test]
fn a_sink_that_panics_costs_its_piece_alone() {
    struct Panics(Arc<Sink>);
    impl FetchSink for Panics {
        fn deliver(&self, n: usize, answer: Answer) {
            self.0.deliver(n, answer);
            assert!(n != 1, "a fault of the caller");
        }
    }
    let (server, tier) = fake(9);
    server.store(&format!("pre/fix/{}", shard_name(1)), pattern(1, 1 << 20));
    let asked = pieces(blob(1, 0, 1 << 20));
    let sink = Sink::new(4);
    let fetch = tier.fetch(&asked, LONG, Arc::new(Panics(sink.clone())));
    fetch.allow(4);
    let answers = sink.wait(4);
    assert!(answers[0].is_ok() && matches!(answers[3], Err(TierError::Unreachable(_))));
    // The thread lives.
    assert!(fetched(&tier, &asked, LONG).iter().all(Result::is_ok));
}

#[test]
fn holds_asks_once_a_shard() {
    let (server, tier) = fake(10);
    server.store(&format!("pre/fix/{}", shard_name(1)), pattern(1, 10_000));
    let blobs = [
        blob(1, 0, 10_000),
        blob(2, 0, 10),
        blob(1, 1, 10_000),
        blob(1, 5, u64::MAX),
        blob(1, 9, 9),
    ];
    assert_eq!(tier.holds(&blobs).unwrap(), [true, false, false, false, true]);
    let heads = server.seen().iter().filter(|seen| seen.method == "HEAD").count();
    assert_eq!(heads, 2);
    let refused = tier.put(&blobs[0], &Bytes::new());
    assert!(matches!(refused, Err(TierError::Refused(_))));
}

#[test]
fn files_go_and_come_back_whole_despite_faults() {
    use Fault::*;
    let (server, tier) = fake(11);
    for (n, len) in [0, 1, 1000, 8 << 20, (8 << 20) + 1, 45_000_000].into_iter().enumerate() {
        let bytes = pattern(n as u64, len);
        server.fail(
            250,
            &[Status(500), Status(503), Status(409), Drop, LandedDrop, Landed(500), Cut],
        );
        let name = format!("chunks/{n}.bin");
        tier.put_file(&name, file_of(&bytes).path()).unwrap();
        assert!(server.stored(&format!("pre/fix/{name}")).unwrap() == bytes);
        assert!(got(&tier, &name, len).unwrap().unwrap() == bytes);
        assert_eq!(tier.file_bytes(&name).unwrap(), Some(len));
        server.fail(0, &[]);
        if len > 0 {
            let longer = got(&tier, &name, len - 1).map(drop);
            assert!(matches!(longer, Err(TierError::Refused(_))), "{longer:?}");
            let longer = tier.read_small(&name, len - 1).map(drop);
            assert!(matches!(longer, Err(TierError::Refused(_))), "{longer:?}");
        }
    }
    assert_eq!(got(&tier, "chunks/none", 10).unwrap(), None);
    assert_eq!(tier.file_bytes("chunks/none").unwrap(), None);
    assert_eq!(tier.read_small("chunks/none", 10).unwrap(), None);
    assert_eq!(tier.read_small("chunks/2.bin", 1000).unwrap().unwrap(), pattern(2, 1000));
}

#[test]
fn a_file_that_is_stored_short_or_changes_is_told() {
    let (server, tier) = fake(12);
    for len in [1000, 20_000_000] {
        server.fail_next(&if len == 1000 {
            vec![Fault::Half]
        } else {
            vec![Fault::Slow, Fault::Half]
        });
        let put = tier.put_file("a", file_of(&pattern(1, len)).path());
        assert!(matches!(put, Err(TierError::Protocol(_))), "{put:?}");
    }
    server.fail_next(&[Fault::Slow, Fault::Short]);
    assert!(matches!(got(&tier, "a", 1 << 30), Err(TierError::Protocol(_))));
    // The rest of another version is not the rest of this one.
    server.fail_next(&[Fault::Slow, Fault::Replaced]);
    assert!(matches!(got(&tier, "a", 1 << 30), Err(TierError::Protocol(_))));
    assert!(tier.put_file("a", std::path::Path::new("/does/not/exist")).is_err());
    for name in ["", "/a", "a/", "a//b", "../a", "a/./b", "a b", "ä", "a?b", "a\n"] {
        assert!(matches!(tier.file_bytes(name), Err(TierError::Refused(_))), "{name:?}");
    }
}

#[test]
fn a_swap_has_one_winner_despite_lost_answers() {
    use Fault::*;
    let (server, tier) = fake(13);
    server.fail(
        400,
        &[Landed(500), Landed(409), Landed(412), LandedDrop, Drop, Status(409), Status(500)],
    );
    let mut done = 0;
    for round in 0..30 {
        let name = format!("spans/{round}");
        let wins = AtomicUsize::new(usize::MAX);
        std::thread::scope(|scope| {
            for worker in 0..8 {
                let (tier, name, wins) = (&tier, &name, &wins);
                scope.spawn(move || {
                    let new = format!("worker {worker}");
                    if tier.swap_small(name, None, new.as_bytes()) == Ok(Swapped::Done) {
                        assert_eq!(wins.swap(worker, SeqCst), usize::MAX, "two winners");
                    }
                });
            }
        });
        let winner = wins.load(SeqCst);
        if winner != usize::MAX {
            let stored = server.stored(&format!("pre/fix/{name}")).unwrap();
            assert_eq!(stored, format!("worker {winner}").into_bytes());
            done += 1;
        }
    }
    assert!(done >= 25, "{done}");
}

#[test]
fn equal_contents_of_two_writers_have_one_winner() {
    let (server, tier) = fake(14);
    server.fail(300, &[Fault::Landed(500), Fault::LandedDrop, Fault::Status(409)]);
    for round in 0..20 {
        let name = format!("same/{round}");
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let won = tier.swap_small(&name, None, b"same") == Ok(Swapped::Done);
                    done.fetch_add(usize::from(won), SeqCst);
                });
            }
        });
        assert!(done.load(SeqCst) <= 1);
    }
}

#[test]
fn a_counter_counts_every_swap_that_was_done() {
    use Fault::*;
    let (server, tier) = fake(15);
    tier.swap_small("n", None, b"0").unwrap();
    server.fail(200, &[Landed(500), LandedDrop, Drop, Status(409), Status(503)]);
    let (done, lost) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..40 {
                    let Ok(Some(old)) = tier.read_small("n", 100) else { continue };
                    let count: usize = std::str::from_utf8(&old).unwrap().parse().unwrap();
                    let new = (count + 1).to_string();
                    match tier.swap_small("n", Some(&old), new.as_bytes()) {
                        Ok(Swapped::Done) => done.fetch_add(1, SeqCst),
                        // It may have been done, and been followed by another before it was read back.
                        Ok(Swapped::Changed) | Err(_) => lost.fetch_add(1, SeqCst),
                    };
                }
            });
        }
    });
    let count: usize =
        String::from_utf8(server.stored("pre/fix/n").unwrap()).unwrap().parse().unwrap();
    let (done, lost) = (done.load(SeqCst), lost.load(SeqCst));
    assert!(done > 20 && done <= count && count <= done + lost, "{done} {count} {lost}");
}

#[test]
fn a_swap_with_other_contents_changes_nothing() {
    let (server, tier) = fake(16);
    let long = vec![7; 2 << 20];
    server.store("pre/fix/long", long.clone());
    assert_eq!(tier.swap_small("long", None, b"new"), Ok(Swapped::Changed));
    assert_eq!(tier.swap_small("long", Some(b"old"), b"new"), Ok(Swapped::Changed));
    assert_eq!(server.stored("pre/fix/long").unwrap(), long);
    assert_eq!(tier.swap_small("none", Some(b"old"), b"new"), Ok(Swapped::Changed));
    assert_eq!(server.stored("pre/fix/none"), None);
    assert_eq!(tier.swap_small("none", None, b""), Ok(Swapped::Done));
    assert_eq!(tier.swap_small("none", Some(b""), b"full"), Ok(Swapped::Done));
    assert_eq!(server.stored("pre/fix/none").unwrap(), b"full");
}

#[test]
fn a_probe_writes_only_if_it_may() {
    let (server, tier) = fake(17);
    let facts = tier.probe().unwrap();
    assert!(facts.iter().any(|fact| fact.name == "latency_ms"));
    assert!(server.seen().iter().all(|seen| matches!(seen.method.as_str(), "GET" | "HEAD")));
    let options = ObjectOptions { probe_writes: true, ..options(&server.endpoint, BUCKET, KEY) };
    let facts = ObjectTier::open(&options).unwrap().probe().unwrap();
    let atomic = FactValue::Text("atomic".to_owned());
    assert!(facts.iter().any(|fact| fact.name == "conditional_puts" && fact.value == atomic));
    let puts: Vec<_> = server.seen().into_iter().filter(|seen| seen.method == "PUT").collect();
    assert_eq!(puts.len(), 8);
    assert_eq!(server.stored(puts[0].path.strip_prefix("/bucket/").unwrap()), None);
}

#[test]
fn places_that_cannot_be_are_refused_without_their_secrets() {
    let refused = |options: &ObjectOptions| match ObjectTier::open(options) {
        Err(TierError::Refused(words)) => words,
        other => panic!("{other:?}"),
    };
    for url in [
        "",
        "bucket",
        "http://bucket",
        "s3://",
        "file:///does/not/exist",
        "s3://no",
        "s3://bucket:9000/x",
        "s3://bucket/a b",
        "s3://bucket/x?y=z",
    ] {
        refused(&ObjectOptions::new(url));
    }
    let secret = refused(&ObjectOptions::new("s3://key:hunter2@bucket/x"));
    assert!(!secret.contains("hunter2") && secret.contains("AWS_SECRET_ACCESS_KEY"));
    let plain = ObjectOptions { allow_http: false, ..options("http://host:1", BUCKET, KEY) };
    assert!(refused(&plain).contains("https://"));
    let broken = ObjectOptions {
        ca_pem: Some(b"-----BEGIN CERTIFICATE-----\n!\n".to_vec()),
        ..plain.clone()
    };
    refused(&ObjectOptions { endpoint: None, ..broken.clone() });
    assert!(!format!("{:?}", options("http://host:1", BUCKET, KEY)).contains("secret"));
    let leaky =
        ObjectOptions { endpoint: Some("https://key:hunter2@host".to_owned()), ..plain.clone() };
    assert!(!refused(&leaky).contains("hunter2"));
    refused(&ObjectOptions { endpoint: Some("nonsense".to_owned()), ..broken });
}

#[test]
fn tls_trusts_the_authorities_that_are_given_and_no_others() {
    let server = FakeS3::start_tls(18);
    server.store(&format!("pre/fix/{}", shard_name(1)), pattern(1, 1 << 20));
    let options = ObjectOptions { allow_http: false, ..options(&server.endpoint, BUCKET, KEY) };
    let asked = pieces(blob(1, 0, 600_000));
    let tier = ObjectTier::open(&options).unwrap();
    let answer = fetched(&tier, &asked, Duration::from_secs(5)).remove(0);
    assert!(matches!(answer, Err(TierError::Unreachable(_))), "{answer:?}");
    assert!(words(&answer).contains("certificate"), "{answer:?}");
    let ca_pem = Some(include_bytes!("support/tls/ca.pem").to_vec());
    let tier = ObjectTier::open(&ObjectOptions { ca_pem, ..options }).unwrap();
    let answers = fetched(&tier, &asked, LONG);
    let all: Vec<u8> = answers.into_iter().flat_map(|answer| answer.unwrap().unwrap()).collect();
    assert!(all == pattern(1, 1 << 20)[..600_000]);
    assert_eq!(tier.swap_small("n", None, b"1"), Ok(Swapped::Done));
}

/// Stores shards and files, and reads them back.
fn round_trip(tier: &ObjectTier) {
    let bytes = pattern(3, 20_000_000);
    tier.put_file(&shard_name(3), file_of(&bytes).path()).unwrap();
    let blob = blob(3, 4567, 9_000_001);
    let answers = fetched(tier, &pieces(blob), LONG);
    let all: Vec<u8> = answers.into_iter().flat_map(|answer| answer.unwrap().unwrap()).collect();
    assert!(all == bytes[4567..4567 + 9_000_001]);
    let absent = self::blob(4, 0, 10);
    assert_eq!(fetched(tier, &pieces(absent), LONG), [Ok(None)]);
    assert_eq!(tier.holds(&[blob, absent]).unwrap(), [true, false]);
    assert!(got(tier, &shard_name(3), 1 << 30).unwrap().unwrap() == bytes);
    for len in [0, 1, 100_000] {
        let bytes = pattern(len, len);
        tier.put_file("chunks/a.b-c_d", file_of(&bytes).path()).unwrap();
        assert_eq!(tier.read_small("chunks/a.b-c_d", len).unwrap().unwrap(), bytes);
        assert_eq!(got(tier, "chunks/a.b-c_d", len).unwrap().unwrap(), bytes);
        assert_eq!(tier.file_bytes("chunks/a.b-c_d").unwrap(), Some(len));
    }
    assert_eq!(tier.read_small("chunks/none", 10).unwrap(), None);
    assert_eq!(got(tier, "chunks/none", 10).unwrap(), None);
    assert_eq!(tier.file_bytes("chunks/none").unwrap(), None);
}

/// A tier whose blocks lie in shards.
struct Shards(Arc<ObjectTier>);

impl Harness for Shards {
    fn tier(&self) -> Arc<dyn Tier> {
        self.0.clone()
    }

    fn fill(&self, blobs: &[(Blob, Bytes)]) {
        let mut shards: HashMap<String, Vec<u8>> = HashMap::new();
        for (blob, bytes) in blobs {
            let name = format!("shards/{}.{}.kv", blob.shard, blob.key.table_name());
            let shard = shards.entry(name).or_default();
            let range = blob.offset as usize..(blob.offset + blob.bytes) as usize;
            shard.resize(shard.len().max(range.end), 0xEE);
            shard[range].copy_from_slice(bytes);
        }
        for (name, bytes) in shards {
            self.0.put_file(&name, file_of(&bytes).path()).unwrap();
        }
    }

    fn writable(&self) -> bool {
        false
    }
}

#[test]
fn a_server_of_the_test_keeps_the_promises_of_tiers() {
    let (_server, tier) = fake(19);
    run_files(&tier);
    run_blocks(Shards(Arc::new(tier)));
}

#[test]
fn seaweedfs_holds_what_it_is_given() {
    let keys = (KEY, "secret");
    let Some(weed) = weed::Weed::start(|endpoint| options(endpoint, "hyperrag", KEY), keys) else {
        return;
    };
    let at = |bucket, key| ObjectTier::open(&options(&weed.endpoint, bucket, key)).unwrap();
    let tier = at("hyperrag", KEY);
    round_trip(&tier);
    ranges_of(&weed, &tier);
    let mut strange = options(&weed.endpoint, "hyperrag", KEY);
    strange.login = ObjectLogin::Keys {
        access_key: KEY.to_owned(),
        secret_key: "wrong".to_owned(),
        session_token: None,
    };
    let unsigned = ObjectOptions { login: ObjectLogin::Unsigned, ..strange.clone() };
    let wrong_secret = ObjectTier::open(&strange).unwrap();
    let unsigned = ObjectTier::open(&unsigned).unwrap();
    let strangers = [at("hyperrag", "stranger"), at("other-bucket", KEY), wrong_secret, unsigned];
    for tier in &strangers {
        let answer = fetched(tier, &pieces(blob(3, 0, 600_000)), LONG).remove(0);
        assert!(matches!(answer, Err(TierError::Refused(_))), "{answer:?}");
        let probe = tier.probe();
        assert!(matches!(probe, Err(TierError::Refused(_))), "{probe:?}");
    }
    let probed = ObjectOptions { probe_writes: true, ..options(&weed.endpoint, "hyperrag", KEY) };
    let facts = ObjectTier::open(&probed).unwrap().probe().unwrap();
    assert!(
        facts.iter().any(|fact| fact.value == FactValue::Text("atomic".to_owned())),
        "{facts:?}"
    );
    one_of_sixteen_wins(&tier);
    run_files(&tier);
    run_blocks(Shards(Arc::new(tier)));
}

fn one_of_sixteen_wins(tier: &ObjectTier) {
    for round in 0..10 {
        let name = format!("claims/{}", round / 2);
        let old = (round % 2 == 1).then(|| tier.read_small(&name, 100).unwrap().unwrap());
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for worker in 0..16 {
                let (name, old, done) = (&name, &old, &done);
                scope.spawn(move || {
                    let new = format!("round {round} worker {worker}");
                    let swapped = tier.swap_small(name, old.as_deref(), new.as_bytes()).unwrap();
                    done.fetch_add(usize::from(swapped == Swapped::Done), SeqCst);
                });
            }
        });
        assert_eq!(done.load(SeqCst), 1);
    }
}

fn reader(endpoint: &str, bucket: &str, key: &str) -> ObjectReader {
    let url = format!("s3://{bucket}");
    ObjectReader::open(&ObjectOptions { url, ..options(endpoint, bucket, key) }).unwrap()
}

#[test]
fn ranges_of_objects_come_through_faults() {
    let server = FakeS3::start(31);
    let bytes = pattern(7, 3 << 20);
    server.store("in/put.bin", bytes.clone());
    let reader = reader(&server.endpoint, BUCKET, KEY);
    let file = reader.file("in/put.bin").unwrap().unwrap();
    let version = file.version();
    assert_eq!((version.name.as_str(), version.bytes), ("s3://bucket/in/put.bin", 3 << 20));
    server.fail(
        300,
        &[
            Fault::Status(500),
            Fault::Status(503),
            Fault::Status(429),
            Fault::Drop,
            Fault::Cut,
            Fault::Short,
            Fault::Long,
            Fault::Elsewhere,
        ],
    );
    let mut seed = 5_u64;
    for _ in 0..60 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let start = (seed >> 33) % (3 << 20);
        let end = (start + (seed >> 20) % (1 << 20)).min(3 << 20);
        let read = file.read(start..end).unwrap();
        assert!(read == bytes[start as usize..end as usize], "{start}..{end}");
    }
    assert!(server.faults(|_| true) > 15);
    server.fail(0, &[]);
    assert_eq!(file.read(9..9).unwrap().len(), 0);
    let beyond = 5..bytes.len() as u64 + 1;
    assert!(matches!(file.read(beyond), Err(RangeError::Place(TierError::Refused(_)))));
    assert!(reader.file("in/none.bin").unwrap().is_none());
}

#[test]
fn an_object_that_changes_is_never_mixed() {
    let server = FakeS3::start(32);
    let (bytes, len) = (pattern(8, 1 << 20), 1_u64 << 20);
    server.store("in/put.bin", bytes.clone());
    let reader = reader(&server.endpoint, BUCKET, KEY);
    let file = reader.file("in/put.bin").unwrap().unwrap();
    // In the middle of an answer, of equal length.
    server.fail_next(&[Fault::Replaced]);
    assert_eq!(file.read(0..len), Err(RangeError::Changed));
    assert_eq!(file.read(0..9), Err(RangeError::Changed));
    server.store("in/put.bin", bytes[..100].to_vec());
    assert_eq!(
        file.read(0..100),
        Err(RangeError::Changed),
        "of equal bytes, but of another version"
    );
    assert!(reader.file("in/put.bin").unwrap().unwrap().version().bytes == 100);
}

#[test]
fn a_folder_is_listed_page_by_page_and_without_those_below() {
    let server = FakeS3::start(33);
    for name in [
        "in/b.tsv",
        "in/a.tsv",
        "in/a/x.tsv",
        "in/c.tsv",
        "in/d.tsv",
        "in/e.tsv",
        "inn.tsv",
        "z.tsv",
    ] {
        server.store(name, vec![0]);
    }
    let reader = reader(&server.endpoint, BUCKET, KEY);
    server.fail(200, &[Fault::Status(503), Fault::Drop, Fault::Cut]);
    for _ in 0..10 {
        let names = reader.list("in/").unwrap();
        assert_eq!(names, ["a.tsv", "b.tsv", "c.tsv", "d.tsv", "e.tsv"]);
    }
    assert!(server.faults(|_| true) > 3);
    server.fail(0, &[]);
    assert_eq!(reader.list("").unwrap(), ["inn.tsv", "z.tsv"]);
    assert!(reader.list("none/").unwrap().is_empty());
}

#[test]
fn buckets_and_keys_that_are_wrong_are_named() {
    let server = FakeS3::start(34);
    let check = |reader: ObjectReader, expected: &str| {
        for error in [reader.file("in/put.bin").unwrap_err(), reader.list("in/").unwrap_err()] {
            assert!(error.to_string().contains(expected), "{error}");
        }
    };
    check(reader(&server.endpoint, "absent", KEY), "no bucket of this name");
    check(reader(&server.endpoint, BUCKET, "other"), "no right to the object");
    check(reader("http://127.0.0.1:9", BUCKET, KEY), "cannot be reached");
}

/// Reads ranges of an object of SeaweedFS, which is then replaced.
fn ranges_of(weed: &weed::Weed, tier: &ObjectTier) {
    let bytes = pattern(9, 20 << 20);
    tier.put_file("in/odd.parquet", file_of(&bytes).path()).unwrap();
    tier.put_file("in/sub/deep.tsv", file_of(b"x").path()).unwrap();
    let reader = reader(&weed.endpoint, "hyperrag", KEY);
    assert_eq!(reader.list("pre/fix/in/").unwrap(), ["odd.parquet"]);
    let key = "pre/fix/in/odd.parquet";
    let file = reader.file(key).unwrap().unwrap();
    let range = 7_000_001..16_000_007;
    assert!(file.read(range.clone()).unwrap() == bytes[range.start as usize..range.end as usize]);
    tier.put_file("in/odd.parquet", file_of(&pattern(10, 20 << 20)).path()).unwrap();
    assert_eq!(file.read(range), Err(RangeError::Changed));
    assert!(reader.file("pre/fix/in/none").unwrap().is_none());
}

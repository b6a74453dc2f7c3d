//! Cases on requests: how many deliveries, when, and by whose leave. In: a filled tier. Out: a panic where a
//! request is not answered as [`Tier`] says.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use hyperrag_core::{FetchSink, Piece, Tier};

use super::harness::{
    Case, DEADLINE, Filled, Gathered, Harness, PATIENCE, ask, check_answers, check_pieces,
    check_whole, frame_bytes, name_cases, new_blocks, pieces_of, read_pieces,
};

/// Time in which a tier would deliver what it must not.
const QUIET: Duration = Duration::from_millis(150);

pub(super) fn cases() -> Vec<Case> {
    name_cases![Case:
        an_empty_request,
        thousands_of_pieces,
        requests_that_overlap,
        requests_from_many_threads,
        a_request_that_is_dropped_at_once,
        a_request_that_is_dropped_half_way,
        a_hundred_dropped_requests,
        a_sink_is_released,
        a_tier_that_streams_waits_for_leave,
        leave_comes_piece_by_piece,
        leave_beyond_the_end_and_back_is_harmless,
        a_tier_that_does_not_stream_asks_for_no_leave,
        a_stream_without_leave_can_be_dropped,
        immediate_means_before_fetch_returns,
        every_piece_is_answered_without_patience,
        every_piece_is_answered_with_little_patience,
        a_reader_that_is_slower_than_patience_gets_all,
    ]
}

fn filled(harness: &dyn Harness, lengths: &[u64]) -> (Arc<dyn Tier>, Vec<Filled>, Vec<Piece>) {
    let blocks = new_blocks(lengths);
    harness.fill(&blocks);
    let tier = harness.tier();
    let pieces = blocks.iter().flat_map(|(blob, _)| pieces_of(&*tier, blob)).collect();
    (tier, blocks, pieces)
}

fn an_empty_request(harness: &dyn Harness) {
    assert!(read_pieces(&*harness.tier(), &[]).is_empty());
}

fn thousands_of_pieces(harness: &dyn Harness) {
    let lengths: Vec<u64> = (0..40).map(|n| 100 + n).collect();
    let (_, blocks, pieces) = filled(harness, &lengths);
    let pieces: Vec<Piece> = pieces.iter().copied().cycle().take(4000).collect();
    check_pieces(harness, &blocks, &pieces);
}

fn requests_that_overlap(harness: &dyn Harness) {
    let frame = frame_bytes(harness);
    let (tier, blocks, pieces) = filled(harness, &[2 * frame + 1, frame, 77]);
    let requests: Vec<_> = (0..6).map(|_| ask(&*tier, &pieces)).collect();
    for (sink, request) in requests.iter().rev() {
        request.allow(pieces.len());
        check_answers(harness, &blocks, &pieces, &sink.all());
    }
    drop(requests);
}

fn requests_from_many_threads(harness: &dyn Harness) {
    let frame = frame_bytes(harness);
    let (tier, blocks, mut pieces) =
        filled(harness, &[frame + 1, 77, frame - 1, 1, 5000, 2 * frame]);
    pieces.extend(pieces_of(&*tier, &new_blocks(&[frame])[0].0));
    let start = Barrier::new(8);
    let answers: Vec<_> = thread::scope(|scope| {
        let reading = (0..8).map(|_| {
            scope.spawn(|| {
                start.wait();
                (0..5).map(|_| read_pieces(&*tier, &pieces)).collect::<Vec<_>>()
            })
        });
        let reading: Vec<_> = reading.collect();
        reading.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    for answers in answers {
        check_answers(harness, &blocks, &pieces, &answers);
    }
}

fn a_request_that_is_dropped_at_once(harness: &dyn Harness) {
    let (tier, blocks, pieces) = filled(harness, &[4 * frame_bytes(harness), 99]);
    let (sink, request) = ask(&*tier, &pieces);
    request.allow(pieces.len());
    drop(request);
    thread::sleep(QUIET);
    sink.check_no_double();
    check_whole(harness, &blocks);
}

fn a_request_that_is_dropped_half_way(harness: &dyn Harness) {
    let frame = frame_bytes(harness);
    let (tier, blocks, pieces) = filled(harness, &[3 * frame, 3 * frame, 3 * frame]);
    let (sink, request) = ask(&*tier, &pieces);
    request.allow(2);
    sink.wait("waiting for a first piece", |counts| counts.iter().sum::<usize>() > 0);
    drop(request);
    let then = sink.counts();
    thread::sleep(QUIET);
    sink.check_no_double();
    // What was on its way may still come, but no more than one delivery a thread of the tier.
    let late = sink.counts().iter().sum::<usize>() - then.iter().sum::<usize>();
    assert!(late <= 8, "{late} deliveries after the request was dropped");
    check_whole(harness, &blocks);
}

fn a_hundred_dropped_requests(harness: &dyn Harness) {
    let (tier, blocks, pieces) = filled(harness, &[2 * frame_bytes(harness) + 3; 3]);
    let sinks: Vec<_> = (0..100).map(|_| ask(&*tier, &pieces).0).collect();
    check_whole(harness, &blocks);
    for sink in sinks {
        sink.check_no_double();
    }
}

fn a_sink_is_released(harness: &dyn Harness) {
    let (tier, _, pieces) = filled(harness, &[frame_bytes(harness) + 3, 5]);
    for drop_early in [false, true] {
        let (sink, request) = ask(&*tier, &pieces);
        if !drop_early {
            request.allow(pieces.len());
            sink.all();
        }
        drop(request);
        let end = Instant::now() + DEADLINE;
        while Arc::strong_count(&sink) > 1 {
            assert!(Instant::now() < end, "the tier keeps the sink of a request that ended");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn a_tier_that_streams_waits_for_leave(harness: &dyn Harness) {
    let frame = frame_bytes(harness);
    let (tier, blocks, pieces) = filled(harness, &[6 * frame, 2 * frame]);
    if !tier.shape().streams {
        return;
    }
    let (sink, request) = ask(&*tier, &pieces);
    thread::sleep(QUIET);
    assert_eq!(sink.counts().iter().sum::<usize>(), 0, "delivered without leave");
    request.allow(2);
    sink.wait("waiting for two pieces", |counts| counts[..2].iter().all(|count| *count > 0));
    thread::sleep(QUIET);
    assert_eq!(sink.counts()[2..].iter().sum::<usize>(), 0, "delivered beyond the leave");
    request.allow(pieces.len());
    check_answers(harness, &blocks, &pieces, &sink.all());
}

fn leave_comes_piece_by_piece(harness: &dyn Harness) {
    let frame = frame_bytes(harness);
    let (tier, blocks, pieces) = filled(harness, &[3 * frame + 1, 10, frame]);
    let (sink, request) = ask(&*tier, &pieces);
    for end in 1..=pieces.len() {
        request.allow(end);
        sink.wait("waiting for the next piece", |counts| counts[..end].iter().all(|c| *c > 0));
    }
    check_answers(harness, &blocks, &pieces, &sink.all());
}

fn leave_beyond_the_end_and_back_is_harmless(harness: &dyn Harness) {
    let (tier, blocks, pieces) = filled(harness, &[2 * frame_bytes(harness), 10]);
    let (sink, request) = ask(&*tier, &pieces);
    for end in [usize::MAX, 0, 1, pieces.len(), usize::MAX] {
        request.allow(end);
    }
    check_answers(harness, &blocks, &pieces, &sink.all());
}

fn a_tier_that_does_not_stream_asks_for_no_leave(harness: &dyn Harness) {
    let (tier, blocks, pieces) = filled(harness, &[2 * frame_bytes(harness), 10]);
    if tier.shape().streams {
        return;
    }
    let (sink, request) = ask(&*tier, &pieces);
    check_answers(harness, &blocks, &pieces, &sink.all());
    drop(request);
}

fn a_stream_without_leave_can_be_dropped(harness: &dyn Harness) {
    let (tier, blocks, pieces) = filled(harness, &[8 * frame_bytes(harness)]);
    for _ in 0..20 {
        let (sink, request) = ask(&*tier, &pieces);
        drop(request);
        sink.check_no_double();
    }
    check_whole(harness, &blocks);
}

fn immediate_means_before_fetch_returns(harness: &dyn Harness) {
    let (tier, _, mut pieces) = filled(harness, &[2 * frame_bytes(harness), 10]);
    pieces.extend(pieces_of(&*tier, &new_blocks(&[10])[0].0));
    if !tier.shape().immediate {
        return;
    }
    let (sink, _request) = ask(&*tier, &pieces);
    assert!(sink.counts().iter().all(|count| *count == 1), "{:?}", sink.counts());
}

fn every_piece_is_answered_without_patience(harness: &dyn Harness) {
    check_patience(harness, Duration::ZERO);
}

fn every_piece_is_answered_with_little_patience(harness: &dyn Harness) {
    check_patience(harness, Duration::from_millis(1));
}

/// Asks with this patience. Bytes, or an error in time: both are right, silence is not.
fn check_patience(harness: &dyn Harness, patience: Duration) {
    let frame = frame_bytes(harness);
    let (tier, blocks, pieces) = filled(harness, &[4 * frame, 10, frame + 1]);
    let sink = Gathered::new(pieces.len());
    let request = tier.fetch(&pieces, patience, Arc::clone(&sink) as Arc<dyn FetchSink>);
    request.allow(pieces.len());
    for (piece, answer) in pieces.iter().zip(sink.all()) {
        if answer.is_ok() {
            check_answers(harness, &blocks, &[*piece], &[answer]);
        }
    }
    drop(request);
    check_whole(harness, &blocks);
}

/// A wait for leave is no wait of the tier for bytes.
fn a_reader_that_is_slower_than_patience_gets_all(harness: &dyn Harness) {
    let (tier, blocks, pieces) = filled(harness, &[4 * frame_bytes(harness)]);
    let sink = Gathered::new(pieces.len());
    let patience = PATIENCE / 10;
    let request = tier.fetch(&pieces, patience, Arc::clone(&sink) as Arc<dyn FetchSink>);
    thread::sleep(patience + QUIET);
    request.allow(pieces.len());
    check_answers(harness, &blocks, &pieces, &sink.all());
}

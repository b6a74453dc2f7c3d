//! Cases on writing, and on what a tier says of itself. In: a tier. Out: a panic where a block is half there,
//! or where words are wrong.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytes::Bytes;
use hyperrag_core::{Blob, FactValue, Piece, Slot, TierError, TierRole};

use super::harness::{
    Case, Filled, Harness, check_whole, contents, frame_bytes, name_cases, new_blocks, pieces_of,
    read_pieces, right,
};

pub(super) fn cases() -> Vec<Case> {
    name_cases![Case:
        a_block_that_was_put_is_there,
        a_block_is_put_again,
        slots_of_any_number,
        a_block_of_another_length_is_not_put,
        blocks_put_by_many_threads,
        one_block_put_by_many_threads,
        a_block_is_never_partly_visible,
        a_block_read_while_it_is_put_again,
        a_tier_that_takes_no_blocks_refuses_them,
        present_and_absent_blocks_are_told_apart,
        holds_keeps_the_order_and_repeats,
        holds_of_nothing,
        a_name_without_secrets,
        a_shape_that_stays,
        a_probe_with_named_facts,
    ]
}

/// Puts a block. Behind faults it may fail.
fn put(harness: &dyn Harness, blob: &Blob, bytes: &Bytes) {
    let put = harness.tier().put(blob, bytes);
    assert!(put.is_ok() || !harness.exact(), "put {}: {put:?}", blob.key);
}

fn a_block_that_was_put_is_there(harness: &dyn Harness) {
    let frame = frame_bytes(harness);
    for lengths in [[1, 100], [frame, frame + 1], [3 * frame - 1, 65_537]] {
        let blocks = new_blocks(&lengths);
        if harness.writable() {
            blocks.iter().for_each(|(blob, bytes)| put(harness, blob, bytes));
            check_whole(harness, &blocks);
        }
    }
}

fn a_block_is_put_again(harness: &dyn Harness) {
    let blocks = new_blocks(&[2 * frame_bytes(harness) + 1]);
    for _ in 0..3 {
        if harness.writable() {
            put(harness, &blocks[0].0, &blocks[0].1);
            check_whole(harness, &blocks);
        }
    }
}

fn slots_of_any_number(harness: &dyn Harness) {
    if !harness.writable() {
        return;
    }
    let mut blocks = new_blocks(&[100, 101, 102]);
    for ((blob, bytes), slot) in blocks.iter_mut().zip([0, 486, u32::MAX]) {
        blob.key.slot = Slot(slot);
        *bytes = contents(blob);
        put(harness, blob, bytes);
    }
    check_whole(harness, &blocks);
}

fn a_block_of_another_length_is_not_put(harness: &dyn Harness) {
    if !harness.writable() {
        return;
    }
    let tier = harness.tier();
    let blocks = new_blocks(&[1000, 1000, 1000]);
    for ((blob, bytes), length) in blocks.iter().zip([0, 1, 999]) {
        let refused = tier.put(blob, &bytes.slice(..length)).is_err();
        let answers = read_pieces(&*tier, &[Piece { blob: *blob, frame: 0 }]);
        let absent = !matches!(answers[0], Ok(Some(_)));
        assert!((refused && absent) || !harness.exact(), "a block of {length} bytes was taken");
    }
}

fn blocks_put_by_many_threads(harness: &dyn Harness) {
    if !harness.writable() {
        return;
    }
    let blocks = new_blocks(&[frame_bytes(harness) + 1; 24]);
    put_by_threads(harness, blocks.chunks(3));
    check_whole(harness, &blocks);
}

fn one_block_put_by_many_threads(harness: &dyn Harness) {
    if !harness.writable() {
        return;
    }
    let blocks = new_blocks(&[frame_bytes(harness) + 1]);
    put_by_threads(harness, [&blocks[..]; 8].into_iter());
    check_whole(harness, &blocks);
}

/// Puts each share by a thread.
fn put_by_threads<'a>(harness: &dyn Harness, shares: impl Iterator<Item = &'a [Filled]>) {
    let tier = harness.tier();
    let results: Vec<Result<(), TierError>> = thread::scope(|scope| {
        let putting = shares.map(|share| {
            let tier = Arc::clone(&tier);
            scope.spawn(move || {
                share.iter().map(|(blob, bytes)| tier.put(blob, bytes)).collect::<Vec<_>>()
            })
        });
        let putting: Vec<_> = putting.collect();
        putting.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let failed = results.iter().find(|result| result.is_err());
    assert!(failed.is_none() || !harness.exact(), "{failed:?}");
}

fn a_block_is_never_partly_visible(harness: &dyn Harness) {
    if !harness.writable() {
        return;
    }
    let blocks = new_blocks(&[3 * frame_bytes(harness); 10]);
    let before = read_while(harness, &blocks, || {
        blocks.iter().for_each(|(blob, bytes)| put(harness, blob, bytes));
    });
    assert!(before.0 > 0, "nothing was read meanwhile");
    check_whole(harness, &blocks);
}

fn a_block_read_while_it_is_put_again(harness: &dyn Harness) {
    if !harness.writable() {
        return;
    }
    let blocks = new_blocks(&[3 * frame_bytes(harness)]);
    put(harness, &blocks[0].0, &blocks[0].1);
    let (_, absent) = read_while(harness, &blocks, || {
        (0..10).for_each(|_| put(harness, &blocks[0].0, &blocks[0].1));
    });
    assert!(absent == 0 || !harness.exact(), "absent {absent} times");
}

/// Reads blocks over and over while `write` runs, and returns how often that was, and how often a block was
/// absent. Each piece must be right or absent.
fn read_while(harness: &dyn Harness, blocks: &[Filled], write: impl FnOnce()) -> (usize, usize) {
    let (tier, exact, ended) = (harness.tier(), harness.exact(), AtomicBool::new(false));
    let reader = || {
        let (mut reads, mut absent) = (0, 0);
        loop {
            let last = ended.load(Ordering::Acquire);
            for (blob, _) in blocks {
                let pieces = pieces_of(&*tier, blob);
                let answers = read_pieces(&*tier, &pieces);
                reads += 1;
                absent += usize::from(exact && answers.iter().any(|a| *a == Ok(None)));
                for (piece, answer) in pieces.iter().zip(answers).filter(|_| exact) {
                    let bytes = answer.expect("no error while a block is put");
                    let expected = right(&*tier, blocks, piece);
                    assert!(bytes.is_none() || bytes == expected, "a part of {}", blob.key);
                }
            }
            if last {
                return (reads, absent);
            }
        }
    };
    thread::scope(|scope| {
        let reading = scope.spawn(reader);
        // Told even if `write` panics, so that the reader ends.
        let told = Told(&ended);
        write();
        drop(told);
        reading.join().unwrap()
    })
}

struct Told<'a>(&'a AtomicBool);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn a_tier_that_takes_no_blocks_refuses_them(harness: &dyn Harness) {
    if harness.writable() {
        return;
    }
    let blocks = new_blocks(&[1000]);
    let refused = harness.tier().put(&blocks[0].0, &blocks[0].1);
    assert!(refused.is_err(), "{refused:?}");
    let named = matches!(&refused, Err(TierError::Refused(why)) if why.contains(' '));
    assert!(named || !harness.exact(), "{refused:?}");
}

fn present_and_absent_blocks_are_told_apart(harness: &dyn Harness) {
    let (present, absent) = (new_blocks(&[100, 2000, 1]), new_blocks(&[100, 2000, 1]));
    harness.fill(&present);
    let blobs = |blocks: &[Filled]| blocks.iter().map(|(blob, _)| *blob).collect::<Vec<_>>();
    check_holds(harness, &blobs(&present), &[true; 3]);
    check_holds(harness, &blobs(&absent), &[false; 3]);
}

fn holds_keeps_the_order_and_repeats(harness: &dyn Harness) {
    let (present, absent) = (new_blocks(&[100, 300]), new_blocks(&[100]));
    harness.fill(&present);
    let (first, second, none) = (present[0].0, present[1].0, absent[0].0);
    let asked = [none, first, none, second, first, first, none];
    check_holds(harness, &asked, &[false, true, false, true, true, true, false]);
}

fn holds_of_nothing(harness: &dyn Harness) {
    check_holds(harness, &[], &[]);
}

fn check_holds(harness: &dyn Harness, blobs: &[Blob], expected: &[bool]) {
    let held = harness.tier().holds(blobs);
    if harness.exact() {
        assert_eq!(held.unwrap(), expected);
    } else if let Ok(held) = held {
        assert_eq!(held.len(), expected.len());
    }
}

fn a_name_without_secrets(harness: &dyn Harness) {
    let tier = harness.tier();
    let name = tier.name().to_owned();
    assert!(!name.is_empty() && name.chars().all(|c| !c.is_control()), "{name:?}");
    let lower = name.to_lowercase();
    for secret in ["@", "password", "secret", "token"] {
        assert!(!lower.contains(secret), "{name:?}");
    }
    assert_eq!(harness.tier().name(), name);
}

fn a_shape_that_stays(harness: &dyn Harness) {
    let shape = harness.tier().shape();
    assert!(shape.frame_bytes > 0);
    assert!(!(shape.streams && shape.immediate), "leave comes after the request");
    check_whole(harness, &[]);
    assert_eq!(harness.tier().shape(), shape);
    assert!(harness.writable() || shape.role == TierRole::Home, "who would fill such a cache?");
}

fn a_probe_with_named_facts(harness: &dyn Harness) {
    let facts = match harness.tier().probe() {
        Err(_) if !harness.exact() => return,
        facts => facts.unwrap(),
    };
    let mut names = BTreeSet::new();
    for fact in &facts {
        let snake =
            fact.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        assert!(snake && !fact.name.is_empty(), "{:?}", fact.name);
        assert!(names.insert(fact.name), "{:?} twice", fact.name);
        match &fact.value {
            FactValue::Number(number) => assert!(number.is_finite(), "{fact:?}"),
            FactValue::Text(text) => assert!(!text.contains('@'), "{fact:?}"),
        }
    }
}

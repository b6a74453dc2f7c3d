//! Computes stored blocks again and compares all bytes.

use std::sync::atomic::{AtomicBool, Ordering};

use hyperrag_core::{BlockKey, BlockRead, Chunk, KvBlock, LanguageModel, ShardId, Slot};
use hyperrag_store::{Damage, ShardRecord, Store};

use crate::build::prefill::batches;
use crate::error::EngineError;
use crate::progress::ByteProgress;

/// Choice of the blocks that are computed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All.
    All,
    /// This number of blocks, evenly spread.
    Sample(u64),
    /// Blocks of every `of`-th shard, beginning with number `part`, from 1.
    Part {
        /// From 1.
        part: u32,
        /// Parts in all.
        of: u32,
    },
}

/// Report of blocks computed again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recomputation {
    /// Blocks computed again.
    pub blocks: u64,
    /// Blocks that are stored with other bytes.
    pub damages: Vec<Damage>,
}

/// Computes blocks of `store` again from their token ids and compares all bytes: a block that was
/// made wrongly, and has fitting checksums, is found by nothing else. The caller has checked that
/// `model` is the one that made the store, kernel included. Shards that another kernel mended are left
/// out, and damaged files are left to [`verify`](fn@crate::maintain::verify::verify).
///
/// # Errors
/// [`EngineError`] where the model fails, or where it was told to stop.
pub fn recompute<M: LanguageModel>(
    store: &Store,
    model: &M,
    selection: Selection,
    progress: &ByteProgress,
    stop: &AtomicBool,
) -> Result<Recomputation, EngineError> {
    let chosen = chosen(&store.manifest().shards, selection);
    let bytes = chosen
        .iter()
        .map(|(record, slots)| slots.len() as u64 * (record.kv.bytes / record.chunks.max(1)));
    progress.done.store(0, Ordering::Relaxed);
    progress.all.store(bytes.sum(), Ordering::Relaxed);
    let mut done = Recomputation::default();
    for (record, slots) in chosen {
        let contents = match store.chunks(record.shard) {
            Ok(contents) => contents,
            Err(error) if error.is_refusal() => return Err(error.into()),
            Err(_) => continue,
        };
        let picked: Vec<(Slot, Chunk)> = slots
            .into_iter()
            .filter_map(|slot| Some((Slot(slot), contents.chunks.get(slot as usize)?.clone())))
            .collect();
        let (slots, chunks): (Vec<Slot>, Vec<Chunk>) = picked.into_iter().unzip();
        let mut slots = slots.into_iter();
        for batch in batches(&chunks, model.prefill_tokens()) {
            if stop.load(Ordering::Relaxed) {
                return Err(EngineError::Interrupted);
            }
            let made = model.prefill(batch)?;
            for ((slot, chunk), made) in slots.by_ref().take(batch.len()).zip(batch).zip(made) {
                compare(store, record.shard, slot, chunk, &made, &mut done);
                let bytes = made.kv().len() as u64;
                progress.done.fetch_add(bytes, Ordering::Relaxed);
            }
        }
    }
    Ok(done)
}

/// The shards of the selection, each with slots.
fn chosen(shards: &[ShardRecord], selection: Selection) -> Vec<(&ShardRecord, Vec<u32>)> {
    // Another kernel's blocks cannot be compared to the bit.
    let chunks = |record: &ShardRecord| match record.repaired_by {
        Some(_) => 0,
        None => record.chunks,
    };
    let all: u64 = shards.iter().map(chunks).sum();
    let wanted = match selection {
        Selection::Sample(count) => count.min(all),
        _ => all,
    };
    let mut first = 0;
    let mut chosen = Vec::new();
    for (number, record) in (0_u32..).zip(shards) {
        let slots: Vec<u32> = match selection {
            Selection::Part { part, of } if number % of.max(1) + 1 != part => Vec::new(),
            // Block `i` of all is taken where the share of those wanted passes a whole number.
            _ => (0..chunks(record))
                .filter(|slot| {
                    let share =
                        |i: u64| u128::from(i) * u128::from(wanted) / u128::from(all.max(1));
                    share(first + slot + 1) > share(first + slot)
                })
                .map(|slot| slot as u32)
                .collect(),
        };
        first += chunks(record);
        if !slots.is_empty() {
            chosen.push((record, slots));
        }
    }
    chosen
}

fn compare(
    store: &Store,
    shard: ShardId,
    slot: Slot,
    chunk: &Chunk,
    made: &KvBlock,
    done: &mut Recomputation,
) {
    done.blocks += 1;
    let key = BlockKey { shard, slot, chunk: chunk.id.clone() };
    // A block that cannot be read is damage that its checksums show.
    let Some(Ok(Some(stored))) = store.get_many(std::slice::from_ref(&key)).pop() else { return };
    let bits = |block: &KvBlock| block.hidden().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    if stored.kv() != made.kv() || bits(&stored) != bits(made) {
        let what =
            format!("the block of {} is not what the model makes of its token ids", chunk.id);
        done.damages.push(store.block_damage(shard, slot, what));
    }
}

#[cfg(test)]
mod tests {
    use hyperrag_core::Digest;
    use hyperrag_store::FileRecord;

    use super::*;

    fn records(chunks: &[u64]) -> Vec<ShardRecord> {
        let file = FileRecord { bytes: 1, digest: Digest([0; 32]) };
        let record = |(shard, chunks): (u32, &u64)| ShardRecord {
            shard: ShardId(2 * shard),
            rows: 1,
            rows_digest: Digest([0; 32]),
            documents: 1,
            chunks: *chunks,
            tokens: 1,
            kv: file.clone(),
            chunk_file: file.clone(),
            repaired_by: None,
        };
        (0..).zip(chunks).map(record).collect()
    }

    #[test]
    fn samples_are_spread_and_parts_are_all() {
        let shards = records(&[5, 0, 7, 3]);
        let slots = |selection| -> Vec<(u32, u32)> {
            let chosen = chosen(&shards, selection);
            let of = |(record, slots): &(&ShardRecord, Vec<u32>)| {
                slots.iter().map(|slot| (record.shard.0, *slot)).collect::<Vec<_>>()
            };
            chosen.iter().flat_map(of).collect()
        };
        assert_eq!(slots(Selection::All).len(), 15);
        assert_eq!(slots(Selection::Sample(3)), [(0, 4), (4, 4), (6, 2)]);
        assert_eq!(slots(Selection::Sample(99)), slots(Selection::All));
        let mut parts: Vec<_> =
            (1..=3).flat_map(|part| slots(Selection::Part { part, of: 3 })).collect();
        parts.sort_unstable();
        assert_eq!(parts, slots(Selection::All));
    }

    #[test]
    fn what_another_kernel_mended_is_left_out() {
        let mut shards = records(&[5, 4, 3]);
        shards[1].repaired_by = Some("other".to_owned());
        for selection in [Selection::All, Selection::Sample(8)] {
            let chosen = chosen(&shards, selection);
            let counts: Vec<_> =
                chosen.iter().map(|(record, slots)| (record.shard.0, slots.len())).collect();
            assert_eq!(counts, [(0, 5), (4, 3)]);
        }
    }
}

//! Times the opening of a store and look-ups in it, without a model: `open_speed STORE [RUNS [LOOKUPS]]`.
//!
//! Opening is all that a query needs before its model: the manifest is read, checked and parsed, and the index
//! is opened and compared with it. Then LOOKUPS documents at random places are found by their ids, and their first
//! blocks are read and checked: once while block tables are still read, and once more. Prints JSON; times are
//! medians of RUNS, in seconds, from the page cache.

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use hyperrag_core::{BlockKey, BlockRead, ChunkId};
use hyperrag_retrieval::{Hit, Index};
use hyperrag_store::Tiered;

/// Factor of a sequence that visits all places in an order that looks random.
const STRIDE: usize = 1_000_003;

fn key(hit: &Hit) -> BlockKey {
    let chunk = ChunkId { document: hit.id.clone(), ordinal: 0 };
    BlockKey { shard: hit.location.shard, slot: hit.location.first_slot, chunk }
}

/// Opens a store as a query does. Returns the seconds of the store and of its index, too.
fn open(root: &std::path::Path) -> Result<(Tiered, Index, [f64; 2]), Box<dyn Error>> {
    let start = Instant::now();
    let store = Tiered::open(root)?;
    let of_store = start.elapsed().as_secs_f64();
    let manifest = store.manifest();
    let index = Index::open(&root.join(manifest.index_folder()))?;
    if index.documents_before(manifest.next_row()) != manifest.documents() {
        return Err("the index has other documents than the store".into());
    }
    let of_index = start.elapsed().as_secs_f64() - of_store;
    Ok((store, index, [of_store, of_index]))
}

/// Returns the seconds of a call of `each`.
fn seconds_each(
    hits: &[Hit],
    mut each: impl FnMut(&Hit) -> Result<(), Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    let start = Instant::now();
    for place in 0..hits.len() {
        each(&hits[place * STRIDE % hits.len()])?;
    }
    Ok(start.elapsed().as_secs_f64() / hits.len() as f64)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

#[expect(clippy::print_stdout, reason = "the figures are its output")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let root = PathBuf::from(arguments.next().ok_or("usage: open_speed STORE [RUNS [LOOKUPS]]")?);
    let runs: usize = arguments.next().map_or(Ok(20), |number| number.parse())?;
    let lookups: usize = arguments.next().map_or(Ok(100_000), |number| number.parse())?;
    open(&root)?; // Into the page cache.
    let (mut all, mut parts) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..runs.max(1) {
        let start = Instant::now();
        let (_, _, seconds) = open(&root)?;
        all.push(start.elapsed().as_secs_f64());
        parts.iter_mut().zip(seconds).for_each(|(part, seconds)| part.push(seconds));
    }
    let (store, index, _) = open(&root)?;
    let live = store.manifest().live_rows();
    let hits = index.sample(lookups, |row| live.contains(row))?;
    if hits.is_empty() {
        return Err("the store has no documents".into());
    }
    let found = seconds_each(&hits, |hit| {
        let found = index.get(&hit.id, |row| live.contains(row))?;
        found.filter(|found| found == hit).map(drop).ok_or_else(|| "a document is lost".into())
    })?;
    let read = || {
        seconds_each(&hits, |hit| {
            store.get_many(&[key(hit)]).remove(0)?.map(drop).ok_or_else(|| "a block is lost".into())
        })
    };
    let (first, again) = (read()?, read()?);
    let [of_store, of_index] = parts.map(median);
    println!(
        "{{\"opening\":{:.6},\"opening_store\":{of_store:.6},\"opening_index\":{of_index:.6},\"lookups\":{},\
         \"find_id\":{found:.9},\"read_block_first\":{first:.9},\"read_block\":{again:.9}}}",
        median(all),
        hits.len()
    );
    Ok(())
}

//! Two copies whose blocks are damaged independently.

use std::fs;
use std::path::Path;

use hyperrag_core::{BlockRead, QuerySuffix};
use hyperrag_rerank::{BlockSource, OnDamage, ScoreRequest, score};
use hyperrag_store::Tiered;

use crate::Tally;
use crate::seeded::Seeded;
use crate::store::Pristine;

/// Share of the blocks that are damaged in each copy, in percent.
const PERCENT: usize = 2;

/// Damages blocks of a store and its replica, reads all, and scores with recompute allowed. Returns a
/// sentence on the number of blocks without an intact copy.
pub(crate) fn independent_faults(pristine: &Pristine, seed: u64, reads: u64) -> (Tally, String) {
    let mut random = Seeded(seed ^ 0xabcd);
    let (root, replica) = (pristine.root(), pristine.root().with_file_name("replica"));
    hyperrag_engine::maintain::replicate::replicate(
        &root,
        &replica,
        false,
        &hyperrag_engine::ByteProgress::default(),
    )
    .unwrap();
    let keys = pristine.keys();
    let query = QuerySuffix::likelihood(&[70, 71, 72, 73]);
    let chunk_tokens = pristine.fingerprint.chunk_tokens as usize;
    let scored = |store: &Tiered| {
        let request = ScoreRequest { query: &query, keys: &keys };
        let source = BlockSource::Stored(store, OnDamage::Recompute);
        let scored = score(&pristine.model, &[request], chunk_tokens, source, store);
        scored.and_then(|mut scored| scored.remove(0))
    };
    let expected = scored(&Tiered::open(&root).unwrap()).unwrap().scores;
    let (mut tally, mut both) = (Tally::default(), 0);
    while tally.trials < reads {
        let damaged =
            [damage(&root, pristine, &mut random), damage(&replica, pristine, &mut random)];
        let store = Tiered::open(&root).unwrap();
        for (i, (read, (_, block))) in
            store.get_many(&keys).iter().zip(&pristine.blocks).enumerate()
        {
            tally.trials += 1;
            let hurt = damaged.iter().filter(|damaged| damaged[i]).count();
            both += u64::from(hurt == 2);
            match read {
                Ok(Some(read)) if read != block => tally.wrong += 1,
                Ok(Some(_)) if hurt == 0 => tally.harmless += 1,
                // Two copies that are damaged in different layers have all of it between them.
                Ok(Some(_)) | Err(_) if hurt == 2 => tally.detected += 1,
                Ok(Some(_)) => tally.detected += 1,
                _ => tally.lost += 1,
            }
        }
        // With recompute allowed nothing is lost, and no score differs.
        match scored(&store) {
            Err(_) => tally.lost += 1,
            Ok(scored) if scored.scores != expected => tally.wrong += 1,
            Ok(_) => {}
        }
        for root in [&root, &replica] {
            mend(root, pristine);
        }
    }
    let share = both as f64 / tally.trials as f64;
    let expected = (PERCENT as f64 / 100.0).powi(2);
    // Five standard deviations of a binomial share.
    let margin = 5.0 * (expected * (1.0 - expected) / tally.trials as f64).sqrt();
    if (share - expected).abs() > margin {
        tally.wrong += 1;
    }
    fs::remove_dir_all(&replica).unwrap();
    fs::remove_file(root.join("replicas.json")).unwrap();
    let note = format!(
        "Of {} block reads {both} had both copies damaged and were computed again: {share:.1e}, expected {expected:.1e} within {margin:.1e}.",
        tally.trials
    );
    (tally, note)
}

/// Flips a byte in some blocks. Returns for each block whether it was damaged.
fn damage(root: &Path, pristine: &Pristine, random: &mut Seeded) -> Vec<bool> {
    let mut files = std::collections::BTreeMap::new();
    let hurt = pristine.blocks.iter().map(|(key, block)| {
        let hurt = random.below(100) < PERCENT;
        if hurt {
            let name = format!("shards/{}.kv", key.shard);
            let bytes: &mut Vec<u8> = files
                .entry(name.clone())
                .or_insert_with(|| pristine.files()[Path::new(&name)].clone());
            let number =
                |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            let entry = 256 + 64 * key.slot.0 as usize;
            let kv = number(entry + 32) + number(entry + 52);
            bytes[kv + random.below(block.kv().len())] ^= 1 + random.below(255) as u8;
        }
        hurt
    });
    let hurt = hurt.collect();
    for (name, bytes) in files {
        fs::write(root.join(name), bytes).unwrap();
    }
    hurt
}

fn mend(root: &Path, pristine: &Pristine) {
    for (name, bytes) in pristine.files() {
        if name.starts_with("shards") {
            fs::write(root.join(name), bytes).unwrap();
        }
    }
}

//! Reports on the tiers of a store: specifications come in, a report of each tier goes out, after it was asked for
//! some blocks. Writes nothing to a server.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use hyperrag_core::{BlockKey, BlockRead, FactValue, Slot};
use hyperrag_store::{Store, TierChoice, TierWork, Tiered};
use serde::Serialize;

use crate::error::EngineError;
use crate::open::largest_block;
use crate::open::tiers::{OpenTier, TierLogins, TierSpec};

/// Number of blocks that a tier is asked for.
const SAMPLED: usize = 16;

/// Report on a tier.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TierReport {
    /// Name of the tier, without secrets.
    pub tier: String,
    /// Reason why it cannot be used.
    pub error: Option<String>,
    /// Facts that it tells of itself: version, policy, replicas, room.
    pub facts: BTreeMap<&'static str, Fact>,
    /// Number of blocks that it was asked for.
    pub blocks_asked: usize,
    /// Number of those that it gave intact.
    pub blocks_intact: usize,
    /// Number of those that it does not hold.
    pub blocks_absent: u64,
    /// Median of the time from asking for a piece to its arrival, in seconds.
    pub latency_seconds: Option<f64>,
    /// Rate of reading block after block, in bytes a second.
    pub bytes_per_second: Option<f64>,
}

impl TierReport {
    /// Whether the tier can be used, and gave all that it holds intact.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let given = self.blocks_intact as u64 + self.blocks_absent;
        self.error.is_none() && given >= self.blocks_asked as u64
    }
}

/// Value of a fact.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Fact {
    /// Words.
    Text(String),
    /// Number, in the unit that the name says.
    Number(f64),
}

/// Asks each tier what it is and for some blocks of the store at `root`.
///
/// # Errors
/// [`EngineError`] if the store cannot be read, or a tier cannot be opened.
pub fn tier_reports(
    root: &Path,
    specs: &[TierSpec],
    logins: &TierLogins,
) -> Result<Vec<TierReport>, EngineError> {
    if specs.is_empty() {
        return Ok(Vec::new());
    }
    let store = Store::open(root)?;
    let keys = sample(&store)?;
    let block_bytes = largest_block(&Tiered::open(root)?);
    let report = |spec: &TierSpec| {
        let tiers = Tiered::open(root)?;
        Ok(match OpenTier::open(spec, logins, block_bytes) {
            Ok(None) => {
                measured(spec.to_string(), &tiers.with_tiers(vec![TierChoice::Store]), &keys)
            }
            Ok(Some(OpenTier { tier, patience, .. })) => {
                let name = tier.name().to_owned();
                match tier.probe() {
                    Ok(facts) => {
                        let facts = facts.into_iter().map(|fact| match fact.value {
                            FactValue::Text(text) => (fact.name, Fact::Text(text)),
                            FactValue::Number(number) => (fact.name, Fact::Number(number)),
                        });
                        let choice = TierChoice::Tier { tier, patience };
                        let report = measured(name, &tiers.with_tiers(vec![choice]), &keys);
                        TierReport { facts: facts.collect(), ..report }
                    }
                    Err(error) => failed(name, &error),
                }
            }
            Err(error) => failed(spec.to_string(), &error),
        })
    };
    specs.iter().map(report).collect()
}

fn failed(tier: String, error: &dyn std::error::Error) -> TierReport {
    let (facts, error) = (BTreeMap::new(), Some(error.to_string()));
    let (blocks_asked, blocks_intact, blocks_absent) = (0, 0, 0);
    let (latency_seconds, bytes_per_second) = (None, None);
    TierReport {
        tier,
        error,
        facts,
        blocks_asked,
        blocks_intact,
        blocks_absent,
        latency_seconds,
        bytes_per_second,
    }
}

/// Reads the blocks one after the other.
fn measured(tier: String, store: &Tiered, keys: &[BlockKey]) -> TierReport {
    let (start, mut bytes, mut blocks_intact) = (Instant::now(), 0, 0);
    for key in keys {
        let read = store.get_many(std::slice::from_ref(key)).pop();
        if let Some(Ok(Some(block))) = read {
            blocks_intact += 1;
            bytes += block.kv().len();
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let work = store.tier_work().pop();
    let absent = |work: &TierWork| work.misses;
    TierReport {
        tier,
        error: None,
        facts: BTreeMap::new(),
        blocks_asked: keys.len(),
        blocks_intact,
        blocks_absent: work.as_ref().map_or(0, absent),
        latency_seconds: work.and_then(|work| work.wait_p50_seconds),
        bytes_per_second: (blocks_intact > 0).then(|| bytes as f64 / seconds),
    }
}

/// Returns the keys of some blocks, from shards that are evenly spread.
fn sample(store: &Store) -> Result<Vec<BlockKey>, EngineError> {
    let shards = &store.manifest().shards;
    let step = shards.len().div_ceil(SAMPLED).max(1);
    let mut keys = Vec::new();
    let each = SAMPLED.div_ceil(shards.len().max(1));
    for record in shards.iter().step_by(step) {
        let chunks = store.chunks(record.shard)?.chunks;
        let spread = chunks.len().div_ceil(each).max(1);
        keys.extend(chunks.into_iter().enumerate().step_by(spread).map(|(slot, chunk)| {
            let slot = Slot(u32::try_from(slot).expect("a shard has at most a million blocks"));
            BlockKey { shard: record.shard, slot, chunk: chunk.id }
        }));
    }
    keys.truncate(SAMPLED);
    Ok(keys)
}

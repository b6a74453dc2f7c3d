//! Finds the last snapshot of a store whose own manifest is unusable, by the traces of that manifest and by
//! the replicas.
//!
//! In: the folders of a store and of its replicas. Out: the state of one replica, and whether it is proved to
//! be the lost one. It writes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use hyperrag_core::{Digest, ShardId};

use crate::format::announcement::Announced;
use crate::format::manifest::{MANIFEST_BYTES_MAX, Manifest, stated_checksum};
use crate::format::paths::{StorePaths, index_number, is_old_manifest, journal_generation};
use crate::local::generation;
use crate::local::journal::read_journal;
use crate::local::open::read_plain;
use crate::local::shard_reader::{UnnamedShard, shard_headers};
use crate::local::state::State;

/// Traces of a manifest that cannot be read.
pub(crate) struct Traces {
    /// Text of the damaged manifest, as far as it is text.
    pub(crate) text: String,
    announced: Option<Announced>,
    /// Highest generation that the store has certainly had.
    least: u64,
    /// Generation in the damaged text.
    told: Option<u64>,
}

impl Traces {
    /// Looks for traces in the store's folder.
    pub(crate) fn of(paths: &StorePaths) -> Self {
        let text = text_at(&paths.manifest());
        let announced = generation::read(paths).ok().flatten();
        let generation =
            |text: &str| Manifest::parse(text.as_bytes()).ok().map(|manifest| manifest.generation);
        let names = fs::read_dir(&paths.root).into_iter().flatten().flatten();
        let of_names = names.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            match is_old_manifest(&name) {
                true => generation(&text_at(&entry.path())),
                // An index is written before the manifest that names it.
                false => journal_generation(&name)
                    .or_else(|| index_number(&name).map(|next| next.saturating_sub(1))),
            }
        });
        let certain = of_names.chain(announced.map(|announced| announced.previous));
        let least = certain.chain(generation(&text)).max().unwrap_or(1);
        let told = text.split_once("\"generation\":").and_then(|(_, rest)| {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..digits].parse().ok()
        });
        Self { text, announced, least, told }
    }

    /// Returns the highest generation in any trace.
    pub(crate) fn highest(&self) -> u64 {
        let announced = self.announced.map(|announced| announced.generation);
        [Some(self.least), self.told, announced].into_iter().flatten().max().unwrap_or(1)
    }

    /// Whether the lost manifest is proved to have had this generation and checksum.
    pub(crate) fn prove(&self, generation: u64, checksum: &Digest) -> bool {
        let announced = |announced: Announced| {
            (announced.generation, announced.checksum) == (generation, *checksum)
                && self.told.is_none_or(|told| told <= generation)
        };
        generation >= self.least && (self.names(checksum) || self.announced.is_some_and(announced))
    }

    /// Whether the damaged text has this checksum, or most of its digits.
    pub(crate) fn names(&self, checksum: &Digest) -> bool {
        let checksum = checksum.to_string();
        let stated = self.text.split_once("\"checksum\":\"").map_or("", |(_, rest)| rest);
        let same = checksum.chars().zip(stated.chars()).filter(|(a, b)| a == b).count();
        // By chance two digests share a sixteenth of their digits.
        self.text.contains(&checksum) || same > checksum.len() / 2
    }

    /// Says what is not known about a snapshot of this generation, as the continuation of a sentence after
    /// its name.
    pub(crate) fn doubt(&self, generation: u64) -> String {
        let highest = self.highest();
        let had = match () {
            () if self.least > generation => format!("the store had {}", self.least),
            () if highest > generation => format!("the store may have had {highest}"),
            () => "nothing tells whether the store had a later one".to_owned(),
        };
        format!("has generation {generation}, and {had}")
    }
}

/// Reads the text of a small file; empty if there is none.
fn text_at(path: &Path) -> String {
    let bytes = read_plain(path, MANIFEST_BYTES_MAX).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A state that a store may have had.
pub(crate) struct ReplicaManifest {
    pub(crate) state: State,
    /// Replica that has the state.
    pub(crate) from: PathBuf,
    /// Whether the state is proved to be what the store held.
    pub(crate) proved: bool,
}

/// Finds the proved state of a replica, else the one of the highest generation. Shards being added count only
/// with `added`: it reads like [`State::sealed`], else like [`State::read`].
pub(crate) fn latest(
    paths: &StorePaths,
    traces: &Traces,
    replicas: &[PathBuf],
    added: bool,
) -> Option<ReplicaManifest> {
    let candidates = replicas.iter().filter_map(|from| candidate(paths, traces, from, added));
    candidates.reduce(|best, next| {
        let order =
            |candidate: &ReplicaManifest| (candidate.proved, candidate.state.manifest.generation);
        if order(&next) > order(&best) { next } else { best }
    })
}

fn candidate(
    paths: &StorePaths,
    traces: &Traces,
    from: &Path,
    added: bool,
) -> Option<ReplicaManifest> {
    let copy = StorePaths::new(from);
    let snapshot = State::snapshot(&copy).ok()??;
    let generation = snapshot.manifest.generation;
    let proved = traces.prove(generation, &stated_checksum(&snapshot.snapshot)?);
    let (state, whole) = continued(snapshot, paths, &copy, added)?;
    Some(ReplicaManifest { state, from: from.to_owned(), proved: proved && whole })
}

/// Continues a replica's snapshot by the store's own journal or, if that is unusable, the replica's. The bool
/// says that no sealed shard can be missing.
fn continued(
    snapshot: State,
    own: &StorePaths,
    copy: &StorePaths,
    added: bool,
) -> Option<(State, bool)> {
    let (complete, generation) = (snapshot.manifest.complete, snapshot.manifest.generation);
    if complete && !added {
        return Some((snapshot, true));
    }
    let path = own.journal(generation);
    match read_journal(&path) {
        Ok(Some(journal)) => return Some((snapshot.continued(journal, &path).ok()?, true)),
        Ok(None) if complete => return Some((snapshot, true)),
        _ => {}
    }
    let path = copy.journal(generation);
    let state = match read_journal(&path).ok()? {
        Some(journal) => snapshot.continued(journal, &path).ok()?,
        None => snapshot,
    };
    let whole = has_all(own, &state.manifest);
    Some((state, whole))
}

/// Whether `manifest` knows all shards in the folder.
fn has_all(paths: &StorePaths, manifest: &Manifest) -> bool {
    let mut shards = shard_headers(paths).filter_map(|header| {
        let UnnamedShard { digest, .. } = UnnamedShard::read(paths, header.shard).ok()?;
        Some((header.shard, digest))
    });
    let next = manifest.next_shard();
    // A lower number that it does not have was compacted away.
    let known = |(shard, digest): (ShardId, Digest)| {
        let record = manifest.shard(shard);
        shard < next && record.is_none_or(|record| record.kv.digest == digest)
    };
    shards.all(known)
}

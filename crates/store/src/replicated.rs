use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hyperrag_kv::{
    BlockError, BlockKey, BlockRead, Calibration, Chunk, ChunkRead, Geometry, KvBlock,
};
use rayon::prelude::*;

use crate::{Manifest, Store, StoreError, replicas};

/// A store and its replicas: what is damaged or unreachable in one is read from the next.
///
/// Every replica's files are checked against the store's own manifest, so a replica that is behind,
/// or of another store, serves nothing wrong.
pub struct Replicated {
    /// The store itself first.
    copies: Vec<Store>,
    failovers: Mutex<Vec<Failover>>,
    notices: Vec<String>,
}

/// Something that was read from a replica because the store's own is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// File, and what is wrong with it.
    pub what: String,
    /// Folder of the replica that served it.
    pub from: PathBuf,
}

impl Replicated {
    /// Opens the store at `root` with the replicas that it remembers. Where its manifest is damaged,
    /// the first replica's that is whole counts.
    ///
    /// # Errors
    /// As [`Store::open`], where no replica helps.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let mut notices = Vec::new();
        let mut listed = replicas(root).unwrap_or_else(|error| {
            notices.push(format!(
                "{error}; reading goes on without replicas, name them again with `hyperrag replicate`"
            ));
            Vec::new()
        });
        listed.retain(|replica| {
            let reached = replica.join("shards").is_dir();
            if !reached {
                notices.push(format!(
                    "{}: the replica cannot be reached; reading goes on without it",
                    replica.display()
                ));
            }
            reached
        });
        let mut failovers = Vec::new();
        let own = match Store::open(root) {
            Ok(store) => store,
            Err(error @ (StoreError::Damaged { .. } | StoreError::Io { .. })) => {
                let open = |from: &PathBuf| Some((Store::open(from).ok()?.manifest, from.clone()));
                let Some((manifest, from)) = listed.iter().find_map(open) else {
                    return Err(error);
                };
                failovers.push(Failover { what: error.to_string(), from });
                Store::with_manifest(root, manifest)
            }
            Err(error) => return Err(error),
        };
        let manifest = Arc::clone(&own.manifest);
        let others = listed.iter().map(|root| Store::with_manifest(root, Arc::clone(&manifest)));
        let copies = std::iter::once(own).chain(others).collect();
        Ok(Self { copies, failovers: Mutex::new(failovers), notices })
    }

    /// What the store holds.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        self.copies[0].manifest()
    }

    /// Sizes of its blocks.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        self.copies[0].geometry()
    }

    /// The calibration that the store's elements need, if they do.
    ///
    /// # Errors
    /// As [`Store::calibration`], where no replica helps.
    pub fn calibration(&self) -> Result<Option<Calibration>, StoreError> {
        let own = self.copies[0].calibration();
        let Err(error) = &own else { return own };
        for copy in &self.copies[1..] {
            if let Ok(found) = copy.calibration() {
                let (what, from) = (error.to_string(), copy.root().to_owned());
                self.note(Failover { what, from });
                return Ok(found);
            }
        }
        own
    }

    /// The folders of the store and of its replicas that can be reached, in the order in which they
    /// are asked.
    pub fn roots(&self) -> impl Iterator<Item = &Path> {
        self.copies.iter().map(Store::root)
    }

    /// What a user should know about replicas that are of no use, one sentence each.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Notes that something else of the store, its index, was read from a replica.
    pub fn note(&self, failover: Failover) {
        self.failovers.lock().unwrap_or_else(PoisonError::into_inner).push(failover);
    }

    /// What was read from replicas since the last call.
    #[must_use]
    pub fn take_failovers(&self) -> Vec<Failover> {
        std::mem::take(&mut self.failovers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the first copy gives that has it intact, or the store's own error.
    fn first<T>(
        &self,
        read: impl Fn(&Store) -> Result<Option<T>, BlockError>,
    ) -> Result<Option<T>, BlockError> {
        let error = match read(&self.copies[0]) {
            Err(error) => error,
            found => return found,
        };
        for copy in &self.copies[1..] {
            if let Ok(Some(found)) = read(copy) {
                let what = match &error {
                    BlockError::Io { source, .. } => format!("{error} ({source})"),
                    error => error.to_string(),
                };
                self.note(Failover { what, from: copy.root().to_owned() });
                return Ok(Some(found));
            }
        }
        Err(match error {
            BlockError::Damaged { place, what } if self.copies.len() > 1 => {
                BlockError::Damaged { place, what: format!("{what}, and no replica has it intact") }
            }
            error => error,
        })
    }
}

impl BlockRead for Replicated {
    fn get_many(&self, keys: &[BlockKey]) -> Vec<Result<Option<KvBlock>, BlockError>> {
        keys.par_iter().map(|key| self.first(|copy| copy.get(key))).collect()
    }
}

impl ChunkRead for Replicated {
    fn chunk(&self, key: &BlockKey) -> Result<Chunk, BlockError> {
        let found = self.first(|copy| copy.chunk(key).map(Some))?;
        Ok(found.expect("a store that has no chunk says why"))
    }
}

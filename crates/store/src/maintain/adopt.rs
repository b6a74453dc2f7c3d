//! Takes shards in that other processes sealed. In: a record and files, unchecked. Out: a sealed shard of this
//! store, as if it had been built here. It knows no place.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use crate::error::StoreError;
use crate::format::chunk_file::ShardChunks;
use crate::format::journal::JournalLine;
use crate::format::records::ShardRecord;
use crate::local::chunk_file::read_chunks;
use crate::local::durable::{make_own_folder, publish, sync_folder, write_whole};
use crate::local::open::{create_temporary, open_plain};
use crate::local::shard_reader::OpenShard;
use crate::local::writer::StoreWriter;

/// File with the blocks of a shard that was sealed elsewhere.
#[derive(Clone, Copy, Debug)]
pub enum SealedBlocks<'a> {
    /// The shard.
    Shard(&'a Path),
    /// Header and block table of the shard, which stays in the place that has it.
    Table(&'a Path),
}

impl StoreWriter {
    /// Takes in the next shard of a store that is built for the first time, and returns its contents. The files
    /// stay where they are, and are linked, or copied where the system links none. Header, block table and chunk
    /// file are checked. A crash undoes it until [`StoreWriter::seal_adopted`].
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if a file is not the one that `record` names. The shard is not part of the store
    /// then.
    pub fn adopt(
        &mut self,
        record: &ShardRecord,
        blocks: SealedBlocks<'_>,
        chunk_file: &Path,
    ) -> Result<ShardChunks, StoreError> {
        assert!(!self.manifest.complete, "a complete store takes no more shards");
        assert_eq!(record.shard, self.manifest.next_shard(), "shards are sealed in order");
        self.manifest.add(record.clone(), &[]);
        let taken = self.take_in(record, blocks, chunk_file);
        if taken.is_err() {
            self.manifest.shards.pop();
        }
        taken
    }

    /// Seals all shards that were taken in. The journal is written as a whole, so a few calls for many shards are
    /// fast.
    ///
    /// # Errors
    /// [`StoreError`] if files cannot be written.
    pub fn seal_adopted(&mut self) -> Result<(), StoreError> {
        sync_folder(&self.paths.shards())?;
        sync_folder(&self.paths.chunks())?;
        if self.paths.tables().exists() {
            sync_folder(&self.paths.tables())?;
        }
        let line = |record: &ShardRecord| JournalLine { record: record.clone(), replaces: vec![] };
        let lines: String =
            self.manifest.shards.iter().map(|record| line(record).encode()).collect();
        write_whole(&self.journal(), lines.as_bytes())
    }

    /// Brings the files of the last shard to their places.
    fn take_in(
        &self,
        record: &ShardRecord,
        blocks: SealedBlocks<'_>,
        chunk_file: &Path,
    ) -> Result<ShardChunks, StoreError> {
        let (paths, shard) = (&self.paths, record.shard);
        let fingerprint = self.manifest.fingerprint.digest();
        match blocks {
            SealedBlocks::Shard(from) => {
                let opened = OpenShard::open(from, &self.manifest, &fingerprint, shard);
                opened.map_err(|fault| fault.of_file(from))?;
                link(from, &paths.shard(shard))?;
            }
            SealedBlocks::Table(from) => {
                let opened = OpenShard::read_table(from, &self.manifest, &fingerprint, shard);
                opened.map_err(|fault| fault.of_file(from))?;
                make_own_folder(&paths.tables())?;
                link(from, &paths.table(shard))?;
            }
        }
        link(chunk_file, &paths.chunk_file(shard))?;
        read_chunks(paths, &self.manifest, shard)
    }
}

/// Gives a file a second name; a copy gets it where the system links no files. What has the name already is
/// replaced.
fn link(from: &Path, to: &Path) -> Result<(), StoreError> {
    match fs::remove_file(to) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(StoreError::io(to, "cannot be removed")(error));
        }
        _ => {}
    }
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    let mut source = open_plain(from).map_err(|fault| fault.of_file(from))?;
    let mut copy = create_temporary(to)?;
    let copied = io::copy(&mut source, &mut copy).and_then(|_| copy.sync_all());
    copied.map_err(StoreError::io(to, "cannot be written"))?;
    publish(to)
}

//! The writer of a span: shards of the middle of a store, which others merge. In: a folder of this machine, the
//! number of the first shard. Out: files of sealed shards, one after the other. It knows no place.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hyperrag_core::{Calibration, Fingerprint, ShardId};

use crate::error::StoreError;
use crate::format::block_table::first_offset;
use crate::format::manifest::Manifest;
use crate::format::paths::StorePaths;
use crate::format::records::ShardRecord;
use crate::local::durable::{make_folder, make_own_folder};
use crate::local::generation::publish_manifest;
use crate::local::lock::lock;
use crate::local::shard_reader::OpenShard;
use crate::local::writer::StoreWriter;

/// Files of a sealed shard on this machine.
#[derive(Clone, Debug)]
pub struct SealedFiles {
    /// The shard.
    pub shard: PathBuf,
    /// The chunk file.
    pub chunk_file: PathBuf,
    /// Header and block table alone, see [`StoreWriter::write_table`].
    pub table: PathBuf,
}

impl StoreWriter {
    /// Makes the folder of a span at `root`, empty. Its first shard is `first`, and the first row of that
    /// `first_row`.
    ///
    /// # Errors
    /// [`StoreError`] if the folder cannot be emptied or made.
    pub fn begin_span(
        root: &Path,
        fingerprint: &Fingerprint,
        calibration: Option<&Calibration>,
        first: ShardId,
        first_row: u64,
    ) -> Result<Self, StoreError> {
        let digest = calibration.map(Calibration::digest);
        assert_eq!(digest, fingerprint.calibration, "the calibration of the fingerprint");
        match fs::remove_dir_all(root) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(StoreError::io(root, "cannot be removed")(error));
            }
            _ => {}
        }
        let paths = StorePaths::new(root);
        make_folder(root)?;
        let lock = lock(&paths)?;
        make_own_folder(&paths.shards())?;
        make_own_folder(&paths.chunks())?;
        make_own_folder(&paths.tables())?;
        let manifest =
            Manifest { first_shard: first, first_row, ..Manifest::first(fingerprint.clone()) };
        publish_manifest(&paths, &manifest)?;
        Self::with_manifest(paths, manifest, lock)
    }

    /// Returns the paths of a shard's files.
    #[must_use]
    pub fn sealed_files(&self, shard: ShardId) -> SealedFiles {
        SealedFiles {
            shard: self.paths.shard(shard),
            chunk_file: self.paths.chunk_file(shard),
            table: self.paths.table(shard),
        }
    }

    /// Writes header and block table of a sealed shard to a file of their own.
    ///
    /// # Errors
    /// [`StoreError`] if the shard is not as it was written, or the table cannot be written.
    pub fn write_table(&self, record: &ShardRecord) -> Result<(), StoreError> {
        let SealedFiles { shard: path, table, .. } = self.sealed_files(record.shard);
        let fingerprint = self.manifest.fingerprint.digest();
        let opened = OpenShard::open(&path, &self.manifest, &fingerprint, record.shard);
        let (opened, file) = opened.map_err(|fault| fault.of_file(&path))?;
        let mut bytes = vec![0; first_offset(opened.entries.len()) as usize];
        let read = file.read_exact_at(&mut bytes, 0);
        read.map_err(StoreError::io(&path, "cannot be read"))?;
        fs::write(&table, &bytes).map_err(StoreError::io(&table, "cannot be written"))
    }
}

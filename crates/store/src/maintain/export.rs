//! Export of a finished store: its files come in, checked, with their digests and with the marks of earlier
//! calls. It sends nothing and knows no place.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use hyperrag_core::{Digest, ShardId};

use crate::error::StoreError;
use crate::format::block_table::first_offset;
use crate::format::export_marks::{BYTES_MAX, ExportMarks};
use crate::format::exported::{ListedFile, Listing, short};
use crate::format::manifest::Manifest;
use crate::format::paths::{StorePaths, shard_object};
use crate::local::durable::{make_own_folder, write_whole};
use crate::local::lock::lock;
use crate::local::notes::notes;
use crate::local::open::{open_plain, read_plain};
use crate::local::reader::Store;
use crate::local::shard_reader::OpenShard;
use crate::local::state::State;

/// Size of the reads of a file to hash, in bytes.
const HASH_BYTES: usize = 1 << 20;

/// A finished store that is being exported. While it lives, no other process writes.
pub struct Export {
    store: Store,
    marks_path: PathBuf,
    marks: Mutex<ExportMarks>,
    dry: bool,
    _lock: Option<File>,
}

/// A file to be sent: its path on this machine, and its name in the listing.
pub struct SentFile {
    /// Path of the file.
    pub from: PathBuf,
    /// Entry of the listing.
    pub listed: ListedFile,
}

impl Export {
    /// Starts to export the store at `root` to the place `to`. With `dry` it takes no lock and writes nothing.
    ///
    /// # Errors
    /// [`StoreError::Unfinished`] if an input is only partly in, [`StoreError::Locked`] while another process
    /// writes, [`StoreError::Absent`].
    pub fn open(root: &Path, to: &str, dry: bool) -> Result<Self, StoreError> {
        let paths = StorePaths::new(root);
        let absent = || StoreError::Absent { path: root.to_owned() };
        State::read(&paths)?.ok_or_else(absent)?;
        let lock = if dry { None } else { Some(lock(&paths)?) };
        let store = Store::open(root)?;
        // Shards that an unfinished append has sealed would be lost.
        let sealed = State::sealed_manifest(&paths)?.ok_or_else(absent)?;
        if !store.manifest.complete || sealed != *store.manifest {
            return Err(StoreError::Unfinished { path: root.to_owned() });
        }
        if !dry {
            make_own_folder(&paths.exports())?;
            make_own_folder(&paths.tables())?;
        }
        let name = short(&Digest::of(to.as_bytes()));
        let marks_path = paths.exports().join(format!("{name}.json"));
        let marks = read_plain(&marks_path, BYTES_MAX).ok();
        let marks = marks.and_then(|bytes| ExportMarks::parse(&bytes));
        let marks =
            marks.unwrap_or_else(|| ExportMarks { to: to.to_owned(), ..Default::default() });
        let marks = Mutex::new(marks);
        Ok(Self { store, marks_path, marks, dry, _lock: lock })
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Digest of the store's fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        self.store.fingerprint
    }

    /// Returns the digest of the manifest's file.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    pub fn manifest_digest(&self) -> Result<Digest, StoreError> {
        Ok(hash(&self.store.paths.manifest())?.1)
    }

    /// Returns the name of a shard's block table: 32 hexadecimal digits.
    fn table_name(&self, shard: ShardId) -> String {
        short(&self.store.manifest.record(shard).kv.digest)
    }

    /// Returns a shard's file, and the name of the object that holds it in a place of files.
    #[must_use]
    pub fn shard_file(&self, shard: ShardId) -> (PathBuf, String) {
        (self.store.paths.shard(shard), shard_object(shard, &self.table_name(shard)))
    }

    /// Whether an earlier call has sent this very shard.
    #[must_use]
    pub fn is_marked(&self, shard: ShardId) -> bool {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.shards.contains(&self.table_name(shard))
    }

    /// Marks a shard as sent, durably.
    ///
    /// # Errors
    /// [`StoreError`] if the mark cannot be written.
    pub fn mark(&self, shard: ShardId) -> Result<(), StoreError> {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if !marks.shards.insert(self.table_name(shard)) || self.dry {
            return Ok(());
        }
        write_whole(&self.marks_path, &marks.to_bytes())
    }

    /// Checks every byte of a shard.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] with the first fault.
    pub fn check_shard(&self, shard: ShardId, buffer: &mut Vec<u8>) -> Result<(), StoreError> {
        let damages = self.store.verify_shard(shard, buffer, &AtomicU64::new(0))?;
        match damages.into_iter().next() {
            None => Ok(()),
            Some(damage) => {
                let place = damage.slot.map_or_else(String::new, |slot| format!("block {slot}: "));
                let path = self.store.paths.root.join(&damage.file);
                Err(StoreError::damaged(&path, format!("{place}{}", damage.what)))
            }
        }
    }

    /// Keeps a shard's block table by itself, unless it is there already.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the shard's is not as it was written.
    pub fn write_table(&self, shard: ShardId) -> Result<(), StoreError> {
        let Store { paths, manifest, fingerprint, .. } = &self.store;
        let (path, alone) = (paths.shard(shard), paths.table(shard));
        if OpenShard::read_table(&alone, manifest, fingerprint, shard).is_ok() {
            return Ok(());
        }
        let opened = OpenShard::open(&path, manifest, fingerprint, shard);
        let (opened, file) = opened.map_err(|fault| fault.of_file(&path))?;
        let mut bytes = vec![0; first_offset(opened.entries.len()) as usize];
        let read = file.read_exact_at(&mut bytes, 0);
        read.map_err(StoreError::io(&path, "cannot be read"))?;
        write_whole(&alone, &bytes)?;
        let written = OpenShard::read_table(&alone, manifest, fingerprint, shard);
        written.map(drop).map_err(|fault| fault.of_file(&alone))
    }

    /// Returns a shard's chunk file and block table, checked.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if one of them is not as it was written.
    pub fn files_of(
        &self,
        shard: ShardId,
        buffer: &mut Vec<u8>,
    ) -> Result<[SentFile; 2], StoreError> {
        let (paths, record) = (&self.store.paths, self.store.manifest.record(shard));
        let chunk_file = paths.chunk_file(shard);
        if let Some(damage) = self.store.verify_chunk_file(shard, buffer, &AtomicU64::new(0))? {
            return Err(StoreError::damaged(&chunk_file, damage.what));
        }
        let listed = self.listed(&chunk_file, record.chunk_file.bytes, record.chunk_file.digest);
        Ok([SentFile { from: chunk_file, listed }, self.hashed(&paths.table(shard))?])
    }

    /// Returns manifest, generation, notes and calibration, and the files of `index`, a copy of the store's
    /// index, as far as there are any.
    ///
    /// # Errors
    /// [`StoreError`] if one cannot be read, or is not that of the opened store.
    pub fn other_files(&self, index: &Path) -> Result<Vec<SentFile>, StoreError> {
        let Store { paths, manifest, .. } = &self.store;
        let own = read_plain(&paths.manifest(), u64::MAX - 1);
        let own = own.map_err(|fault| fault.of_file(&paths.manifest()))?;
        if Manifest::parse(&own).ok().as_ref() != Some(&**manifest) {
            return Err(StoreError::damaged(&paths.manifest(), "it was changed meanwhile"));
        }
        self.store.calibration()?;
        notes(&paths.root)?;
        let own = [paths.manifest(), paths.generation(), paths.notes(), paths.calibration()];
        let own = own.into_iter().filter(|path| path.exists());
        let mut files: Vec<_> = own.map(|path| self.hashed(&path)).collect::<Result<_, _>>()?;
        let folder = paths.root.join(manifest.index_folder());
        let entries = fs::read_dir(index).map_err(StoreError::io(index, "cannot be read"))?;
        for entry in entries {
            let from = entry.map_err(StoreError::io(index, "cannot be read"))?.path();
            let (bytes, digest) = hash(&from)?;
            let listed =
                self.listed(&folder.join(from.file_name().unwrap_or_default()), bytes, digest);
            files.push(SentFile { from, listed });
        }
        Ok(files)
    }

    /// Returns the path of a folder for a copy of the index, which the caller removes.
    #[must_use]
    pub fn index_copy(&self) -> PathBuf {
        self.marks_path.with_extension("index")
    }

    /// Returns the listing of all files.
    #[must_use]
    pub fn listing(&self, mut files: Vec<ListedFile>) -> Listing {
        files.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        Listing::new(self.store.manifest.generation, self.store.fingerprint, files)
    }

    fn hashed(&self, path: &Path) -> Result<SentFile, StoreError> {
        let (bytes, digest) = hash(path)?;
        Ok(SentFile { from: path.to_owned(), listed: self.listed(path, bytes, digest) })
    }

    fn listed(&self, path: &Path, bytes: u64, digest: Digest) -> ListedFile {
        let inside = path.strip_prefix(&self.store.paths.root).unwrap_or(path);
        ListedFile::new(inside.to_string_lossy().into_owned(), bytes, digest)
    }
}

/// Returns length and digest of a file.
fn hash(path: &Path) -> Result<(u64, Digest), StoreError> {
    let mut file = open_plain(path).map_err(|fault| fault.of_file(path))?;
    let (mut hasher, mut buffer, mut bytes) = (blake3::Hasher::new(), vec![0; HASH_BYTES], 0);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                hasher.update(&buffer[..read]);
                bytes += read as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(StoreError::io(path, "cannot be read")(error)),
        }
    }
    Ok((bytes, Digest(*hasher.finalize().as_bytes())))
}

impl Store {
    /// Returns length and digest of a file, as a listing has them.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read, or is no plain file.
    pub fn file_digest(path: &Path) -> Result<(u64, Digest), StoreError> {
        hash(path)
    }
}

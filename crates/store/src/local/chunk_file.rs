//! Reads and writes chunk files. In: a store's folder and chunks. Out: chunks, or records of files.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use hyperrag_core::{Digest, ShardId};
use hyperrag_files::temporary;

use crate::error::StoreError;
use crate::format::chunk_file::{self, ShardChunks};
use crate::format::manifest::Manifest;
use crate::format::paths::StorePaths;
use crate::format::records::FileRecord;
use crate::local::open::{create_temporary, open_sized, read_bounded};
use crate::read_error::ReadError;

/// Reads the chunk file of a sealed shard. Checks length and digest first.
pub(crate) fn read_chunks(
    paths: &StorePaths,
    manifest: &Manifest,
    shard: ShardId,
) -> Result<ShardChunks, StoreError> {
    let path = paths.chunk_file(shard);
    let Some(record) = manifest.shard(shard) else {
        return Err(StoreError::damaged(&path, "the manifest does not name this shard"));
    };
    let damaged = |error: ReadError| error.of_file(&path);
    let length = record.chunk_file.bytes;
    let read = open_sized(&path, length).and_then(|file| read_bounded(&file, length));
    let bytes = read.map_err(damaged)?;
    if Digest::of(&bytes) != record.chunk_file.digest {
        let what = "its digest is not the one that the manifest names";
        return Err(StoreError::damaged(&path, what));
    }
    chunk_file::read(bytes).map_err(|what| StoreError::damaged(&path, what))
}

/// Writes a chunk file under its temporary name and syncs it. Returns its length and digest.
pub(crate) fn write_chunks(path: &Path, contents: &ShardChunks) -> Result<FileRecord, StoreError> {
    let mut hashed = HashedFile { file: create_temporary(path)?, hasher: blake3::Hasher::new() };
    let written = chunk_file::write(&mut hashed, contents).and_then(|()| hashed.file.sync_all());
    written.map_err(StoreError::io(&temporary(path), "cannot be written"))?;
    let (bytes, digest) = (hashed.hasher.count(), hashed.hasher.finalize());
    Ok(FileRecord { bytes, digest: Digest(*digest.as_bytes()) })
}

/// A file that is hashed while it is written, from start to end.
struct HashedFile {
    file: File,
    hasher: blake3::Hasher,
}

impl Write for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

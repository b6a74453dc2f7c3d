use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use hyperrag_kv::{
    BlockError, BlockKey, BlockRead, Chunk, ChunkRead, Digest, Element, Geometry, KvBlock, ShardId,
};
use quick_cache::sync::Cache;

use crate::files::Files;
use crate::layout::{self, Entry, HEADER_BYTES, Head, Header, check_crc};
use crate::{Manifest, ShardChunks, StoreError};

/// Open shards at a time, each with its block table: bounds files and memory.
const OPEN_SHARDS_MAX: usize = 256;

/// A store open for reading, at the generation it had then.
pub struct Store {
    files: Files,
    manifest: Manifest,
    fingerprint: Digest,
    shards: Cache<ShardId, Arc<Shard>>,
    chunks: Cache<ShardId, Arc<ShardChunks>>,
}

struct Shard {
    file: File,
    entries: Vec<Entry>,
}

impl Store {
    /// Opens the store at `root`.
    ///
    /// # Errors
    /// [`StoreError::Absent`] where nothing was built, [`StoreError::Damaged`] for a manifest or
    /// journal that is not what was written.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let files = Files { root: root.to_owned() };
        let manifest =
            Manifest::read(&files)?.ok_or_else(|| StoreError::Absent { path: root.to_owned() })?;
        let fingerprint = manifest.fingerprint.digest();
        let (shards, chunks) = (Cache::new(OPEN_SHARDS_MAX), Cache::new(OPEN_SHARDS_MAX));
        Ok(Self { files, manifest, fingerprint, shards, chunks })
    }

    /// What the store holds.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Sizes of its blocks.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.manifest.fingerprint.geometry
    }

    fn get(&self, key: &BlockKey) -> Result<Option<KvBlock>, BlockError> {
        if key.shard.0 as usize >= self.manifest.shards.len() {
            return Ok(None);
        }
        let shard = self
            .shards
            .get_or_insert_with(&key.shard, || self.open_shard(key.shard).map(Arc::new))?;
        let path = self.files.shard(key.shard);
        let place = || format!("{}: block {}", path.display(), key.slot.0);
        let Some(entry) = shard.entries.get(key.slot.0 as usize) else {
            return Err(BlockError::Damaged {
                place: place(),
                what: "there is no such block".to_owned(),
            });
        };
        let read = Reading { file: &shard.file, geometry: self.geometry(), entry };
        match read.block(key) {
            Ok(block) => Ok(Some(block)),
            Err(Fault::Damaged(what)) => Err(BlockError::Damaged { place: place(), what }),
            Err(Fault::Io(source)) => Err(BlockError::Io { place: place(), source }),
        }
    }

    /// Opens a shard and checks its header and table against the manifest.
    fn open_shard(&self, shard: ShardId) -> Result<Shard, BlockError> {
        let path = self.files.shard(shard);
        let place = path.display().to_string();
        let damaged = |what: String| BlockError::Damaged { place: place.clone(), what };
        let lost = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound => damaged("the file is missing".to_owned()),
            std::io::ErrorKind::UnexpectedEof => damaged("the file is cut short".to_owned()),
            _ => BlockError::Io { place: place.clone(), source },
        };
        let record = &self.manifest.shards[shard.0 as usize];
        let file = File::open(&path).map_err(lost)?;
        let length = file.metadata().map_err(lost)?.len();
        if length != record.kv.bytes {
            return Err(damaged(format!("{length} bytes, expected {}", record.kv.bytes)));
        }
        let mut top = vec![0; HEADER_BYTES];
        file.read_exact_at(&mut top, 0).map_err(lost)?;
        let bytes = top.first_chunk().expect("256 bytes were read");
        let header = Header::decode(bytes).map_err(damaged)?;
        let expected = (shard, self.fingerprint, record.chunks, record.kv.bytes);
        if (header.shard, header.fingerprint, u64::from(header.blocks), header.file_bytes)
            != expected
        {
            return Err(damaged("it is a shard of another store or place".to_owned()));
        }
        let first = layout::first_offset(header.blocks as usize);
        if first > length {
            return Err(damaged(format!("its block table would end at {first} of {length} bytes")));
        }
        top.resize(first as usize, 0);
        file.read_exact_at(&mut top[HEADER_BYTES..], HEADER_BYTES as u64).map_err(lost)?;
        let padding = top.split_off(HEADER_BYTES + header.table_bytes());
        if padding.iter().any(|byte| *byte != 0) {
            return Err(damaged("the padding after the block table is not zero".to_owned()));
        }
        let fingerprint = &self.manifest.fingerprint;
        let entries = layout::decode_table(
            &top[HEADER_BYTES..],
            &header,
            &fingerprint.geometry,
            fingerprint.chunk_tokens,
        );
        let entries = entries.map_err(damaged)?;
        if Digest::of(&top) != record.kv.digest {
            return Err(damaged(
                "header and table are not those that the manifest names".to_owned(),
            ));
        }
        Ok(Shard { file, entries })
    }
}

impl BlockRead for Store {
    fn get_many(&self, keys: &[BlockKey]) -> Vec<Result<Option<KvBlock>, BlockError>> {
        keys.iter().map(|key| self.get(key)).collect()
    }
}

impl ChunkRead for Store {
    fn chunk(&self, key: &BlockKey) -> Result<Chunk, BlockError> {
        let read = || read_chunks(&self.files, &self.manifest, key.shard).map(Arc::new);
        let chunks =
            self.chunks.get_or_insert_with(&key.shard, read).map_err(|error| match error {
                StoreError::Io { path, source, .. } => {
                    BlockError::Io { place: path.display().to_string(), source }
                }
                StoreError::Damaged { path, what } => {
                    BlockError::Damaged { place: path.display().to_string(), what }
                }
                error => BlockError::Damaged {
                    place: self.files.root.display().to_string(),
                    what: error.to_string(),
                },
            })?;
        match chunks.chunks.get(key.slot.0 as usize) {
            Some(chunk) if chunk.id == key.chunk => Ok(chunk.clone()),
            _ => {
                let place = self.files.chunk_file(key.shard).display().to_string();
                Err(BlockError::Damaged {
                    place,
                    what: format!("slot {} is not {}", key.slot.0, key.chunk),
                })
            }
        }
    }
}

enum Fault {
    Damaged(String),
    Io(std::io::Error),
}

impl From<String> for Fault {
    fn from(what: String) -> Self {
        Self::Damaged(what)
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Self::Damaged("the file is cut short".to_owned()),
            _ => Self::Io(error),
        }
    }
}

/// One block being read; every length comes from the checked table.
struct Reading<'a> {
    file: &'a File,
    geometry: &'a Geometry,
    entry: &'a Entry,
}

impl Reading<'_> {
    fn block(&self, key: &BlockKey) -> Result<KvBlock, Fault> {
        let Self { file, geometry, entry } = self;
        let mut head = vec![0; entry.head_bytes as usize];
        file.read_exact_at(&mut head, entry.offset)?;
        let head = Head::decode(&head, entry.head_crc, geometry)?;
        let meant = head.identity == entry.identity
            && head.document == key.chunk.document.as_str()
            && head.ordinal == key.chunk.ordinal
            && head.tokens == entry.tokens;
        if !meant {
            let found = format!("chunk {} of document {}", head.ordinal, head.document);
            return Err(format!("it holds {found}, not {}", key.chunk).into());
        }
        let tokens = entry.tokens as usize;
        let mut kv = vec![0; tokens * geometry.token_bytes()];
        file.read_exact_at(&mut kv, entry.offset + u64::from(entry.head_bytes))?;
        let layers = kv.chunks_exact(geometry.layer_bytes(tokens));
        for (layer, (bytes, crc)) in layers.zip(&head.layer_crcs).enumerate() {
            check_crc(&format!("layer {layer}"), *crc, bytes)?;
        }
        let end = entry.offset + entry.bytes;
        let mut rest = vec![0; geometry.hidden_bytes() + (entry.padded_end() - end) as usize];
        file.read_exact_at(&mut rest, end - geometry.hidden_bytes() as u64)?;
        let (hidden_bytes, padding) = rest.split_at(geometry.hidden_bytes());
        check_crc("the hidden state", head.hidden_crc, hidden_bytes)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err("the padding after the block is not zero".to_owned().into());
        }
        let mut hidden = vec![0.0; geometry.hidden as usize];
        Element::F32.decode(hidden_bytes, &mut hidden);
        Ok(KvBlock::new(**geometry, tokens, kv, hidden))
    }
}

/// Reads the chunk file of a sealed shard, length and digest first.
pub(crate) fn read_chunks(
    files: &Files,
    manifest: &Manifest,
    shard: ShardId,
) -> Result<ShardChunks, StoreError> {
    let path = files.chunk_file(shard);
    let Some(record) = manifest.shards.get(shard.0 as usize) else {
        return Err(StoreError::damaged(&path, "the manifest does not name this shard"));
    };
    let length = fs::metadata(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => StoreError::damaged(&path, "the file is missing"),
        _ => StoreError::io(&path, "cannot be read")(error),
    })?;
    if length.len() != record.chunk_file.bytes {
        let what = format!("{} bytes, expected {}", length.len(), record.chunk_file.bytes);
        return Err(StoreError::damaged(&path, what));
    }
    let bytes = fs::read(&path).map_err(StoreError::io(&path, "cannot be read"))?;
    if Digest::of(&bytes) != record.chunk_file.digest {
        return Err(StoreError::damaged(
            &path,
            "its digest is not the one that the manifest names",
        ));
    }
    crate::chunks::read(bytes, &path)
}

//! A block in a shard file: layer numbers come in, checked bytes go out. Knows one copy of the store alone.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use hyperrag_core::{BlockError, BlockKey, KvBlock, KvShape, LayerSource};
use rustix::fs::{Advice, fadvise};

use crate::block_check::BlockCheck;
use crate::local::open_files::OpenFiles;
use crate::local::shard_reader::{OpenShard, PAGE_BYTES, check_padding};
use crate::read_error::ReadError;

/// A block in a shard. Its header and hidden state have been read and checked.
pub(crate) struct StoredBlock {
    shard: Arc<OpenShard>,
    files: Arc<OpenFiles>,
    slot: u32,
    kv_shape: KvShape,
    tokens: usize,
    /// Offset of K and V in the file.
    offset: u64,
    check: BlockCheck,
    hidden: Vec<f32>,
}

impl StoredBlock {
    /// Opens the block of `key`. The slot must hold that block.
    pub(crate) fn open(
        shard: Arc<OpenShard>,
        files: Arc<OpenFiles>,
        kv_shape: &KvShape,
        key: &BlockKey,
    ) -> Result<Self, ReadError> {
        let slot = key.slot.0;
        let entry = shard.entries.get(slot as usize);
        let entry = entry.ok_or_else(|| "there is no such block".to_owned())?;
        let mut header = vec![0; entry.header_bytes as usize];
        let file = files.get(&shard.path, shard.bytes)?;
        file.read_exact_at(&mut header, entry.offset)?;
        let check = BlockCheck::of_head(&header, entry, kv_shape, key)?;
        let mut rest = vec![0; kv_shape.hidden_bytes() + entry.padding()];
        file.read_exact_at(&mut rest, entry.hidden_offset(kv_shape))?;
        let (hidden, padding) = rest.split_at(kv_shape.hidden_bytes());
        let hidden = check.hidden(kv_shape, hidden)?;
        check_padding(padding)?;
        let (tokens, offset) = (entry.tokens as usize, entry.kv_offset());
        Ok(Self { shard, files, slot, kv_shape: *kv_shape, tokens, offset, check, hidden })
    }

    /// Reads the whole block at once.
    pub(crate) fn block(&self) -> Result<KvBlock, ReadError> {
        let mut kv = KvBlock::memory(self.tokens * self.kv_shape.token_bytes());
        self.file()?.read_exact_at(&mut kv, self.offset)?;
        for (layer, bytes) in kv.chunks_exact(self.layer_bytes()).enumerate() {
            self.check_layer(layer, bytes)?;
        }
        Ok(KvBlock::new(self.kv_shape, self.tokens, kv, self.hidden.clone()))
    }

    fn file(&self) -> Result<Arc<File>, ReadError> {
        self.files.get(&self.shard.path, self.shard.bytes)
    }

    fn layer_bytes(&self) -> usize {
        self.kv_shape.layer_bytes(self.tokens)
    }

    fn layer_offset(&self, layer: usize) -> u64 {
        self.offset + (layer * self.layer_bytes()) as u64
    }

    /// Reads a layer into `buffer` and returns its range there.
    pub(crate) fn read_layer(
        &self,
        layer: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<Range<usize>, BlockError> {
        let (bytes, offset) = (self.layer_bytes(), self.layer_offset(layer));
        if buffer.len() < bytes + 2 * PAGE_BYTES {
            buffer.resize(bytes + 2 * PAGE_BYTES, 0);
        }
        // At the same place within a page as in the file.
        let aligned = buffer.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
        let start = aligned + (offset % PAGE_BYTES as u64) as usize;
        let read = &mut buffer[start..start + bytes];
        let done = self.file().and_then(|file| Ok(file.read_exact_at(read, offset)?));
        let checked = done.and_then(|()| self.check_layer(layer, read));
        checked.map_err(|fault| fault.at_block(self.shard.place(self.slot)))?;
        Ok(start..start + bytes)
    }

    fn check_layer(&self, layer: usize, bytes: &[u8]) -> Result<(), ReadError> {
        Ok(self.check.layer(layer, bytes)?)
    }
}

impl LayerSource for StoredBlock {
    fn kv_shape(&self) -> &KvShape {
        &self.kv_shape
    }

    fn tokens(&self) -> usize {
        self.tokens
    }

    fn hidden(&self) -> Result<&[f32], BlockError> {
        Ok(&self.hidden)
    }

    fn layer<'a>(&'a self, layer: usize, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], BlockError> {
        let read = self.read_layer(layer, buffer)?;
        Ok(&buffer[read])
    }

    fn prefetch(&self, layer: usize) {
        if layer < self.kv_shape.layers as usize
            && let Some(file) = self.files.open(&self.shard.path)
        {
            let bytes = std::num::NonZeroU64::new(self.layer_bytes() as u64);
            // Only advice: if it is not taken, the layer is read when its turn comes.
            let _ = fadvise(&*file, self.layer_offset(layer), bytes, Advice::WillNeed);
        }
    }

    fn read(&self) -> Result<KvBlock, BlockError> {
        self.block().map_err(|fault| fault.at_block(self.shard.place(self.slot)))
    }
}

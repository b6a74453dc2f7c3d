//! Blocks as scoring reads them, layer by layer.

use std::path::PathBuf;

use crate::{BlockError, Geometry, KvBlock};

/// Something that was read from a replica because the store's own is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// File, and what is wrong with it.
    pub what: String,
    /// Folder of the replica that served it.
    pub from: PathBuf,
}

/// A block whose K and V are read layer by layer, wherever it is.
///
/// A pass over many blocks needs one layer of each at a time. Read just before its use into a buffer
/// that is used again and again, it comes from the core's cache, and no block needs memory of its own.
pub trait KvLayers: Send + Sync {
    /// Sizes and element type.
    fn geometry(&self) -> &Geometry;

    /// Positions held.
    fn tokens(&self) -> usize;

    /// The final hidden state of the last position, after the last norm.
    fn hidden(&self) -> &[f32];

    /// K and V of a layer, laid out as [`KvBlock::layer`] has them. What is read goes to `buffer`.
    ///
    /// # Errors
    /// [`BlockError`] where the bytes cannot be read, or are not those that were written.
    fn layer<'a>(&'a self, layer: usize, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], BlockError>;

    /// Says that a layer, if there is such a one, will be asked for soon, so that it can be brought near
    /// meanwhile.
    fn expect(&self, _layer: usize) {}

    /// Lists what was read from replicas so far.
    fn failovers(&self) -> Vec<Failover> {
        Vec::new()
    }

    /// All of it.
    ///
    /// # Errors
    /// As [`KvLayers::layer`].
    fn read(&self) -> Result<KvBlock, BlockError>;
}

impl KvLayers for KvBlock {
    fn geometry(&self) -> &Geometry {
        self.geometry()
    }

    fn tokens(&self) -> usize {
        self.tokens()
    }

    fn hidden(&self) -> &[f32] {
        self.hidden()
    }

    fn layer<'a>(&'a self, layer: usize, _: &'a mut Vec<u8>) -> Result<&'a [u8], BlockError> {
        Ok(self.layer(layer))
    }

    fn read(&self) -> Result<KvBlock, BlockError> {
        Ok(self.clone())
    }
}

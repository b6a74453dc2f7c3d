//! Places that hold the bytes of blocks: pieces of blocks are asked for, unchecked bytes come back. Knows no
//! format of blocks, no file and no network.
//!
//! A tier is slow or wrong at times, and is never believed: whoever asks checks every byte. It is never asked
//! what it holds before it is asked for bytes.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::document::{ShardId, Slot};
use crate::error::{Classified, ErrorKind};

/// Name of a block's bytes for ever: half of the digest of its shard's header and table, and its slot.
///
/// The table holds the checksum of the block's head, and the head those of its layers, so that no two blocks
/// of different bytes have the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobKey {
    /// First half of the digest of the shard's header and table.
    pub table: [u8; 16],
    /// Slot of the block.
    pub slot: Slot,
}

impl BlobKey {
    /// Returns the table's name: 32 hexadecimal digits.
    #[must_use]
    pub fn table_name(&self) -> String {
        self.table.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.table_name(), self.slot.0)
    }
}

/// A block as a tier is asked for it: its name, its place in the file of its shard, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Name of the bytes.
    pub key: BlobKey,
    /// Shard, for tiers that hold whole shards.
    pub shard: ShardId,
    /// Offset of the block in its shard's file, in bytes.
    pub offset: u64,
    /// Length of the block (head, K and V, hidden state), in bytes.
    pub bytes: u64,
}

impl Blob {
    /// Returns the number of frames of `frame_bytes` bytes that the block is cut into. The last may be shorter.
    #[must_use]
    pub fn frames(&self, frame_bytes: u64) -> u32 {
        u32::try_from(self.bytes.div_ceil(frame_bytes)).unwrap_or(u32::MAX)
    }

    /// Returns the range of a frame within the block, in bytes. It is empty past the end.
    #[must_use]
    pub fn frame(&self, frame: u32, frame_bytes: u64) -> Range<u64> {
        let start = u64::from(frame).saturating_mul(frame_bytes).min(self.bytes);
        start..start.saturating_add(frame_bytes).min(self.bytes)
    }
}

/// A frame of a block, of the length that the tier's shape says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The block.
    pub blob: Blob,
    /// Number of the frame.
    pub frame: u32,
}

/// Form in which a tier holds and gives blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierShape {
    /// Length of the frames that blocks are cut into, in bytes.
    pub frame_bytes: u64,
    /// Whether pieces of one block that are asked for together come from one request, whose answer streams.
    pub streams: bool,
    /// Whether the tier answers within [`Tier::fetch`], before it returns.
    pub immediate: bool,
    /// Duty of the tier.
    pub role: TierRole,
}

/// Duty of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TierRole {
    /// Holds all that was exported to it: an absent block is a fault.
    Home,
    /// Holds what was read lately: an absent block is usual.
    Cache,
}

/// Reason why a tier did not give or take bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TierError {
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The place cannot be reached.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// The place refuses the request: wrong password, missing rights, read-only.
    #[error("refuses: {0}")]
    Refused(String),
    /// There is no room.
    #[error("is full: {0}")]
    Full(String),
    /// An answer that the request does not have.
    #[error("answers wrongly: {0}")]
    Protocol(String),
}

impl TierError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Unreachable(_) | Self::Protocol(_))
    }
}

impl Classified for TierError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(_) | Self::Full(_) => ErrorKind::Refused,
            Self::Timeout(_) | Self::Unreachable(_) | Self::Protocol(_) => ErrorKind::Failed,
        }
    }
}

/// Answer for a piece: its bytes, unchecked; `None` if the tier does not hold them.
pub type Answer = Result<Option<Bytes>, TierError>;

/// Receiver of pieces.
pub trait FetchSink: Send + Sync {
    /// Takes the answer for piece `n` of the request. It is called from any thread, exactly once a piece
    /// unless the request was dropped, and returns soon.
    fn deliver(&self, n: usize, answer: Answer);
}

/// A running request. Dropping it cancels what has not been delivered.
pub trait Fetch: Send + Sync {
    /// Lets a streaming tier deliver pieces up to and without number `end`. Others deliver all unasked.
    fn allow(&self, _end: usize) {}
}

/// The request of a tier that delivers without leave.
impl Fetch for () {}

/// Result of a test of a tier, as name and value.
#[derive(Clone, Debug, PartialEq)]
pub enum FactValue {
    /// Words.
    Text(String),
    /// Number, in the unit that the name says.
    Number(f64),
}

/// Something that a tier says of itself, such as its version or its free memory.
#[derive(Clone, Debug, PartialEq)]
pub struct TierFact {
    /// Name, in snake case with its unit, as in JSON.
    pub name: &'static str,
    /// Value.
    pub value: FactValue,
}

/// Waits of those who write to a tier for copies that fall behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteWaits {
    /// Time waited so far, summed over the servers that have copies.
    pub waited: Duration,
    /// Copy that is waited for now, in words.
    pub now: Option<String>,
}

/// A place that holds the bytes of blocks.
pub trait Tier: Send + Sync {
    /// Name of the tier, without secrets.
    fn name(&self) -> &str;

    /// Returns the form in which the tier holds and gives blocks.
    fn shape(&self) -> TierShape;

    /// Asks for pieces, in the order in which they will be used, and returns at once. A tier that streams
    /// sends one request for each run of pieces of one block, and delivers no more than [`Fetch::allow`]
    /// lets it (at first nothing). No wait of the tier for bytes is longer than `patience`; after that, it
    /// delivers [`TierError::Timeout`].
    fn fetch(&self, pieces: &[Piece], patience: Duration, to: Arc<dyn FetchSink>)
    -> Box<dyn Fetch>;

    /// Stores a whole block. Readers see all of it or nothing.
    ///
    /// # Errors
    /// [`TierError`]; after an error the block may be there or not.
    fn put(&self, blob: &Blob, bytes: &Bytes) -> Result<(), TierError>;

    /// Tells which blocks the tier seems to hold, for export and reports.
    ///
    /// # Errors
    /// [`TierError`].
    fn holds(&self, blobs: &[Blob]) -> Result<Vec<bool>, TierError>;

    /// Asks the tier what it is: version, policy, copies, room.
    ///
    /// # Errors
    /// [`TierError`] if it cannot be used.
    fn probe(&self) -> Result<Vec<TierFact>, TierError>;

    /// Waits a moment until the copies that were asked for can be made, before much is written.
    ///
    /// # Errors
    /// [`TierError`] if they cannot, with what to do.
    fn ready_to_write(&self) -> Result<(), TierError> {
        Ok(())
    }

    /// Returns the waits for copies that fall behind. Other threads may write meanwhile.
    fn write_waits(&self) -> WriteWaits {
        WriteWaits::default()
    }
}

/// Result of changing a small file under the condition that it is still the one that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swapped {
    /// The file has the new contents.
    Done,
    /// Another writer was faster.
    Changed,
}

/// A place that holds whole files by name: those from which blocks can be computed again, and shards.
///
/// Names are relative paths of ASCII letters, digits, `.`, `-`, `_` and `/`.
pub trait FileTier: Send + Sync {
    /// Name of the place, without secrets.
    fn name(&self) -> &str;

    /// Stores a file under `name`. Readers see all of it or nothing. A file of that name is replaced.
    ///
    /// # Errors
    /// [`TierError`]; after an error the file may be there or not.
    fn put_file(&self, name: &str, from: &Path) -> Result<(), TierError>;

    /// Stores a file like [`FileTier::put_file`], from a file that the caller needs no longer. It may be gone
    /// afterwards: a folder takes it instead of copying it.
    ///
    /// # Errors
    /// [`TierError`]; after an error the file may be there or not.
    fn take_file(&self, name: &str, from: &Path) -> Result<(), TierError> {
        self.put_file(name, from)
    }

    /// Copies the file `name` to the end of `to`. Returns its length, `None` if there is no such file. A file
    /// longer than `bytes_max` is refused before it is copied.
    ///
    /// # Errors
    /// [`TierError`]; `to` may hold a part of the file then.
    fn get_file(&self, name: &str, bytes_max: u64, to: &mut File)
    -> Result<Option<u64>, TierError>;

    /// Returns the length of the file `name`, `None` if there is no such file.
    ///
    /// # Errors
    /// [`TierError`].
    fn file_bytes(&self, name: &str) -> Result<Option<u64>, TierError>;

    /// Reads a small file, `None` if there is no such file.
    ///
    /// # Errors
    /// [`TierError`], also for a file longer than `bytes_max`.
    fn read_small(&self, name: &str, bytes_max: u64) -> Result<Option<Bytes>, TierError>;

    /// Gives a small file the contents `new`, if it still has the contents `old` (`None`: if there is none).
    /// After an answer that was lost the file is read back, so that [`Swapped::Done`] is true.
    ///
    /// # Errors
    /// [`TierError`].
    fn swap_small(&self, name: &str, old: Option<&[u8]>, new: &[u8]) -> Result<Swapped, TierError>;
}

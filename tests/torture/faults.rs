//! Bytes that change on the disk.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Tally;
use crate::seeded::Seeded;
use crate::store::{Pristine, Verdict};

/// Size of a page, in bytes.
const PAGE: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// A byte with flipped bits, anywhere.
    Flip,
    /// A page of random bytes, anywhere.
    Overwrite,
    /// A page of zeros, anywhere.
    ZeroPage,
    /// Two blocks, swapped.
    SwapBlocks,
    /// A block of another store of the same model, in place of one.
    ForeignBlock,
    /// A file cut short anywhere.
    Truncate,
    /// A missing file.
    Remove,
    /// A length in a shard's header or table with any value, with matching checksums.
    HostileLength,
}

impl ReadError {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Flip => "one byte changed",
            Self::Overwrite => "4 KiB overwritten",
            Self::ZeroPage => "4 KiB zeroed",
            Self::SwapBlocks => "two blocks swapped",
            Self::ForeignBlock => "a block of another store",
            Self::Truncate => "a file cut short",
            Self::Remove => "a file removed",
            Self::HostileLength => "hostile lengths, checksums fitting",
        }
    }
}

/// Damages one file at a time, judges, and restores it.
pub(crate) fn run(fault: ReadError, pristine: &Pristine, seed: u64, trials: u64) -> Tally {
    let mut random = Seeded(seed ^ (fault as u64) << 32);
    let mut tally = Tally::default();
    while tally.trials < trials {
        let Some((name, damaged)) = damaged(fault, pristine, &mut random) else { continue };
        let path = pristine.root().join(&name);
        let original = &pristine.files()[&name];
        if damaged.as_ref() == Some(original) {
            continue; // The bytes were these before.
        }
        write(&path, damaged.as_deref());
        tally.trials += 1;
        match pristine.judge() {
            Verdict::Detected => tally.detected += 1,
            Verdict::Harmless => {
                tally.harmless += 1;
                tally.harmless_in.insert(name);
            }
            Verdict::Wrong => tally.wrong += 1,
        }
        write(&path, Some(original));
    }
    tally
}

fn write(path: &Path, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => fs::write(path, bytes).unwrap(),
        None => fs::remove_file(path).unwrap(),
    }
}

/// Returns a file of the store and its damaged bytes; `None` bytes remove the file. Returns `None` if
/// the random choice fell on something to which the fault does not apply.
fn damaged(
    fault: ReadError,
    pristine: &Pristine,
    random: &mut Seeded,
) -> Option<(PathBuf, Option<Vec<u8>>)> {
    let all: Vec<&PathBuf> = pristine.files().keys().collect();
    let blocks =
        matches!(fault, ReadError::SwapBlocks | ReadError::ForeignBlock | ReadError::HostileLength);
    let shards = all.iter().filter(|path| path.extension().is_some_and(|e| e == "kv"));
    let shards: Vec<&PathBuf> = shards.copied().collect();
    let name = match blocks {
        true => shards[random.below(shards.len())],
        false => all[random.below(all.len())],
    };
    let mut bytes = pristine.files()[name].clone();
    if bytes.is_empty() {
        return None;
    }
    let at = random.below(bytes.len());
    let page = at / PAGE * PAGE..(at / PAGE * PAGE + PAGE).min(bytes.len());
    match fault {
        ReadError::Flip => bytes[at] ^= 1 + random.below(255) as u8,
        ReadError::Overwrite => bytes[page].iter_mut().for_each(|byte| *byte = random.next() as u8),
        ReadError::ZeroPage => bytes[page].fill(0),
        ReadError::Truncate => bytes.truncate(at),
        ReadError::Remove => return Some((name.clone(), None)),
        ReadError::SwapBlocks => {
            let (a, b) = (block(&bytes, random), block(&bytes, random));
            let length = a.len().min(b.len());
            for i in 0..length {
                bytes.swap(a.start + i, b.start + i);
            }
        }
        ReadError::ForeignBlock => {
            // Another shard serves as another store: it has the same model and another place.
            let other = &pristine.files()[shards[random.below(shards.len())]];
            let (own, foreign) = (block(&bytes, random), block(other, random));
            let length = own.len().min(foreign.len());
            let (own, foreign) =
                (own.start..own.start + length, foreign.start..foreign.start + length);
            bytes[own].copy_from_slice(&other[foreign]);
        }
        ReadError::HostileLength => hostile(&mut bytes, random),
    }
    Some((name.clone(), Some(bytes)))
}

fn number(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// Returns the range of a random block of a shard, with its padding (see FORMAT.md).
fn block(bytes: &[u8], random: &mut Seeded) -> std::ops::Range<usize> {
    let entry = 256 + 64 * random.below(number(bytes, 16));
    let (start, length) = (number(bytes, entry + 32), number(bytes, entry + 40));
    start..start + length.next_multiple_of(PAGE)
}

/// Puts a hostile number into a field, and makes the checksums of table and header match again.
fn hostile(bytes: &mut [u8], random: &mut Seeded) {
    let blocks = number(bytes, 16);
    let values =
        [0, 1, 0x7fff_ffff, 0x8000_0000, u64::from(u32::MAX), 1 << 63, u64::MAX, random.next()];
    let value = values[random.below(values.len())].to_le_bytes();
    let entry = 256 + 64 * random.below(blocks);
    // Blocks and length of the file; offset, bytes, positions and head bytes of an entry.
    let fields =
        [(16, 4), (24, 8), (entry + 32, 8), (entry + 40, 8), (entry + 48, 4), (entry + 52, 4)];
    let (at, width) = fields[random.below(fields.len())];
    bytes[at..at + width].copy_from_slice(&value[..width]);
    let table = crc32fast::hash(&bytes[256..256 + 64 * blocks]);
    bytes[20..24].copy_from_slice(&table.to_le_bytes());
    let header = crc32fast::hash(&bytes[..252]);
    bytes[252..256].copy_from_slice(&header.to_le_bytes());
}

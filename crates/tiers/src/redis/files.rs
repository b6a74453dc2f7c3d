//! Whole files in Redis, each a hash: a field `h` with length, checksum and the name of this version, and the
//! contents in fields of a frame each, in the same hash or, of a longer file, in others of the same slot.
//!
//! In: names and contents. Out: contents whose checksum is right. It knows no blocks.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hyperrag_core::{FileTier, Swapped, TierError};
use redis::{Cmd, Value};

use super::RedisTier;
use super::engine::Engine;
use super::frames::{FRAME_BYTES, HASH_FRAMES};
use super::node::Link;
use crate::names::check_file_name;

const MAGIC: &[u8; 4] = b"HRF2";
const HEAD_BYTES: usize = 32;
/// Longest file that lies in one hash with its head.
const INLINE_MAX: u64 = FRAME_BYTES * HASH_FRAMES as u64;
/// Attempts to read a file of several hashes that is replaced again and again.
const READS: u32 = 100;

/// Replaces the hash of a file if its head is the expected one: `*` for any, nothing for none. The first `HSET`
/// is refused where memory is short; after a first write a script is no longer stopped.
const REPLACE: &str = "local old = redis.call('HGET', KEYS[1], 'h')
if ARGV[1] ~= '*' and (old or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'h', ARGV[2])
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'h', ARGV[2])
for i = 3, #ARGV do redis.call('HSET', KEYS[1], tostring(i - 3), ARGV[i]) end
return 1";

/// Head of a file: what its contents must be, and the name of this version of it.
#[derive(Clone, Copy, PartialEq)]
struct Head {
    bytes: u64,
    sum: u32,
    version: [u8; 16],
}

impl Head {
    fn new(bytes: u64, sum: u32) -> Self {
        let mut version = [0; 16];
        for half in version.chunks_mut(8) {
            // Its keys are random.
            let random = RandomState::new().build_hasher().finish();
            half.copy_from_slice(&random.to_le_bytes());
        }
        Self { bytes, sum, version }
    }

    fn to_field(self) -> [u8; HEAD_BYTES] {
        let mut field = [0; HEAD_BYTES];
        field[..4].copy_from_slice(MAGIC);
        field[4..12].copy_from_slice(&self.bytes.to_le_bytes());
        field[12..16].copy_from_slice(&self.sum.to_le_bytes());
        field[16..].copy_from_slice(&self.version);
        field
    }

    fn of(field: &[u8]) -> Option<Self> {
        let rest = field.strip_prefix(MAGIC)?;
        let (bytes, rest) = rest.split_first_chunk()?;
        let (sum, version) = rest.split_first_chunk()?;
        Some(Self {
            bytes: u64::from_le_bytes(*bytes),
            sum: u32::from_le_bytes(*sum),
            version: version.try_into().ok()?,
        })
    }

    fn is_apart(&self) -> bool {
        self.bytes > INLINE_MAX
    }

    fn frames(&self) -> u64 {
        self.bytes.div_ceil(FRAME_BYTES)
    }

    /// Returns the key of the hash that holds a frame of the file at `key`.
    fn key_of(&self, key: &str, frame: u64) -> String {
        if !self.is_apart() {
            return key.to_owned();
        }
        let version: String = self.version.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{key}:{version}.{}", frame / u64::from(HASH_FRAMES))
    }

    /// Returns the keys that hold the contents apart from the head.
    fn keys_apart(&self, key: &str) -> Vec<String> {
        if !self.is_apart() {
            return Vec::new();
        }
        (0..self.frames())
            .step_by(HASH_FRAMES as usize)
            .map(|frame| self.key_of(key, frame))
            .collect()
    }
}

impl Engine {
    fn file_key(&self, name: &str) -> Result<String, TierError> {
        check_file_name(name)?;
        // In braces, so that all hashes of a file lie in one slot.
        Ok(format!("{}:file:{{{name}}}", self.options.prefix))
    }

    /// Asks for one field or number.
    async fn one(self: &Arc<Self>, key: &str, command: Cmd) -> Result<Value, TierError> {
        let (_, mut spoken) = self.command(Link::Write, key, &[command]).await?;
        Ok(spoken.values.pop().unwrap_or_default())
    }

    async fn head(self: &Arc<Self>, key: &str) -> Result<Option<Head>, TierError> {
        head_of(key, &self.one(key, field(key, "h")).await?)
    }

    /// Asks for the head, and in the same answer for the frames that may lie with it, so that they are of one
    /// version. Asks for no more frames than a file of `bytes_max` bytes has.
    async fn lead(
        self: &Arc<Self>,
        key: &str,
        bytes_max: u64,
    ) -> Result<Option<(Head, Vec<Value>)>, TierError> {
        let mut command = redis::cmd("HMGET");
        command.arg(key).arg("h");
        for n in 0..bytes_max.min(INLINE_MAX).div_ceil(FRAME_BYTES) {
            command.arg(n);
        }
        let no_file = || TierError::Protocol(format!("{key} is no file"));
        let Value::Array(mut fields) = self.one(key, command).await? else {
            return Err(no_file());
        };
        if fields.is_empty() {
            return Err(no_file());
        }
        let frames = fields.split_off(1);
        Ok(head_of(key, &fields[0])?.map(|head| (head, frames)))
    }

    /// Writes the frames that lie apart from their head.
    async fn put_frame(
        self: &Arc<Self>,
        key: &str,
        head: &Head,
        n: u64,
        frame: &[u8],
    ) -> Result<(), TierError> {
        let place = head.key_of(key, n);
        let mut command = redis::cmd("HSET");
        command.arg(&place).arg(n).arg(frame);
        self.one(&place, command).await.map(drop)
    }

    /// Puts a new head, and the frames that lie with it, in the place of the expected head.
    async fn replace(
        self: &Arc<Self>,
        key: &str,
        expected: &[u8],
        head: &Head,
        inline: &[u8],
    ) -> Result<Swapped, TierError> {
        let mut command = redis::cmd("EVAL");
        command.arg(REPLACE).arg(1).arg(key).arg(expected).arg(&head.to_field()[..]);
        for frame in inline.chunks(FRAME_BYTES as usize) {
            command.arg(frame);
        }
        let done = match self.one(key, command).await {
            Ok(done) => done == Value::Int(1),
            // Its answer was lost: not done, unless the head is there.
            Err(error) if error.is_retryable() && self.head(key).await != Ok(Some(*head)) => {
                return Err(error);
            }
            Err(error) if !error.is_retryable() => return Err(error),
            Err(_) => true,
        };
        // A command that was sent twice finds its own head.
        if !done && self.head(key).await? != Some(*head) {
            return Ok(Swapped::Changed);
        }
        if self.options.copies > 0 {
            // `WAIT` after any command waits for all that its master wrote before.
            self.confirm_by(key, field(key, "h")).await?;
        }
        Ok(Swapped::Done)
    }

    async fn unlink(self: &Arc<Self>, keys: Vec<String>) {
        for key in keys {
            let mut command = redis::cmd("UNLINK");
            command.arg(&key);
            // What stays is never read.
            drop(self.one(&key, command).await);
        }
    }
}

fn head_of(key: &str, field: &Value) -> Result<Option<Head>, TierError> {
    match field {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => match Head::of(bytes) {
            Some(head) => Ok(Some(head)),
            None => Err(TierError::Protocol(format!("{key} was not written by hyperrag"))),
        },
        _ => Err(TierError::Protocol(format!("{key} is no file"))),
    }
}

fn field(key: &str, field: &str) -> Cmd {
    let mut command = redis::cmd("HGET");
    command.arg(key).arg(field);
    command
}

/// Result of reading a file once.
enum Pass {
    Absent,
    Replaced,
    Whole(Head),
}

impl RedisTier {
    /// Reads a file once and gives each frame to `take`.
    fn read_once(
        &self,
        key: &str,
        bytes_max: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), TierError>,
    ) -> Result<Pass, TierError> {
        let (engine, at) = (self.engine.clone(), key.to_owned());
        let lead = self.wait(async move { engine.lead(&at, bytes_max).await })?;
        let Some((head, inline)) = lead else { return Ok(Pass::Absent) };
        if head.bytes > bytes_max {
            return Err(TierError::Protocol(format!(
                "{key} has {} bytes, more than the {bytes_max} that it may have",
                head.bytes
            )));
        }
        match self.read_frames(key, &head, inline, take) {
            Ok(()) => Ok(Pass::Whole(head)),
            // What lies apart is removed when another version takes its place.
            Err(TierError::Protocol(_)) if head.is_apart() && !self.is_still(key, &head)? => {
                Ok(Pass::Replaced)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the frames of a version and compares its checksum.
    fn read_frames(
        &self,
        key: &str,
        head: &Head,
        inline: Vec<Value>,
        take: &mut dyn FnMut(&[u8]) -> Result<(), TierError>,
    ) -> Result<(), TierError> {
        let (mut sum, mut inline) = (crc32fast::Hasher::new(), inline.into_iter());
        for n in 0..head.frames() {
            let frame = if head.is_apart() {
                let (engine, place) = (self.engine.clone(), head.key_of(key, n));
                self.wait(async move { engine.one(&place, field(&place, &n.to_string())).await })?
            } else {
                inline.next().unwrap_or_default()
            };
            let wrong = match frame {
                Value::BulkString(frame)
                    if frame.len() as u64 == (head.bytes - n * FRAME_BYTES).min(FRAME_BYTES) =>
                {
                    sum.update(&frame);
                    take(&frame)?;
                    continue;
                }
                Value::Nil => "is missing",
                _ => "has another length",
            };
            return Err(TierError::Protocol(format!("frame {n} of {key} {wrong}")));
        }
        if sum.finalize() != head.sum {
            return Err(TierError::Protocol(format!("the checksum of {key} differs")));
        }
        Ok(())
    }

    fn is_still(&self, key: &str, head: &Head) -> Result<bool, TierError> {
        let (engine, at) = (self.engine.clone(), key.to_owned());
        Ok(self.wait(async move { engine.head(&at).await })? == Some(*head))
    }

    fn read_whole(&self, key: &str, bytes_max: u64) -> Result<Option<(Head, Vec<u8>)>, TierError> {
        for _ in 0..READS {
            let mut contents = Vec::new();
            let mut take = |frame: &[u8]| {
                contents.extend_from_slice(frame);
                Ok(())
            };
            match self.read_once(key, bytes_max, &mut take)? {
                Pass::Absent => return Ok(None),
                Pass::Whole(head) => return Ok(Some((head, contents))),
                Pass::Replaced => {}
            }
        }
        Err(never_whole(key))
    }

    /// Reads a local file, completes its head, and writes the frames that lie apart from it. Returns those
    /// that lie with it.
    fn put_frames(
        &self,
        key: &str,
        head: &mut Head,
        file: &mut File,
        from: &Path,
    ) -> Result<Vec<u8>, TierError> {
        let failed = |error: std::io::Error| local(from, &error);
        let (mut sum, mut inline) = (crc32fast::Hasher::new(), Vec::new());
        for n in 0..head.frames() {
            let mut frame = vec![0; (head.bytes - n * FRAME_BYTES).min(FRAME_BYTES) as usize];
            file.read_exact(&mut frame).map_err(failed)?;
            sum.update(&frame);
            if head.is_apart() {
                let (engine, key, head) = (self.engine.clone(), key.to_owned(), *head);
                self.wait(async move { engine.put_frame(&key, &head, n, &frame).await })?;
            } else {
                inline.append(&mut frame);
            }
        }
        if file.read(&mut [0]).map_err(failed)? > 0 {
            return Err(TierError::Refused(format!("{} grew while it was read", from.display())));
        }
        head.sum = sum.finalize();
        Ok(inline)
    }

    /// Removes keys, as far as that succeeds: they are never read.
    fn unlink(&self, keys: Vec<String>) {
        if keys.is_empty() {
            return;
        }
        let engine = self.engine.clone();
        let done = self.wait(async move {
            engine.unlink(keys).await;
            Ok(())
        });
        drop(done);
    }

    fn replace(
        &self,
        key: &str,
        expected: Vec<u8>,
        head: Head,
        inline: Vec<u8>,
    ) -> Result<Swapped, TierError> {
        let (engine, key) = (self.engine.clone(), key.to_owned());
        self.wait(async move { engine.replace(&key, &expected, &head, &inline).await })
    }
}

fn never_whole(key: &str) -> TierError {
    TierError::Unreachable(format!("{key} was replaced {READS} times while it was read"))
}

fn local(path: &Path, error: &std::io::Error) -> TierError {
    TierError::Refused(format!("{}: {error}", path.display()))
}

impl FileTier for RedisTier {
    fn name(&self) -> &str {
        hyperrag_core::Tier::name(self)
    }

    fn put_file(&self, name: &str, from: &Path) -> Result<(), TierError> {
        let key = self.engine.file_key(name)?;
        let failed = |error: std::io::Error| local(from, &error);
        let mut file = File::open(from).map_err(failed)?;
        let mut head = Head::new(file.metadata().map_err(failed)?.len(), 0);
        let inline = match self.put_frames(&key, &mut head, &mut file, from) {
            Ok(inline) => inline,
            Err(error) => {
                self.unlink(head.keys_apart(&key));
                return Err(error);
            }
        };
        let (engine, at) = (self.engine.clone(), key.clone());
        // A file that cannot be read is replaced all the same.
        let old = self.wait(async move { engine.head(&at).await }).ok().flatten();
        self.replace(&key, b"*".to_vec(), head, inline)?;
        self.unlink(old.map_or_else(Vec::new, |old| old.keys_apart(&key)));
        Ok(())
    }

    fn get_file(
        &self,
        name: &str,
        bytes_max: u64,
        to: &mut File,
    ) -> Result<Option<u64>, TierError> {
        let key = self.engine.file_key(name)?;
        let failed = |error: std::io::Error| TierError::Refused(format!("cannot write: {error}"));
        let start = to.seek(SeekFrom::End(0)).map_err(failed)?;
        for _ in 0..READS {
            let pass =
                self.read_once(&key, bytes_max, &mut |frame| to.write_all(frame).map_err(failed))?;
            match pass {
                Pass::Absent => return Ok(None),
                Pass::Whole(head) => return Ok(Some(head.bytes)),
                Pass::Replaced => {
                    to.set_len(start).map_err(failed)?;
                    to.seek(SeekFrom::Start(start)).map_err(failed)?;
                }
            }
        }
        Err(never_whole(&key))
    }

    fn file_bytes(&self, name: &str) -> Result<Option<u64>, TierError> {
        let (engine, key) = (self.engine.clone(), self.engine.file_key(name)?);
        let head = self.wait(async move { engine.head(&key).await })?;
        Ok(head.map(|head| head.bytes))
    }

    fn read_small(&self, name: &str, bytes_max: u64) -> Result<Option<Bytes>, TierError> {
        let found = self.read_whole(&self.engine.file_key(name)?, bytes_max)?;
        Ok(found.map(|(_, contents)| contents.into()))
    }

    fn swap_small(&self, name: &str, old: Option<&[u8]>, new: &[u8]) -> Result<Swapped, TierError> {
        let key = self.engine.file_key(name)?;
        if new.len() as u64 > INLINE_MAX {
            return Err(TierError::Refused(format!("{} bytes are no small file", new.len())));
        }
        // Longer than the expected contents is another file.
        let at = key.clone();
        let engine = self.engine.clone();
        let there = self.wait(async move { engine.head(&at).await })?;
        let same_length = there.map(|head| head.bytes) == old.map(|old| old.len() as u64);
        if !same_length {
            return Ok(Swapped::Changed);
        }
        let expected = match (old, self.read_whole(&key, INLINE_MAX)?) {
            (None, None) => Vec::new(),
            (Some(old), Some((head, contents))) if contents == old => head.to_field().to_vec(),
            _ => return Ok(Swapped::Changed),
        };
        let head = Head::new(new.len() as u64, crc32fast::hash(new));
        self.replace(&key, expected, head, new.to_vec())
    }
}

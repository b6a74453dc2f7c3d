//! Writing to Redis: commands to the master of a key, blocks as hashes of frames, and copies confirmed.
//!
//! In: blocks. Out: nothing, or a reason. It reads no blocks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use hyperrag_core::{Blob, TierError};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};

use super::engine::Engine;
use super::fault::Fault;
use super::frames::{FRAME_BYTES, FrameName, HASH_FRAMES, frame_count, hash_count, hash_key};
use super::lag::Lag;
use super::node::{Link, Node, Spoken};
use super::slots::{Address, slot_of};

/// Pause after a master did not take a command.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Blocks whose copies are confirmed together.
const CONFIRMED_TOGETHER: usize = 16;
/// Time in which replicas confirm.
const CONFIRM: Duration = Duration::from_secs(2);
/// Questions that are under way at once.
const QUESTIONS: usize = 64;

/// Connections on which blocks were written, by node and number.
type Written = HashMap<(Address, u64), MultiplexedConnection>;

impl Engine {
    /// Sends commands to the master of their one key. After a redirection or a failure it tries again, for
    /// twice the time-out, so a command must bear being run twice.
    ///
    /// # Errors
    /// [`TierError`].
    pub(super) async fn command(
        self: &Arc<Self>,
        link: Link,
        key: &str,
        commands: &[Cmd],
    ) -> Result<(Address, Spoken), TierError> {
        let timeout = self.options.timeout;
        let until = Instant::now() + 2 * timeout;
        let (mut sent_on, mut asking) = (None, false);
        loop {
            let map = self.map().await?;
            let node: Arc<Node> = match sent_on
                .take()
                .or_else(|| map.copies(slot_of(key.as_bytes())).first().cloned())
            {
                Some(node) => node,
                None => {
                    return Err(TierError::Unreachable(format!("no node holds the slot of {key}")));
                }
            };
            let asked = std::mem::take(&mut asking);
            let fault = match node.ask(&self.dial, link, commands, asked, timeout).await {
                Ok(spoken) => return Ok((node.address.clone(), spoken)),
                Err(fault) => fault,
            };
            let left = until.saturating_duration_since(Instant::now());
            match &fault {
                Fault::Final(_) => return Err(fault.into_error()),
                Fault::ReadOnly(_) if !map.clustered => return Err(fault.into_error()),
                _ if left.is_zero() => return Err(fault.into_error()),
                Fault::Ask(to) => {
                    asking = true;
                    sent_on = Some(self.node(to));
                    continue;
                }
                Fault::Moved(to) => sent_on = Some(self.node(to)),
                _ => tokio::time::sleep(RETRY_PAUSE.min(left)).await,
            }
            // A map that cannot be read anew leaves the one that there is.
            drop(self.refresh().await);
        }
    }

    /// Stores blocks; see [`super::RedisTier::put_many`].
    pub(super) async fn put_many(
        self: Arc<Self>,
        blocks: Vec<(Blob, Bytes)>,
        lag: Arc<Lag>,
    ) -> Result<(), TierError> {
        for some in blocks.chunks(CONFIRMED_TOGETHER) {
            let map = self.map().await?;
            let mut by_master: HashMap<Option<Address>, Vec<&(Blob, Bytes)>> = HashMap::new();
            for block in some {
                let first = self.hash_keys(&block.0)?.swap_remove(0);
                let master = map.copies(slot_of(first.as_bytes())).first();
                by_master.entry(master.map(|node| node.address.clone())).or_default().push(block);
            }
            let writes = by_master.into_iter();
            let writes = writes.map(|(master, blocks)| self.put_in_turn(master, blocks, &lag));
            let written = try_join_all(writes).await?;
            if self.options.copies > 0 {
                let connections = written.into_iter().flatten();
                try_join_all(connections.map(|(to, on)| self.confirm(to.0, on))).await?;
            }
        }
        Ok(())
    }

    fn hash_keys(&self, blob: &Blob) -> Result<Vec<String>, TierError> {
        let frames = frame_count(blob)?;
        let key = |part| hash_key(&self.options.prefix, &blob.key, frames, part);
        Ok((0..hash_count(frames)).map(key).collect())
    }

    async fn put_in_turn(
        self: &Arc<Self>,
        master: Option<Address>,
        blocks: Vec<&(Blob, Bytes)>,
        lag: &Lag,
    ) -> Result<Written, TierError> {
        let master = master.map(|address| self.node(&address));
        let mut written = Written::new();
        for (blob, bytes) in blocks {
            if let Some(master) = &master {
                lag.heed(self, master, blob.bytes).await;
            }
            self.put(blob, bytes, &mut written).await?;
        }
        Ok(written)
    }

    /// Writes the hashes of a block, the first one last: who finds it finds all of them.
    async fn put(
        self: &Arc<Self>,
        blob: &Blob,
        bytes: &Bytes,
        written: &mut Written,
    ) -> Result<(), TierError> {
        if bytes.len() as u64 != blob.bytes {
            return Err(TierError::Refused(format!(
                "block {} has {} bytes, not {}",
                blob.key,
                bytes.len(),
                blob.bytes
            )));
        }
        for (part, key) in self.hash_keys(blob)?.iter().enumerate().rev() {
            let first = part as u32 * HASH_FRAMES;
            let mut command = redis::cmd("HSET");
            command.arg(key);
            for frame in first..(first + HASH_FRAMES).min(blob.frames(FRAME_BYTES)) {
                let range = blob.frame(frame, FRAME_BYTES);
                // The block's length was compared, and frames are below 65,536.
                let payload = &bytes[range.start as usize..range.end as usize];
                let name = FrameName { key: blob.key, frame: frame as u16 };
                command.arg(frame).arg(name.field(payload));
            }
            let mut commands = vec![command];
            if let Some(ttl) = self.options.ttl {
                let mut expire = redis::cmd("PEXPIRE");
                expire.arg(key).arg(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX >> 16));
                commands.push(expire);
            }
            let (to, spoken) = self.command(Link::Write, key, &commands).await?;
            written.insert((to, spoken.number), spoken.connection);
        }
        Ok(())
    }

    /// Waits until replicas have all that was written on a connection.
    async fn confirm(&self, to: Address, mut on: MultiplexedConnection) -> Result<(), TierError> {
        let copies = self.options.copies;
        let mut wait = redis::cmd("WAIT");
        wait.arg(copies).arg(CONFIRM.as_millis() as u64);
        let patience = CONFIRM + self.options.timeout;
        let confirmed = tokio::time::timeout(patience, wait.query_async::<u32>(&mut on)).await;
        match confirmed {
            Ok(Ok(confirmed)) if confirmed >= copies => Ok(()),
            Ok(Ok(confirmed)) => Err(TierError::Unreachable(format!(
                "{to} has {confirmed} replicas that confirm what was written, not {copies}; see to its \
                 replicas, or ask for fewer copies"
            ))),
            Ok(Err(error)) => Err(Fault::of(&error, &to).into_error()),
            Err(_) => Err(TierError::Timeout(patience)),
        }
    }

    /// Runs a command on a key and waits until replicas have all that its master wrote before.
    pub(super) async fn confirm_by(
        self: &Arc<Self>,
        key: &str,
        command: Cmd,
    ) -> Result<(), TierError> {
        let (to, spoken) = self.command(Link::Write, key, &[command]).await?;
        self.confirm(to, spoken.connection).await
    }

    /// Asks the masters for the numbers of frames.
    pub(super) async fn holds(self: Arc<Self>, blobs: Vec<Blob>) -> Result<Vec<bool>, TierError> {
        let asked = stream::iter(blobs).map(|blob| self.holds_one(blob));
        asked.buffered(QUESTIONS).try_collect().await
    }

    async fn holds_one(self: &Arc<Self>, blob: Blob) -> Result<bool, TierError> {
        let frames = frame_count(&blob)?;
        for (part, key) in self.hash_keys(&blob)?.iter().enumerate() {
            let expected = (frames - part as u32 * HASH_FRAMES).min(HASH_FRAMES);
            let mut question = redis::cmd("HLEN");
            question.arg(key);
            let (_, spoken) = self.command(Link::Control, key, &[question]).await?;
            if spoken.values != [Value::Int(i64::from(expected))] {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

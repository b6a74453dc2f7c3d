//! Replicas that fall behind: a writer begins only when all of them follow their masters, and waits for those that
//! are far behind.
//!
//! In: answers to `INFO replication`. Out: waits, each with an end, or a refusal. It writes nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyperrag_core::{TierError, WriteWaits};
use redis::Value;

use super::engine::{Engine, lock};
use super::fault::Fault;
use super::node::{Link, Node};
use super::slots::Address;

/// Bytes written to a master, and time, after which its replicas are looked at again.
const LOOK_BYTES: u64 = 16 << 20;
const LOOK_TIME: Duration = Duration::from_secs(1);
/// Bytes by which a replica may be behind: a quarter of its master's backlog, but at least a block, and no more
/// than fits in the buffer that a server has for a replica unless told otherwise.
const BEHIND_MIN: u64 = 8 << 20;
const BEHIND_MAX: u64 = 64 << 20;
/// Time in which replicas tell how far they are. Unasked they tell once a second.
const TELL: Duration = Duration::from_millis(200);
/// Pause between two questions whether all replicas follow, and longest wait for an answer to one.
const READY_PAUSE: Duration = Duration::from_millis(200);
const READY_ANSWER: Duration = Duration::from_secs(2);

/// Answer of a node to `INFO replication`.
#[derive(Debug, Default, PartialEq)]
struct Replication {
    /// Bytes that a master has sent to replicas ever, and length of its backlog.
    offset: u64,
    backlog: u64,
    replicas: Vec<Replica>,
    /// State of a replica's link to its master; empty for a master.
    link: String,
}

/// A replica, as its master sees it.
#[derive(Debug, PartialEq)]
struct Replica {
    name: String,
    /// Whether it follows, and does not copy everything at first.
    online: bool,
    offset: u64,
}

impl Replication {
    fn parse(info: &str) -> Self {
        let mut found = Self::default();
        for (name, value) in info.lines().filter_map(|line| line.trim().split_once(':')) {
            match name {
                "master_repl_offset" => found.offset = value.parse().unwrap_or(0),
                "repl_backlog_size" => found.backlog = value.parse().unwrap_or(0),
                "master_link_status" => value.clone_into(&mut found.link),
                _ => found.replicas.extend(Replica::parse(name, value)),
            }
        }
        found
    }

    /// Lists replicas that are too far behind, except those that still are where they were `left`.
    fn behind(&self, left: &HashMap<String, u64>) -> Vec<&Replica> {
        let most = (self.backlog / 4).clamp(BEHIND_MIN, BEHIND_MAX);
        let is_behind = |replica: &&Replica| {
            self.offset.saturating_sub(replica.offset) > most
                && left.get(&replica.name) != Some(&replica.offset)
        };
        self.replicas.iter().filter(is_behind).collect()
    }

    fn online(&self) -> usize {
        self.replicas.iter().filter(|replica| replica.online).count()
    }
}

impl Replica {
    /// Reads a line such as `slave0:ip=127.0.0.1,port=7105,state=online,offset=14,lag=0`.
    fn parse(name: &str, value: &str) -> Option<Self> {
        let number = name.strip_prefix("slave")?;
        number.parse::<u32>().ok()?;
        let fields: HashMap<_, _> =
            value.split(',').filter_map(|field| field.split_once('=')).collect();
        let online = *fields.get("state")? == "online";
        Some(Self {
            name: format!("{}:{}", fields.get("ip")?, fields.get("port")?),
            online,
            offset: fields.get("offset")?.parse().ok().filter(|_| online).unwrap_or(0),
        })
    }
}

/// Waits of writers for replicas.
#[derive(Default)]
pub(super) struct Lag {
    masters: Mutex<HashMap<Address, Arc<tokio::sync::Mutex<Looked>>>>,
    waits: Mutex<Waits>,
}

/// Last look at the replicas of a master.
#[derive(Default)]
struct Looked {
    when: Option<Instant>,
    /// Bytes written since.
    bytes: u64,
    /// Replicas that were waited for in vain, each with its offset then.
    left: HashMap<String, u64>,
}

#[derive(Default)]
struct Waits {
    waited: Duration,
    now: BTreeMap<Address, String>,
}

/// A wait. It is over when the value is dropped.
struct Waiting<'a> {
    waits: &'a Mutex<Waits>,
    master: &'a Address,
    start: Instant,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waits = lock(self.waits);
        waits.waited += self.start.elapsed();
        waits.now.remove(self.master);
    }
}

impl Lag {
    /// Returns how long writers have waited, summed over masters, and what they wait for now.
    pub(super) fn waits(&self) -> WriteWaits {
        let waits = lock(&self.waits);
        WriteWaits { waited: waits.waited, now: waits.now.values().next().cloned() }
    }

    /// Waits while a replica of a master is far behind, before `bytes` more are written to that. Returns after
    /// twice the time-out at the latest: whether enough replicas have a block is not decided here.
    pub(super) async fn heed(&self, engine: &Engine, node: &Node, bytes: u64) {
        let looked = lock(&self.masters).entry(node.address.clone()).or_default().clone();
        // One of several writers looks, and the others wait for it.
        let mut looked = looked.lock().await;
        looked.bytes = looked.bytes.saturating_add(bytes);
        let due = looked.when.is_none_or(|when| when.elapsed() >= LOOK_TIME);
        if due || looked.bytes > LOOK_BYTES {
            self.wait(engine, node, &mut looked.left).await;
            (looked.when, looked.bytes) = (Some(Instant::now()), bytes);
        }
    }

    async fn wait(&self, engine: &Engine, node: &Node, left: &mut HashMap<String, u64>) {
        let patience = engine.options.timeout;
        let until = Instant::now() + 2 * patience;
        let mut waiting: Option<Waiting<'_>> = None;
        let mut asked: Option<(Instant, u64)> = None;
        loop {
            // Whoever writes next is told why there is no answer.
            let Ok(state) = replication(engine, node, patience).await else { return };
            let behind = state.behind(left);
            let Some(slowest) = behind.iter().min_by_key(|replica| replica.offset) else { return };
            if Instant::now() >= until {
                left.extend(behind.iter().map(|replica| (replica.name.clone(), replica.offset)));
                return;
            }
            self.tell(&node.address, slowest, state.offset);
            waiting.get_or_insert_with(|| Waiting {
                waits: &self.waits,
                master: &node.address,
                start: Instant::now(),
            });
            if let Some((when, offset)) = asked
                && offset == slowest.offset
            {
                // `WAIT` returns at once where this client has written nothing.
                tokio::time::sleep(TELL.saturating_sub(when.elapsed())).await;
            }
            asked = Some((Instant::now(), slowest.offset));
            let mut wait = redis::cmd("WAIT");
            wait.arg(state.replicas.len()).arg(TELL.as_millis() as u64);
            // Without an answer the next question has none either.
            drop(node.ask(&engine.dial, Link::Write, &[wait], false, patience).await);
        }
    }

    fn tell(&self, master: &Address, slowest: &Replica, offset: u64) {
        let mib = offset.saturating_sub(slowest.offset) >> 20;
        let words = format!("{} is {mib} MiB behind {master}", slowest.name);
        lock(&self.waits).now.insert(master.clone(), words);
    }
}

async fn replication(
    engine: &Engine,
    node: &Node,
    patience: Duration,
) -> Result<Replication, TierError> {
    let mut question = redis::cmd("INFO");
    question.arg("replication");
    let asked = node.ask(&engine.dial, Link::Control, &[question], false, patience).await;
    let spoken = asked.map_err(Fault::into_error)?;
    Ok(match spoken.values.first() {
        Some(Value::BulkString(info)) => Replication::parse(&String::from_utf8_lossy(info)),
        Some(Value::VerbatimString { text, .. }) => Replication::parse(text),
        _ => Replication::default(),
    })
}

impl Engine {
    /// Waits until every master has as many replicas as copies were asked for, and every replica follows its
    /// master, for twice the time-out.
    ///
    /// # Errors
    /// [`TierError::Refused`] if not, and any other if a master cannot be asked.
    pub(super) async fn ready_to_write(self: Arc<Self>) -> Result<(), TierError> {
        if self.options.copies == 0 {
            return Ok(());
        }
        let until = Instant::now() + 2 * self.options.timeout;
        loop {
            // A map that cannot be read anew leaves the one that there is.
            drop(self.refresh().await);
            let lacking = self.lacking().await;
            match lacking {
                Ok(None) => return Ok(()),
                Err(error) if !error.is_retryable() => return Err(error),
                Ok(Some(why)) if Instant::now() >= until => return Err(TierError::Refused(why)),
                Err(error) if Instant::now() >= until => return Err(error),
                _ => tokio::time::sleep(READY_PAUSE).await,
            }
        }
    }

    /// Says what a copy lacks, with a remedy; `None` if nothing.
    async fn lacking(self: &Arc<Self>) -> Result<Option<String>, TierError> {
        let (map, copies) = (self.map().await?, self.options.copies);
        let patience = self.options.timeout.min(READY_ANSWER);
        for nodes in &map.groups {
            let Some((master, replicas)) = nodes.split_first() else { continue };
            let online = replication(self, master, patience).await?.online();
            if online < copies as usize {
                return Ok(Some(format!(
                    "{} has {online} replicas that follow it, not {copies}; start its replicas and wait until they \
                     have copied, or ask for fewer copies",
                    master.address
                )));
            }
            for replica in replicas {
                let status = match replication(self, replica, patience).await {
                    Ok(state) if matches!(state.link.as_str(), "up" | "") => continue,
                    Ok(state) => format!("master_link_status is {}", state.link),
                    Err(error) => error.to_string(),
                };
                return Ok(Some(format!(
                    "the replica {} does not follow its master ({status}); start it and wait until it has copied, \
                     have the cluster forget it, or ask for no copies",
                    replica.address
                )));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Replication\r\nrole:master\r\nconnected_slaves:3\r\n\
        slave0:ip=127.0.0.1,port=7105,state=online,offset=400000000,lag=0\r\n\
        slave1:ip=::1,port=7106,state=online,offset=320000000,lag=1,type=replica\r\n\
        slave2:ip=h,port=1,state=wait_bgsave,offset=7,lag=0\r\nslave_x:ip=h\r\nslave3:ip=h,port\r\n\
        master_repl_offset:400000100\r\nrepl_backlog_size:268435456\r\n";

    #[test]
    fn replicas_are_read_with_their_offsets() {
        let found = Replication::parse(INFO);
        let replica =
            |name: &str, online, offset| Replica { name: name.to_owned(), online, offset };
        assert_eq!(
            found.replicas,
            [
                replica("127.0.0.1:7105", true, 400_000_000),
                replica("::1:7106", true, 320_000_000),
                replica("h:1", false, 0)
            ]
        );
        assert_eq!((found.offset, found.backlog, found.online()), (400_000_100, 256 << 20, 2));
        let replica = "role:slave\r\nmaster_link_status:down\r\nmaster_repl_offset:x";
        let found = Replication::parse(replica);
        assert_eq!((found.link.as_str(), found.offset, found.online()), ("down", 0, 0));
        assert_eq!(Replication::parse("").behind(&HashMap::new()), [] as [&Replica; 0]);
    }

    #[test]
    fn those_far_behind_are_waited_for_until_they_were_in_vain() {
        let mut state = Replication::parse(INFO);
        let names = |state: &Replication, left: &HashMap<String, u64>| -> Vec<String> {
            state.behind(left).iter().map(|replica| replica.name.clone()).collect()
        };
        let mut left = HashMap::new();
        assert_eq!(names(&state, &left), ["::1:7106", "h:1"]);
        left.insert("h:1".to_owned(), 0);
        assert_eq!(names(&state, &left), ["::1:7106"]);
        // One that moves is waited for again.
        left.insert("::1:7106".to_owned(), 319_999_999);
        assert_eq!(names(&state, &left), ["::1:7106"]);
        state.replicas[1].offset = state.offset - BEHIND_MAX;
        assert_eq!(names(&state, &left), [""; 0]);
        state.backlog = 1 << 20;
        assert_eq!(names(&state, &left), ["::1:7106"]);
    }
}

//! Map of slots to nodes: read from the cluster, and read anew when it changes.
//!
//! In: answers to `CLUSTER SLOTS`. Out: the copies of a slot. It knows no pieces.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use hyperrag_core::TierError;

use super::engine::{Engine, lock};
use super::fault::Fault;
use super::node::{Link, Node};
use super::slot_map::SlotMap;
use super::slots::{Address, SLOTS, SlotRange, parse_slots};

/// Age at which the map is read anew, and that of a map in which a slot has fewer copies than there were.
const AGE_MAX: Duration = Duration::from_secs(10);
const AGE_MAX_DEGRADED: Duration = Duration::from_secs(2);
/// Time for which a node that the cluster names no more is kept as a copy. Promotions take less.
const KEPT: Duration = Duration::from_secs(30);
/// Shortest time between two readings, and longest wait for one.
const AGE_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Nodes that are asked at once.
const ASKED_MAX: usize = 6;

/// Answer of a node to the question who holds what.
enum Layout {
    Cluster(Vec<SlotRange>),
    Single,
}

impl Engine {
    /// Returns the map. The first call waits for it; a map that is old is read anew in the background.
    ///
    /// # Errors
    /// [`TierError`] if there is none yet and no node gives one.
    pub(super) async fn map(self: &Arc<Self>) -> Result<Arc<SlotMap>, TierError> {
        let map = lock(&self.map).clone();
        if let Some(map) = map {
            let age_max = if map.degraded { AGE_MAX_DEGRADED } else { AGE_MAX };
            if map.made.elapsed() > age_max {
                self.refresh_soon();
            }
            return Ok(map);
        }
        self.refresh().await?;
        let unread = || TierError::Unreachable("no node tells who holds what".to_owned());
        lock(&self.map).clone().ok_or_else(unread)
    }

    /// Has the map read anew in the background, unless that was just done.
    pub(super) fn refresh_soon(self: &Arc<Self>) {
        if self.refreshing.try_lock().is_ok() {
            let engine = self.clone();
            tokio::spawn(async move {
                // An error leaves the map that there is.
                drop(engine.refresh().await);
            });
        }
    }

    /// Reads the map anew.
    ///
    /// # Errors
    /// [`TierError`] if no node gives one, also for a moment after that.
    pub(super) async fn refresh(self: &Arc<Self>) -> Result<(), TierError> {
        let mut last = self.refreshing.lock().await;
        if let Some((when, result)) = &*last
            && when.elapsed() < AGE_MIN
        {
            return result.clone().map_or(Ok(()), Err);
        }
        let result = self.ask_layout().await.and_then(|(from, layout)| match layout {
            Layout::Cluster(ranges) => {
                self.set_ranges(&ranges);
                Ok(())
            }
            Layout::Single => self.set_single(from),
        });
        *last = Some((Instant::now(), result.clone().err()));
        result
    }

    /// Asks some nodes at once and takes the first answer.
    async fn ask_layout(&self) -> Result<(Arc<Node>, Layout), TierError> {
        let mut asked: FuturesUnordered<_> = self
            .whom_to_ask()
            .into_iter()
            .map(|node| async move {
                let layout = self.ask_node(&node).await;
                layout.map(|layout| (node, layout))
            })
            .collect();
        let mut error = TierError::Unreachable("no node is named".to_owned());
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(found) => return Ok(found),
                Err(TierError::Refused(why)) => error = TierError::Refused(why),
                Err(_) if matches!(error, TierError::Refused(_)) => {}
                Err(other) => error = other,
            }
        }
        Err(error)
    }

    fn whom_to_ask(&self) -> Vec<Arc<Node>> {
        let map = lock(&self.map).clone();
        let known = map.iter().flat_map(|map| map.groups.iter().flatten().cloned());
        let mut nodes: Vec<_> = known.filter(|node| !node.state().suspect).collect();
        nodes.sort_by(|a, b| a.address.cmp(&b.address));
        nodes.dedup_by(|a, b| a.address == b.address);
        // Others of a large cluster each time.
        let turn = self.next_turn() % nodes.len().max(1);
        nodes.rotate_left(turn);
        nodes.truncate(ASKED_MAX / 2);
        for start in &self.starts {
            if nodes.len() < ASKED_MAX && !nodes.iter().any(|node| node.address == *start) {
                nodes.push(self.node(start));
            }
        }
        nodes
    }

    async fn ask_node(&self, node: &Node) -> Result<Layout, TierError> {
        let mut question = redis::cmd("CLUSTER");
        question.arg("SLOTS");
        let patience = self.options.timeout.min(WAIT_MAX);
        match node.ask(&self.dial, Link::Control, &[question], false, patience).await {
            Ok(spoken) => {
                let answer = spoken.values.first();
                let ranges = answer.and_then(|answer| parse_slots(answer, &node.address.host));
                let ranges = ranges.filter(|ranges| !ranges.is_empty());
                ranges.map(Layout::Cluster).ok_or_else(|| {
                    TierError::Unreachable(format!(
                        "{} knows no slots of its cluster",
                        node.address
                    ))
                })
            }
            Err(Fault::Final(TierError::Protocol(words))) if words.contains("support disabled") => {
                Ok(Layout::Single)
            }
            Err(fault) => Err(fault.into_error()),
        }
    }

    fn set_single(&self, node: Arc<Node>) -> Result<(), TierError> {
        if self.starts.len() > 1 {
            return Err(TierError::Refused(format!(
                "{} is not of a cluster: name this one node alone, or the nodes of a cluster",
                node.address
            )));
        }
        self.set_map(vec![vec![node]], vec![0; usize::from(SLOTS)], false);
        Ok(())
    }

    fn set_ranges(&self, ranges: &[SlotRange]) {
        let mut group_of = vec![u16::MAX; usize::from(SLOTS)];
        let mut groups = Vec::new();
        for range in ranges {
            // A range has at least one slot, and the groups are no more than the slots.
            let group = groups.len().min(usize::from(SLOTS)) as u16;
            for slot in range.first..=range.last {
                group_of[usize::from(slot)] = group;
            }
            let nodes: Vec<_> = range.nodes.iter().map(|address| self.node(address)).collect();
            nodes.iter().for_each(|node| node.state().named = Some(Instant::now()));
            groups.push(nodes);
        }
        self.keep_former(ranges, &mut groups);
        self.set_map(groups, group_of, true);
    }

    /// Adds the former copies of slots that no range names any more. While a master is replaced, nodes leave out
    /// its replicas for a moment.
    fn keep_former(&self, ranges: &[SlotRange], groups: &mut [Vec<Arc<Node>>]) {
        let Some(former) = lock(&self.map).clone() else { return };
        let named = |address| ranges.iter().any(|range| range.nodes.contains(address));
        for (range, nodes) in ranges.iter().zip(groups) {
            for node in former.copies(range.first) {
                let recent = node.state().named.is_some_and(|when| when.elapsed() < KEPT);
                if !named(&node.address) && recent {
                    nodes.push(node.clone());
                }
            }
        }
    }

    fn set_map(&self, groups: Vec<Vec<Arc<Node>>>, group_of: Vec<u16>, clustered: bool) {
        self.dial.clustered.store(clustered, Ordering::Relaxed);
        let known = |address: &Address| {
            self.starts.contains(address)
                || groups.iter().flatten().any(|node| node.address == *address)
        };
        lock(&self.nodes).retain(|address, _| known(address));
        let mut map = lock(&self.map);
        let most = groups.iter().map(Vec::len).max().unwrap_or(0);
        let copies_seen = map.as_ref().map_or(0, |map| map.copies_seen).max(most);
        let degraded = groups.iter().any(|nodes| nodes.len() < copies_seen);
        *map = Some(Arc::new(SlotMap {
            made: Instant::now(),
            clustered,
            groups,
            group_of,
            degraded,
            copies_seen,
        }));
    }
}

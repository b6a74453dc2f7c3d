//! Reads from the nodes of Redis: each piece goes to a copy of its slot, and to another one after a failure.
//!
//! In: tasks. Out: each task answered. It knows no format of fields and writes nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyperrag_core::{TierError, TierRole};
use redis::Value;

use super::fault::Fault;
use super::node::{Dialer, Link, Node};
use super::options::{Readers, RedisOptions};
use super::request::Task;
use super::slot_map::SlotMap;
use super::slots::Address;

/// Redirections that a piece follows.
const HOPS_MAX: u32 = 5;
/// Shortest and longest time that a copy is given before the other one is asked, in the first round. A copy that
/// hangs is known from one that is slow only by waiting, so that each round waits twice as long.
const HEDGE_MIN: Duration = Duration::from_millis(250);
const HEDGE_MAX: Duration = Duration::from_millis(500);
/// Shortest wait in vain that counts against a node. A shorter one says more of who waits.
const TELLING: Duration = Duration::from_millis(50);
/// Pause before the copies of a slot are asked again after all failed.
const ROUND_PAUSE: Duration = Duration::from_millis(30);
/// Most by which a copy may lag behind another in the reads that it was given.
const CATCH_UP: Duration = Duration::from_millis(50);
/// Longest wait of a probe, and shortest pause between two.
const PROBE: Duration = Duration::from_secs(1);
const PROBE_PAUSE: Duration = Duration::from_millis(100);

/// All nodes of a place, and which of them hold which slot.
pub(super) struct Engine {
    pub(super) options: RedisOptions,
    pub(super) starts: Vec<Address>,
    pub(super) dial: Dialer,
    pub(super) nodes: Mutex<HashMap<Address, Arc<Node>>>,
    pub(super) map: Mutex<Option<Arc<SlotMap>>>,
    /// Held while the map is read anew: the last time, and the reason if that failed.
    pub(super) refreshing: tokio::sync::Mutex<Option<(Instant, Option<TierError>)>>,
    turn: AtomicUsize,
}

impl Engine {
    pub(super) fn new(options: RedisOptions, starts: Vec<Address>) -> Self {
        Self {
            dial: Dialer::new(&options),
            options,
            starts,
            nodes: Mutex::default(),
            map: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
            turn: AtomicUsize::new(0),
        }
    }

    /// Returns the node at an address, made if need be.
    pub(super) fn node(&self, address: &Address) -> Arc<Node> {
        let mut nodes = lock(&self.nodes);
        let node = nodes.entry(address.clone());
        node.or_insert_with(|| Arc::new(Node::new(address.clone()))).clone()
    }

    /// Sends tasks on their way, in their order. The first ones wait for the map, for `patience` at most.
    pub(super) async fn start(self: Arc<Self>, tasks: Vec<Task>, patience: Duration) {
        let map = tokio::time::timeout(patience, self.map()).await;
        match map.unwrap_or(Err(TierError::Timeout(patience))) {
            Ok(_) => tasks.into_iter().for_each(|task| self.place(task, false)),
            Err(error) => tasks.into_iter().for_each(|task| task.answer(Err(error.clone()))),
        }
    }

    /// Puts a task into the queue of a copy, at its front if it has waited before.
    fn place(self: &Arc<Self>, mut task: Task, first: bool) {
        match self.choose(&task) {
            Some(node) => self.enqueue(node, task, first),
            None => {
                if task.fault.is_none() {
                    task.fault = self.why_none(&task);
                }
                self.another_round(task);
            }
        }
    }

    /// Returns the copies of a task's slot that may be read, the master first.
    fn copies(&self, task: &Task) -> Vec<Arc<Node>> {
        let map = lock(&self.map).clone();
        let copies = map.as_ref().map_or(&[][..], |map| map.copies(task.slot));
        let end = match self.options.readers {
            Readers::Replica => copies.len(),
            Readers::Master => copies.len().min(1),
        };
        copies[..end].to_vec()
    }

    /// Chooses a copy, of those that have not failed at the task and are not left alone; one whose last answer
    /// was a failure only if there is no other. Copies get reads in proportion to their rates.
    fn choose(&self, task: &Task) -> Option<Arc<Node>> {
        self.choose_beside(None, task)
    }

    /// Chooses a copy that is not `node`.
    fn choose_beside(&self, node: Option<&Arc<Node>>, task: &Task) -> Option<Arc<Node>> {
        let beside = |copy: &Arc<Node>| node.is_none_or(|node| node.address != copy.address);
        let copies = self.copies(task);
        let most = copies.iter().map(|node| node.state().spent).max().unwrap_or_default();
        let able = copies.into_iter().filter_map(|copy| {
            let asked =
                task.failed_at.contains(&copy.address) || task.absent_at.contains(&copy.address);
            let mut state = copy.state();
            // A node that was away does not make up for it.
            state.spent = state.spent.max(most.saturating_sub(CATCH_UP));
            let rank = (state.suspect, state.burden());
            let able = !asked && beside(&copy) && !state.breaker.is_open();
            drop(state);
            able.then_some((rank, copy))
        });
        able.min_by_key(|(rank, _)| *rank).map(|(_, copy)| copy)
    }

    /// Returns another number with each call.
    pub(super) fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    fn why_none(&self, task: &Task) -> Option<TierError> {
        let copies = self.copies(task);
        let none = format!("no node holds slot {}", task.slot);
        let why = copies.iter().find_map(|node| node.state().why.clone());
        why.or(Some(TierError::Unreachable(none)))
    }

    fn enqueue(self: &Arc<Self>, node: Arc<Node>, task: Task, first: bool) {
        let more = {
            let mut state = node.state();
            let one = state.frame_time();
            state.spent += one;
            if first {
                state.queue.push_front(task);
            } else {
                state.queue.push_back(task);
            }
            let more = state.active < state.window(self.options.in_flight_bytes);
            state.active += usize::from(more);
            more
        };
        if more {
            tokio::spawn(self.clone().pump(node));
        }
    }

    /// Works off the queue of a node.
    async fn pump(self: Arc<Self>, node: Arc<Node>) {
        let active = Active(Some(node.clone()));
        loop {
            let task = {
                let mut state = node.state();
                if state.active > state.window(self.options.in_flight_bytes) {
                    None
                } else {
                    state.queue.pop_front()
                }
            };
            let Some(task) = task else { break };
            if !task.cancelled() {
                self.attempt(&node, task).await;
            }
        }
        active.end(&self);
    }

    /// Asks a node for a piece, or sends the task on to another if the node has failed in the meantime.
    async fn attempt(self: &Arc<Self>, node: &Arc<Node>, mut task: Task) {
        let (open, suspect) = {
            let state = node.state();
            (state.breaker.is_open(), state.suspect)
        };
        let other = self.choose_beside(Some(node), &task);
        let is_alone = other.is_none();
        let other_is_well = other.as_ref().is_some_and(|other| !other.state().suspect);
        if let Some(other) = other.filter(|_| open || (suspect && other_is_well && !task.sent_on)) {
            task.sent_on = false;
            return self.enqueue(other, task, true);
        }
        let left = task.left();
        if open || left.is_zero() {
            let why = || node.state().why.clone();
            task.fault = task.fault.take().or_else(why);
            return self.another_round(task);
        }
        let usual = (node.state().frame_time() * 4).max(HEDGE_MIN);
        let hedged = usual.min(HEDGE_MAX * (1 << task.rounds.min(5))).min(left / 2);
        let limit = match (is_alone, self.dial.clustered.load(Ordering::Relaxed)) {
            (false, _) => hedged,
            // The next map may name another copy.
            (true, true) => (hedged * 2).min(left / 2),
            (true, false) => left,
        };
        let (asking, start) = (std::mem::take(&mut task.asking), Instant::now());
        let answer = node.ask(&self.dial, Link::Read, &[task.command()], asking, limit).await;
        match answer {
            Ok(mut spoken) => self.answered(node, task, spoken.values.pop(), start.elapsed()),
            Err(fault) => self.failed(node, task, fault),
        }
    }

    fn answered(
        self: &Arc<Self>,
        node: &Arc<Node>,
        mut task: Task,
        value: Option<Value>,
        time: Duration,
    ) {
        let wrong = match value {
            Some(Value::BulkString(field)) => {
                node.state().succeeded(field.len(), time);
                match task.check(field) {
                    Ok(bytes) => return task.answer(Ok(Some(bytes))),
                    Err(error) => error,
                }
            }
            Some(Value::Nil) => {
                node.state().succeeded(0, time);
                return self.absent(node, task);
            }
            _ => TierError::Protocol(format!("{}: no bytes as the answer to HGET", node.address)),
        };
        task.fault = Some(wrong);
        task.failed_at.insert(node.address.clone());
        match self.choose(&task) {
            Some(other) => self.enqueue(other, task, true),
            None => task.give_up(),
        }
    }

    /// Believes that a piece is absent if its master says so; of a place that should hold all, a replica too,
    /// for a master that came back empty may not know yet that it is none any more.
    fn absent(self: &Arc<Self>, node: &Arc<Node>, mut task: Task) {
        task.absent_at.insert(node.address.clone());
        let copies = self.copies(&task);
        let master = copies.first();
        if task.sent_on || master.is_none_or(|master| task.absent_at.contains(&master.address)) {
            let second = task.absent_at.len() < 2 && self.options.role == TierRole::Home;
            let other = if second { self.choose(&task) } else { None };
            match other.filter(|other| !other.state().suspect) {
                Some(other) => {
                    task.sent_on = false;
                    self.enqueue(other, task, true);
                }
                None => task.answer(Ok(None)),
            }
        } else if let Some(master) = master {
            if task.failed_at.contains(&master.address) {
                task.give_up();
            } else {
                self.enqueue(master.clone(), task, true);
            }
        }
    }

    fn failed(self: &Arc<Self>, node: &Arc<Node>, mut task: Task, fault: Fault) {
        if let Fault::Moved(to) | Fault::Ask(to) = &fault {
            node.state().succeeded(0, Duration::ZERO);
            task.hops += 1;
            if task.hops <= HOPS_MAX {
                task.sent_on = true;
                task.asking = matches!(fault, Fault::Ask(_));
                if !task.asking {
                    self.refresh_soon();
                }
                return self.enqueue(self.node(to), task, true);
            }
        }
        let last = matches!(fault, Fault::Final(_));
        let tells = !matches!(fault, Fault::Timeout(waited) if waited < TELLING);
        let why = fault.into_error();
        if tells && !matches!(why, TierError::Protocol(_)) {
            node.state().failed(why.clone());
            self.revive(node);
        }
        task.fault = Some(why);
        if last {
            return task.give_up();
        }
        self.refresh_soon();
        task.failed_at.insert(node.address.clone());
        task.sent_on = false;
        match self.choose(&task) {
            Some(other) => self.enqueue(other, task, true),
            None => self.another_round(task),
        }
    }

    /// Asks the copies once more after a pause, by a map that is read anew. If all are left alone, this is
    /// done once.
    fn another_round(self: &Arc<Self>, mut task: Task) {
        let copies = self.copies(&task);
        let hope = copies
            .iter()
            .any(|node| !task.absent_at.contains(&node.address) && !node.state().breaker.is_open());
        if (!hope && task.last_round) || task.left() <= 2 * ROUND_PAUSE {
            return task.give_up();
        }
        task.last_round |= !hope;
        task.rounds += 1;
        task.failed_at.clear();
        let engine = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(ROUND_PAUSE).await;
            // An error leaves the map that there is.
            drop(tokio::time::timeout(task.left(), engine.refresh()).await);
            engine.place(task, true);
        });
    }

    /// Asks a node that failed, again and again, until it answers or is none of the nodes any more.
    fn revive(self: &Arc<Self>, node: &Arc<Node>) {
        if std::mem::replace(&mut node.state().reviving, true) {
            return;
        }
        let (engine, node) = (Arc::downgrade(self), node.clone());
        tokio::spawn(async move {
            loop {
                let pause = node.state().breaker.pause_left(Instant::now()).max(PROBE_PAUSE);
                tokio::time::sleep(pause).await;
                let Some(engine) = engine.upgrade() else { return };
                if !lock(&engine.nodes).contains_key(&node.address) {
                    break;
                }
                node.state().breaker.allows(Instant::now());
                match node.ping(&engine.dial, PROBE).await {
                    Ok(()) => {
                        node.state().revived();
                        break;
                    }
                    Err(fault) => node.state().failed(fault.into_error()),
                }
            }
            node.state().reviving = false;
        });
    }
}

/// Reader of a node's queue, one of several. If it ends before its time, what is queued is answered by errors.
struct Active(Option<Arc<Node>>);

impl Active {
    /// Ends in good order. A task that came since the queue was seen empty gets another reader.
    fn end(mut self, engine: &Arc<Engine>) {
        let Some(node) = self.0.take() else { return };
        let again = {
            let mut state = node.state();
            let again = !state.queue.is_empty()
                && state.active <= state.window(engine.options.in_flight_bytes);
            state.active -= usize::from(!again);
            again
        };
        if again {
            tokio::spawn(engine.clone().pump(node));
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let Some(node) = self.0.take() else { return };
        let lost = {
            let mut state = node.state();
            state.active -= 1;
            std::mem::take(&mut state.queue)
        };
        drop(lost);
    }
}

/// Locks. A panic of another thread does not matter: every change is one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

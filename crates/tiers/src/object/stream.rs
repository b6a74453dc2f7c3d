//! Requests for pieces of blocks. In: pieces, in the order of their use. Out: their bytes to a sink, one ranged
//! GET for each run of pieces of one block, no further than is allowed. Knows no HTTP.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyperrag_core::{Answer, Blob, Fetch, FetchSink, Piece, TierError};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::body::Body;
use super::http::Failure;
use super::place::Place;
use super::runtime::stopped;

/// Length of a frame. A layer of K and V of a small model is 192 KiB, so that its first layer is whole after a
/// twentieth of the block, while a block of 6 MB is handed out in 23 parts: few enough to cost nothing.
pub(super) const FRAME: u64 = 256 << 10;
/// GETs that wait for bytes at one time. An object store gives 50-100 MB/s a connection.
pub(super) const ACTIVE: usize = 64;
/// GETs that are begun and wait for leave. Others give up their connection and ask again.
const PAUSED: usize = 256;

/// Counts of the GETs of a tier.
#[derive(Clone, Debug)]
pub(super) struct Lanes {
    active: Arc<Semaphore>,
    paused: Arc<AtomicUsize>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { active: Arc::new(Semaphore::new(ACTIVE)), paused: Arc::default() }
    }
}

/// A request that runs.
pub(super) struct Running {
    allowed: watch::Sender<usize>,
    dropped: Arc<AtomicBool>,
    driver: JoinHandle<()>,
}

impl Fetch for Running {
    fn allow(&self, end: usize) {
        self.allowed.send_if_modified(|allowed| {
            let more = end > *allowed;
            *allowed = end.max(*allowed);
            more
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.dropped.store(true, Relaxed);
        self.driver.abort();
    }
}

/// Pieces that are owed an answer. Each gets one, whatever becomes of the task.
struct Debt {
    to: Arc<dyn FetchSink>,
    dropped: Arc<AtomicBool>,
    pieces: Range<usize>,
}

impl Debt {
    fn answer(&mut self, answer: Answer) {
        if let Some(n) = self.pieces.next()
            && !self.dropped.load(Relaxed)
        {
            self.to.deliver(n, answer);
        }
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        while !self.pieces.is_empty() {
            // A sink that panics must not take the answers of other pieces along.
            let _ = catch_unwind(AssertUnwindSafe(|| self.answer(Err(stopped()))));
        }
    }
}

/// Pieces of one block that follow each other: one GET.
struct Run {
    blob: Blob,
    first_frame: u32,
    debt: Debt,
}

impl Run {
    fn frame(&self, n: usize) -> u32 {
        self.first_frame.saturating_add((n - self.debt.pieces.start) as u32)
    }

    /// Returns the bytes of the run in its shard's file; `None` if there are no such frames.
    fn range(&self) -> Option<Range<u64>> {
        let (blob, frames) = (&self.blob, self.debt.pieces.len() as u32);
        let end_frame = self.first_frame.checked_add(frames)?;
        if end_frame > blob.frames(FRAME) || frames == 0 {
            return None;
        }
        blob.offset.checked_add(blob.bytes)?;
        let start = blob.offset + blob.frame(self.first_frame, FRAME).start;
        Some(start..blob.offset + blob.frame(end_frame - 1, FRAME).end)
    }
}

/// Starts a request and returns at once.
pub(super) fn start(
    handle: &Handle,
    place: &Arc<Place>,
    lanes: &Lanes,
    pieces: &[Piece],
    patience: Duration,
    to: &Arc<dyn FetchSink>,
) -> Running {
    let dropped = Arc::new(AtomicBool::new(false));
    let mut runs: Vec<Run> = Vec::new();
    for (n, piece) in pieces.iter().enumerate() {
        match runs.last_mut() {
            Some(run) if run.blob == piece.blob && run.frame(n) == piece.frame => {
                run.debt.pieces.end = n + 1;
            }
            _ => {
                let (to, dropped) = (Arc::clone(to), Arc::clone(&dropped));
                let debt = Debt { to, dropped, pieces: n..n + 1 };
                runs.push(Run { blob: piece.blob, first_frame: piece.frame, debt });
            }
        }
    }
    let (allowed, leave) = watch::channel(0);
    let task = Task { place: Arc::clone(place), lanes: lanes.clone(), patience, leave };
    let driver = handle.spawn(drive(task, runs));
    Running { allowed, dropped, driver }
}

/// Things that the tasks of a request share.
#[derive(Clone)]
struct Task {
    place: Arc<Place>,
    lanes: Lanes,
    patience: Duration,
    leave: watch::Receiver<usize>,
}

impl Task {
    /// Waits until piece `n` may be delivered. A request that was dropped waits for ever, until it is ended.
    async fn leave(&mut self, n: usize) {
        if self.leave.wait_for(|allowed| *allowed > n).await.is_err() {
            std::future::pending().await
        }
    }

    fn allows(&self, n: usize) -> bool {
        *self.leave.borrow() > n
    }

    async fn lane(&self) -> Result<OwnedSemaphorePermit, TierError> {
        Arc::clone(&self.lanes.active).acquire_owned().await.map_err(|_| stopped())
    }
}

/// Starts the GETs in order, each when its first piece is allowed and a lane is free.
async fn drive(mut task: Task, runs: Vec<Run>) {
    let mut tasks = JoinSet::new();
    for run in runs {
        task.leave(run.debt.pieces.start).await;
        let Ok(lane) = task.lane().await else { return };
        tasks.spawn(read(task.clone(), run, lane));
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
}

/// Reads the pieces of a run and answers for each.
async fn read(mut task: Task, mut run: Run, lane: OwnedSemaphorePermit) {
    let mut lane = Some(lane);
    let opened = open(&task, &run).and_then(|body| Ok((body, task.place.health.leave()?)));
    let mut frames = run.first_frame..;
    let (mut body, mut trial) = match opened {
        Ok(opened) => opened,
        Err(error) => return refuse(&mut task, &mut run.debt, &Err(error)).await,
    };
    let mut rest = Bytes::new();
    while let (false, Some(frame)) = (run.debt.pieces.is_empty(), frames.next()) {
        let n = run.debt.pieces.start;
        if !task.allows(n) {
            lane = None;
            pause(&mut task, &mut body, n).await;
        }
        if lane.is_none() {
            lane = task.lane().await.ok();
        }
        let range = run.blob.frame(frame, FRAME);
        match gather(&mut body, &mut rest, (range.end - range.start) as usize).await {
            Ok(bytes) => {
                trial.succeeded();
                run.debt.answer(Ok(Some(bytes)));
            }
            Err(failure) => {
                drop((lane, body));
                let answer = match failure {
                    Failure::Absent => Ok(None),
                    failure => Err(TierError::from(failure)),
                };
                match &answer {
                    Err(error) => trial.failed(error),
                    Ok(_) => trial.succeeded(),
                }
                return refuse(&mut task, &mut run.debt, &answer).await;
            }
        }
    }
}

fn open(task: &Task, run: &Run) -> Result<Body, TierError> {
    let range = run.range();
    let range =
        range.ok_or_else(|| TierError::Refused("the block has no such piece".to_owned()))?;
    let path = task.place.path(&shard_name(&run.blob))?;
    Ok(Body::new(Arc::clone(&task.place), path, range, task.patience))
}

/// Gives one answer to all pieces that are left, each when it is allowed.
async fn refuse(task: &mut Task, debt: &mut Debt, answer: &Answer) {
    while !debt.pieces.is_empty() {
        task.leave(debt.pieces.start).await;
        debt.answer(answer.clone());
    }
}

/// Waits for leave. The connection stays unless too many wait.
async fn pause(task: &mut Task, body: &mut Body, n: usize) {
    /// Counts a GET that waits, also if its task ends meanwhile.
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Relaxed);
        }
    }
    let paused = Arc::clone(&task.lanes.paused);
    let before = paused.fetch_add(1, Relaxed);
    let _counted = Counted(paused);
    if before >= PAUSED {
        body.close();
    }
    task.leave(n).await;
}

/// Gathers the bytes of a frame in memory of their own, so that they keep no buffer of the network alive.
async fn gather(body: &mut Body, rest: &mut Bytes, len: usize) -> Result<Bytes, Failure> {
    let mut frame = BytesMut::with_capacity(len);
    while frame.len() < len {
        if rest.is_empty() {
            *rest = body.next().await?;
            if rest.is_empty() {
                return Err(TierError::Protocol("fewer bytes than asked for".to_owned()).into());
            }
        }
        let take = rest.len().min(len - frame.len());
        frame.extend_from_slice(&rest.split_to(take));
    }
    Ok(frame.freeze())
}

/// Returns the name of the file that holds a block.
pub(super) fn shard_name(blob: &Blob) -> String {
    format!("shards/{:06}.{}.kv", blob.shard.0, blob.key.table_name())
}

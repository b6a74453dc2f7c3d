//! Requests for the frames of arriving blocks: numbers of frames come in, their answers go to the blocks. It checks
//! no byte.

use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Instant;

use hyperrag_core::{Answer, Fetch, FetchSink, Piece, TierError};

use super::{Arriving, Frame, Stream, TierFault};
use crate::tiered::in_use::TierInUse;

impl Arriving {
    /// Asks for all frames that are away.
    pub(crate) fn ask_all(self: &Arc<Self>) {
        self.ask(0..self.blob.frames(self.frame_bytes()));
    }

    /// Asks for those of `frames` that are away.
    pub(crate) fn ask(self: &Arc<Self>, frames: Range<u32>) {
        if self.state.shape.streams {
            return self.ask_stream(frames);
        }
        let wanted = self.mark(frames);
        if !wanted.is_empty() {
            ask_together(&self.state, wanted.map(|frame| (Arc::clone(self), frame)).collect());
        }
    }

    /// Marks the run of frames away at the start of `frames` as asked for, and returns it.
    pub(crate) fn mark(&self, frames: Range<u32>) -> Range<u32> {
        let mut held = self.lock();
        let away = |frame: &Frame| matches!(frame, Frame::Away);
        let Some(first) = frames.clone().find(|frame| away(&held.frames[*frame as usize])) else {
            return frames.end..frames.end;
        };
        let mut end = first;
        while end < frames.end && away(&held.frames[end as usize]) {
            held.frames[end as usize] = Frame::Asked(Instant::now());
            end += 1;
        }
        first..end
    }

    /// Lets the stream of this block run on to the end of `frames`, or begins another.
    fn ask_stream(self: &Arc<Self>, frames: Range<u32>) {
        let wanted = self.mark(frames);
        if wanted.is_empty() {
            return;
        }
        if let Some(stream) = &mut self.lock().stream
            && stream.end <= wanted.start
        {
            stream.end = wanted.end;
            return stream.request.allow((wanted.end - stream.first) as usize);
        }
        let all = wanted.start..self.blob.frames(self.frame_bytes());
        let (first, end) = (wanted.start, wanted.end);
        let targets = all.clone().map(|frame| (Arc::downgrade(self), frame)).collect();
        let pieces: Vec<Piece> = all.map(|frame| Piece { blob: self.blob, frame }).collect();
        let sink = Arc::new(Delivery { targets });
        let request = self.state.tier.fetch(&pieces, self.state.patience, sink);
        request.allow((end - first) as usize);
        self.lock().stream = Some(Stream { request, first, end });
    }

    fn arrived(self: &Arc<Self>, frame: u32, answer: Answer) {
        let range = self.blob.frame(frame, self.frame_bytes());
        let expected = (range.end - range.start) as usize;
        let mut held = self.lock();
        let place = &mut held.frames[frame as usize];
        let asked = match place {
            Frame::Asked(asked) => *asked,
            // Sent beyond leave, or twice: a tier is not believed.
            Frame::Away | Frame::Here(_) => return,
        };
        let stats = &self.state.stats;
        let fault = match answer {
            Ok(Some(bytes)) if bytes.len() == expected => {
                stats.answered(asked.elapsed(), bytes.len());
                *place = Frame::Here(bytes);
                held.came = Instant::now();
                None
            }
            Ok(Some(bytes)) => {
                let what = format!("{} bytes came in place of {expected}", bytes.len());
                Some(TierFault::Failed(TierError::Protocol(what)))
            }
            Ok(None) => Some(TierFault::Absent),
            Err(error) => Some(TierFault::Failed(error)),
        };
        let first = fault.is_some() && held.fault.is_none();
        if let Some(fault) = fault {
            stats.answered(asked.elapsed(), 0);
            held.frames[frame as usize] = Frame::Away;
            self.fail(&mut held, fault);
        }
        drop(held);
        self.ready.notify_all();
        if first && let Some(block) = self.on_fault.upgrade() {
            block.tier_failed(self.place);
        }
    }
}

/// Receiver of the frames of one request.
struct Delivery {
    /// Block and frame of each piece. A block that nobody reads any more takes nothing.
    targets: Vec<(Weak<Arriving>, u32)>,
}

impl FetchSink for Delivery {
    fn deliver(&self, n: usize, answer: Answer) {
        if let Some((block, frame)) = self.targets.get(n)
            && let Some(block) = block.upgrade()
        {
            block.arrived(*frame, answer);
        }
    }
}

/// Sends one request for frames of several blocks, which are marked as asked for.
pub(crate) fn ask_together(state: &TierInUse, wanted: Vec<(Arc<Arriving>, u32)>) {
    let pieces: Vec<Piece> =
        wanted.iter().map(|(block, frame)| Piece { blob: block.blob, frame: *frame }).collect();
    let targets = wanted.iter().map(|(block, frame)| (Arc::downgrade(block), *frame)).collect();
    let sink = Arc::new(Delivery { targets });
    let request: Arc<dyn Fetch> = state.tier.fetch(&pieces, state.patience, sink).into();
    if state.shape.immediate {
        return;
    }
    for (block, _) in &wanted {
        let requests = &mut block.lock().requests;
        if !requests.last().is_some_and(|last| Arc::ptr_eq(last, &request)) {
            requests.push(Arc::clone(&request));
        }
    }
}

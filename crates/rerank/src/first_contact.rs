//! First contact with a far place: blocks that were asked for as by a pass over all of them come in, and the first
//! bytes tell how fast the place is. Out: the time in which the rest comes.

use std::thread;
use std::time::{Duration, Instant};

use hyperrag_core::Presence;

use crate::plan::planner::Planner;
use crate::plan::tier_speed::Fetched;
use crate::score::OpenBlock;

/// Longest time between two looks at what has come.
pub(crate) const LOOK: Duration = Duration::from_millis(2);
/// Idle time after which a block is computed to see how fast the model is, if that is not known. A place that is far
/// has sent its first blocks by then, unless it is so slow that computing pays.
pub(crate) const IDLE: Duration = Duration::from_millis(500);
/// Bytes after the first ones that tell a speed.
const TELLING_BYTES: u64 = 4 << 20;
/// Time after the first bytes in which fewer tell it.
const TELLING_TIME: Duration = Duration::from_millis(50);
/// Time of all blocks below which they are read as they come, however fast the model computes.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(1);
/// Longest time of all blocks that may be read as they come.
pub(crate) const SOON: Duration = Duration::from_millis(2500);

/// Returns the place that all blocks are to come from, if it was not turned to before.
pub(crate) fn is_due(
    near: &[OpenBlock<'_, '_>],
    far: &[OpenBlock<'_, '_>],
    planner: &Planner,
) -> Option<usize> {
    let (_, first) = far.first()?;
    let place = place_of(first.presence())?;
    let is_one = || far.iter().all(|(_, block)| place_of(block.presence()) == Some(place));
    (near.is_empty() && is_one() && planner.is_first_contact(place)).then_some(place)
}

/// Waits until the first bytes tell the speed of `place`. Returns the time in which the rest comes; `None` if it is
/// not known.
pub(crate) fn meet(
    asked: &[OpenBlock<'_, '_>],
    place: usize,
    planner: &Planner,
) -> Option<Duration> {
    let bytes = |(_, block): &OpenBlock<'_, '_>| block.kv_shape().block_bytes(block.tokens());
    let all: u64 = asked.iter().map(|block| bytes(block) as u64).sum();
    let is_off = |(_, block): &OpenBlock<'_, '_>| place_of(block.presence()) != Some(place);
    let (start, mut first) = (Instant::now(), None);
    while start.elapsed() < IDLE {
        let came: u64 = asked.iter().map(|(_, block)| block.came_bytes()).sum();
        let now = Instant::now();
        // A place that fails, or does not have a block, is met block by block.
        if asked.iter().any(is_off) {
            break;
        }
        let (since, before) = match first {
            None if came > 0 => *first.insert((now, came)),
            None => (now, 0),
            Some(first) => first,
        };
        // What came has heads of blocks too, and another reader of a block may have dropped frames.
        let (left, more) = (all.saturating_sub(came), came.saturating_sub(before));
        let time = now.duration_since(since);
        let latency = Fetched { bytes: before, seconds: seconds(start, since), was_idle: true };
        if more >= TELLING_BYTES || more > 0 && time >= TELLING_TIME {
            let rest = Fetched { bytes: more, seconds: time.as_secs_f64(), was_idle: false };
            planner.met(place, &[latency, rest]);
            return Some(time_of(left, rest));
        }
        // Much may come between two looks.
        let whole = Fetched { bytes: came, seconds: seconds(start, now), was_idle: true };
        if came >= TELLING_BYTES.min(all) && time_of(left, whole) <= AT_ONCE {
            planner.met(place, &[whole]);
            return Some(time_of(left, whole));
        }
        thread::sleep(LOOK);
    }
    None
}

/// Returns the time in which so many bytes come, as fast as others came before.
fn time_of(bytes: u64, before: Fetched) -> Duration {
    let seconds = bytes as f64 * before.seconds / (before.bytes as f64).max(1.0);
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

fn seconds(from: Instant, to: Instant) -> f64 {
    to.duration_since(from).as_secs_f64()
}

fn place_of(presence: Presence) -> Option<usize> {
    match presence {
        Presence::Away { place } | Presence::Came { place, .. } => Some(place),
        Presence::AtHand => None,
    }
}

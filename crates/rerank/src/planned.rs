//! Scores blocks of which some are far: those at hand while the far ones come, and the last of these computed where
//! that is sooner. In: open blocks, a planner with what earlier queries taught it. Out: scores. It knows no tier.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use hyperrag_core::{BlockRead, LanguageModel, Presence};

use crate::first_contact::{self, AT_ONCE, IDLE, LOOK, SOON};
use crate::plan::both_ends::{BothEnds, SLOWER, Step, TierWait};
use crate::plan::cost_model::{CostModel, PlannedBlock};
use crate::plan::planner::Planner;
use crate::plan::tier_speed::Fetched;
use crate::score::{DamagedRead, OnDamage, OpenBlock, PendingBlock, RerankError, Scoring};

/// Bytes of blocks that were requested and not scored, at most; but never fewer than two blocks.
const UNDER_WAY_BYTES: u64 = 128 << 20;
/// Blocks that are computed together: a thousand positions, which fill the model's products.
const COMPUTED_TOGETHER: usize = 4;
/// Blocks that came and are scored together, unless nothing else is under way: a pass reads all weights.
const SCORED_TOGETHER: usize = 8;
/// Time without any arrival after which reading itself waits for what was requested, and gives up in the end.
const SILENCE: Duration = Duration::from_secs(20);
/// Fewest blocks that are away then.
const TIMED_OF: usize = 4;
/// Times that reading all as it comes may take of computing all, if the place becomes slower meanwhile.
const LATER_MAX: f64 = 1.1;

impl<M: LanguageModel> Scoring<'_, M> {
    /// Scores stored blocks: those at hand, and the far ones as the planner divides them into loaded and computed
    /// ones. `on_damage` decides the treatment of damaged ones.
    pub(crate) fn planned(
        &mut self,
        all: &[PendingBlock<'_>],
        blocks: &dyn BlockRead,
        on_damage: OnDamage,
        planner: &Planner,
    ) -> Result<(), RerankError> {
        let (opened, mut damaged) = self.open(all, |keys| blocks.open_idle(keys));
        let at_hand = |block: &OpenBlock<'_, '_>| block.1.presence() == Presence::AtHand;
        let (near, far): (Vec<_>, Vec<_>) = opened.into_iter().partition(at_hand);
        let mut run = match first_contact::is_due(&near, &far, planner) {
            Some(place) => self.meet(far, place, planner, blocks, &mut damaged)?,
            None => Run::new(far, planner, self.together(), false),
        };
        if run.is_met || run.keeps_up() {
            damaged.extend(self.stream(near, &mut run, blocks)?);
            return self.damaged(damaged, on_damage);
        }
        run.request();
        damaged.extend(self.score_some(near, planner)?);
        loop {
            run.look();
            if run.keeps_up() {
                damaged.extend(self.stream(Vec::new(), &mut run, blocks)?);
            }
            run.request();
            match run.next_step() {
                Step::Score(at) => {
                    let (from, taken) = run.take(&at);
                    run.request();
                    let unread = self.score_some(taken, planner)?;
                    note_loaded(planner, &from, &unread);
                    damaged.extend(unread);
                }
                Step::Recompute(at) => {
                    let (from, taken) = run.take(&at);
                    run.request();
                    self.compute_some(taken, planner)?;
                    note_computed(planner, &from);
                }
                Step::Wait { seconds } => thread::sleep(LOOK.min(Duration::from_secs_f64(seconds))),
                Step::Done => break,
            }
        }
        self.damaged(damaged, on_damage)
    }

    /// Blocks that are computed together.
    fn together(&self) -> usize {
        COMPUTED_TOGETHER.min(self.batch)
    }

    /// Meets a place whose speed is not known, which all blocks are to come from.
    fn meet<'a, 's, 'p>(
        &mut self,
        far: Vec<OpenBlock<'a, 's>>,
        place: usize,
        planner: &'p Planner,
        blocks: &'s dyn BlockRead,
        damaged: &mut Vec<DamagedRead<'a>>,
    ) -> Result<Run<'a, 's, 'p>, RerankError> {
        let pending: Vec<_> = far.iter().map(|(pending, _)| *pending).collect();
        // Blocks that are open keep their windows, which here are all of them.
        drop(far);
        let (asked, unread) = self.open(&pending, |keys| blocks.open_many(keys));
        damaged.extend(unread);
        let rest = first_contact::meet(&asked, place, planner).unwrap_or(Duration::MAX);
        let mut run = Run::new(asked, planner, self.together(), true);
        if (AT_ONCE..=SOON).contains(&rest) {
            // The rest comes neither at once nor late: the model's speed decides.
            self.time_one(&mut run)?;
        }
        if rest <= AT_ONCE || rest <= SOON && run.outpaces(rest) {
            return Ok(run);
        }
        let pending: Vec<_> = run.blocks.iter().flatten().map(|(pending, _)| *pending).collect();
        drop(run);
        let (far, unread) = self.open(&pending, |keys| blocks.open_idle(keys));
        damaged.extend(unread);
        Ok(Run::new(far, planner, self.together(), false))
    }

    /// Scores blocks at hand, and with them all that are left, which are read layer by layer as they come.
    fn stream<'a>(
        &mut self,
        near: Vec<OpenBlock<'a, '_>>,
        run: &mut Run<'a, '_, '_>,
        blocks: &dyn BlockRead,
    ) -> Result<Vec<DamagedRead<'a>>, RerankError> {
        let rest = run.ends.take_rest();
        let (from, taken) = run.take(&rest);
        let pending: Vec<_> = near.iter().chain(&taken).map(|(pending, _)| *pending).collect();
        if pending.is_empty() {
            return Ok(Vec::new());
        }
        // What is under way stays open until it is open anew, so that nothing is asked for twice. The rest is closed,
        // for an open block keeps its window, which here is all of it.
        let taken = taken.into_iter().zip(&from);
        let under_way: Vec<_> = taken.filter(|(_, origin)| origin.is_asked).collect();
        drop(near);
        let (opened, mut damaged) = self.open(&pending, |keys| blocks.open_many(keys));
        drop(under_way);
        let start = Instant::now();
        let unread = self.score_open(opened)?;
        damaged.extend(unread);
        note_loaded(run.planner, &from, &damaged);
        if damaged.is_empty() {
            let bytes: Vec<_> =
                from.iter().filter_map(|origin| Some((origin.place?, origin.bytes))).collect();
            let tokens = pending.iter().map(query_tokens).sum();
            run.planner.streamed(&bytes, tokens, start.elapsed());
        }
        Ok(damaged)
    }

    /// Computes a block to see how fast the model is, if that is not known and there are enough of them.
    fn time_one(&mut self, run: &mut Run<'_, '_, '_>) -> Result<(), RerankError> {
        let last = (!run.planner.knows_prefill()).then(|| run.ends.take_last(TIMED_OF));
        let Some(at) = last.flatten() else { return Ok(()) };
        let (from, taken) = run.take(&[at]);
        self.compute_some(taken, run.planner)?;
        note_computed(run.planner, &from);
        Ok(())
    }

    fn compute_some(
        &mut self,
        some: Vec<OpenBlock<'_, '_>>,
        planner: &Planner,
    ) -> Result<(), RerankError> {
        let tokens = some.iter().map(|(_, block)| block.tokens() as u64).sum();
        // What was on its way need not come any more.
        let pending: Vec<_> = some.into_iter().map(|(pending, _)| pending).collect();
        let start = Instant::now();
        self.compute(&pending)?;
        planner.prefilled(tokens, start.elapsed());
        Ok(())
    }

    fn score_some<'a>(
        &mut self,
        some: Vec<OpenBlock<'a, '_>>,
        planner: &Planner,
    ) -> Result<Vec<DamagedRead<'a>>, RerankError> {
        let tokens = some.iter().map(|(pending, _)| query_tokens(pending)).sum();
        let start = Instant::now();
        let damaged = self.score_open(some)?;
        // A read that failed may have waited, or spared the rest.
        if damaged.is_empty() {
            planner.scored(tokens, start.elapsed());
        }
        Ok(damaged)
    }
}

fn query_tokens(pending: &PendingBlock<'_>) -> u64 {
    pending.query.computed().len() as u64
}

/// Notes what was loaded, but for what could not be read.
fn note_loaded(planner: &Planner, from: &[Origin], unread: &[DamagedRead<'_>]) {
    for Origin { id, place, bytes, .. } in from {
        if let Some(place) = place
            && !unread.iter().any(|(pending, _)| pending.place == *id)
        {
            planner.loaded(*place, *bytes);
        }
    }
}

fn note_computed(planner: &Planner, from: &[Origin]) {
    from.iter().filter_map(|origin| origin.place).for_each(|place| planner.computed(place));
}

/// Place that a block was to come from.
struct Origin {
    /// Identity of the pending block.
    id: (usize, usize),
    /// Number of the far place; `None` if that has failed, and a place at hand has the block or none.
    place: Option<usize>,
    bytes: u64,
    /// Whether it was requested.
    is_asked: bool,
}

/// A block that was requested and has not come.
struct Requested {
    at: usize,
    since: Instant,
    /// Whether nothing else was under way from its place then.
    was_idle: bool,
}

/// The first request to a place, and the last arrival from it.
#[derive(Clone, Copy, Default)]
struct PlaceClock {
    first_request: Option<Instant>,
    last_arrival: Option<Instant>,
}

/// The far blocks of a request while they come.
struct Run<'a, 's, 'p> {
    blocks: Vec<Option<OpenBlock<'a, 's>>>,
    sizes: Vec<u64>,
    ends: BothEnds,
    planner: &'p Planner,
    start: Instant,
    clocks: Vec<PlaceClock>,
    requested: VecDeque<Requested>,
    /// Whether the far places have failed to give a block.
    failed: Vec<bool>,
    /// Blocks that have come and are not scored.
    here: Vec<usize>,
    /// Bytes of each block that was requested and not taken, else 0, and their sum.
    held: Vec<u64>,
    bytes: u64,
    /// Whether all were asked for at first contact, and are to be read as they come.
    is_met: bool,
}

impl<'a, 's, 'p> Run<'a, 's, 'p> {
    /// `is_met` says that the blocks were asked for at first contact.
    fn new(
        far: Vec<OpenBlock<'a, 's>>,
        planner: &'p Planner,
        together: usize,
        is_met: bool,
    ) -> Self {
        let planned = |(pending, block): &OpenBlock<'_, '_>| PlannedBlock {
            bytes: block.kv_shape().block_bytes(block.tokens()) as u64,
            tokens: block.tokens() as u32,
            query_tokens: query_tokens(pending) as u32,
            tier: match block.presence() {
                Presence::Away { place } | Presence::Came { place, .. } => place,
                Presence::AtHand => 0,
            },
        };
        let planned: Vec<PlannedBlock> = far.iter().map(planned).collect();
        let places = planned.iter().map(|block| block.tier + 1).max().unwrap_or(0);
        let (speeds, rates) = planner.speeds(places);
        let ends = BothEnds::new(&planned, &CostModel { tiers: &speeds, rates }, together);
        Self {
            sizes: planned.iter().map(|block| block.bytes).collect(),
            blocks: far.into_iter().map(Some).collect(),
            ends,
            planner,
            start: Instant::now(),
            clocks: vec![PlaceClock::default(); places],
            requested: VecDeque::new(),
            failed: vec![false; planned.len()],
            here: Vec::new(),
            held: planned.iter().map(|block| if is_met { block.bytes } else { 0 }).collect(),
            bytes: if is_met { planned.iter().map(|block| block.bytes).sum() } else { 0 },
            is_met,
        }
    }

    /// Requests blocks while there is room for them.
    fn request(&mut self) {
        let places = 0..self.clocks.len();
        while let Some(at) = places.clone().find_map(|place| self.next_of(place)) {
            self.held[at] = self.sizes[at];
            self.bytes += self.sizes[at];
            self.ask(at);
        }
    }

    /// Takes the block to request next from a place, if there is room for it. Before the model's speed is known, a few
    /// are under way, and what the place sends during a round trip: the last may be computed instead.
    fn next_of(&mut self, place: usize) -> Option<usize> {
        let few = SCORED_TOGETHER as u64 * self.sizes.iter().max().copied().unwrap_or(0);
        let most = match self.planner.knows_query() {
            true => UNDER_WAY_BYTES,
            false => few.saturating_add(self.planner.sent_in_a_trip(place)).min(UNDER_WAY_BYTES),
        };
        let has_room = self.bytes < most || self.requested.len() + self.here.len() < 2;
        has_room.then(|| self.ends.next_load(place)).flatten()
    }

    /// Has a block sent from its place.
    fn ask(&mut self, at: usize) {
        let Some((_, block)) = &self.blocks[at] else { return };
        let (place, since) = (self.ends.tier(at), Instant::now());
        let was_idle = !self.requested.iter().any(|other| self.ends.tier(other.at) == place);
        block.request();
        self.clocks[place].first_request.get_or_insert(since);
        self.requested.push_back(Requested { at, since, was_idle });
    }

    /// Looks which blocks have come, and learns from their times. One that its place does not have comes from
    /// another.
    fn look(&mut self) {
        let (mut came, mut elsewhere) = (Vec::new(), Vec::new());
        for requested in std::mem::take(&mut self.requested) {
            let at = requested.at;
            let Some((_, block)) = &self.blocks[at] else { continue };
            match block.presence() {
                Presence::AtHand => {
                    self.failed[at] = true;
                    self.here.push(at);
                }
                Presence::Away { place } if place == self.ends.tier(at) => {
                    self.requested.push_back(requested);
                }
                Presence::Away { place } => elsewhere.push((at, place)),
                Presence::Came { place, when } => came.push((when, place, requested)),
            }
        }
        for (at, place) in elsewhere {
            self.move_to(at, place);
            self.ask(at);
        }
        came.sort_unstable_by_key(|(when, _, requested)| (*when, requested.at));
        for (when, place, requested) in came {
            self.came(when, place, &requested);
        }
        if self.last_sign().is_some_and(|last| last.elapsed() > SILENCE) {
            self.here.extend(self.requested.drain(..).map(|requested| requested.at));
        }
        if self.here.len() >= SCORED_TOGETHER || self.requested.is_empty() {
            self.here.drain(..).for_each(|at| self.ends.arrived(at));
        }
    }

    fn came(&mut self, when: Instant, place: usize, requested: &Requested) {
        let Requested { at, since, was_idle } = *requested;
        if place != self.ends.tier(at) {
            self.move_to(at, place);
        }
        let clock = &mut self.clocks[place];
        let from = clock.last_arrival.map_or(since, |last| last.max(since));
        clock.last_arrival = Some(clock.last_arrival.map_or(when, |last| last.max(when)));
        let seconds = when.saturating_duration_since(from).as_secs_f64();
        self.planner.fetched(place, Fetched { bytes: self.sizes[at], seconds, was_idle });
        self.here.push(at);
    }

    fn move_to(&mut self, at: usize, place: usize) {
        self.ends.moved(at, place);
        if self.clocks.len() <= place {
            self.clocks.resize(place + 1, PlaceClock::default());
        }
    }

    /// Returns when a place was first asked or last gave something.
    fn last_sign(&self) -> Option<Instant> {
        self.clocks.iter().filter_map(|clock| clock.last_arrival.max(clock.first_request)).max()
    }

    /// Whether it is known that blocks come so fast that all that are left can be read as they come.
    fn keeps_up(&self) -> bool {
        let places = (0..self.clocks.len()).filter(|place| self.ends.waits_for(*place));
        let (speeds, rates) = self.planner.speeds(self.clocks.len());
        let costs = CostModel { tiers: &speeds, rates };
        self.planner.knows(places) && self.ends.keeps_up(&costs, &self.waits())
    }

    /// Whether all that is left comes in so short a time that even a place that becomes ten times slower half-way ends
    /// about when everything is computed.
    fn outpaces(&self, rest: Duration) -> bool {
        let tokens = self.blocks.iter().flatten().map(|(_, block)| block.tokens()).sum::<usize>();
        let rate = self.planner.speeds(0).1.prefill_tokens_per_second;
        SLOWER * rest.as_secs_f64() * rate <= LATER_MAX * tokens as f64
    }

    fn waits(&self) -> Vec<TierWait> {
        let wait = |clock: &PlaceClock| {
            let since = clock.last_arrival.or(clock.first_request);
            since.map_or(TierWait::NOT_ASKED, |since| TierWait {
                seconds: since.elapsed().as_secs_f64(),
                is_first: clock.last_arrival.is_none(),
            })
        };
        self.clocks.iter().map(wait).collect()
    }

    fn next_step(&mut self) -> Step {
        let (speeds, rates) = self.planner.speeds(self.clocks.len());
        let costs = CostModel { tiers: &speeds, rates };
        let step = self.ends.next_step(&costs, &self.waits());
        let is_idle = matches!(step, Step::Wait { .. }) && self.start.elapsed() > IDLE;
        match is_idle && !self.planner.knows_prefill() {
            true => self.ends.take_last(TIMED_OF).map_or(step, |at| Step::Recompute(vec![at])),
            false => step,
        }
    }

    /// Takes blocks out of the run, to be scored or computed, and says where they were to come from.
    fn take(&mut self, all: &[usize]) -> (Vec<Origin>, Vec<OpenBlock<'a, 's>>) {
        self.requested.retain(|requested| !all.contains(&requested.at));
        self.here.retain(|at| !all.contains(at));
        let (mut from, mut taken) = (Vec::new(), Vec::new());
        for at in all {
            let held = std::mem::take(&mut self.held[*at]);
            self.bytes -= held;
            let Some(open) = self.blocks[*at].take() else { continue };
            let place = (!self.failed[*at]).then(|| self.ends.tier(*at));
            let (bytes, is_asked) = (self.sizes[*at], held > 0);
            from.push(Origin { id: open.0.place, place, bytes, is_asked });
            taken.push(open);
        }
        (from, taken)
    }
}

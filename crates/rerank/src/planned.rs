//! Scores blocks of which some are far: those at hand while the far ones come, and the last of these computed where
//! that is sooner. In: open blocks, a planner with what earlier queries taught it. Out: scores. It knows no tier.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use hyperrag_core::{BlockRead, LanguageModel, Presence};

use crate::plan::both_ends::{BothEnds, Step, TierWait};
use crate::plan::cost_model::{CostModel, PlanLimits, PlannedBlock, Policy};
use crate::plan::planner::Planner;
use crate::plan::tier_speed::Fetched;
use crate::score::{DamagedRead, OnDamage, OpenBlock, PendingBlock, RerankError, Scoring};

/// Bytes of blocks that were requested and not scored, at most; but never fewer than two blocks.
const UNDER_WAY_BYTES: u64 = 128 << 20;
/// Blocks that are computed together: a thousand positions, which fill the model's products.
const COMPUTED_TOGETHER: usize = 4;
/// Blocks that came and are scored together, unless nothing else is under way: a pass reads all weights.
const SCORED_TOGETHER: usize = 8;
/// Longest time between two looks at what has come.
const LOOK: Duration = Duration::from_millis(2);
/// Time without any arrival after which reading itself waits for what was requested, and gives up in the end.
const SILENCE: Duration = Duration::from_secs(20);
/// All far places count as one.
const FAR: usize = 0;

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
        let (near, mut far): (Vec<_>, Vec<_>) = opened.into_iter().partition(at_hand);
        let first = self.first_computed(&mut far, planner);
        let together = COMPUTED_TOGETHER.min(self.batch);
        let mut run = Run::new(far, planner, together);
        run.request();
        damaged.extend(self.score_open(near)?);
        self.compute_some(first, planner)?;
        loop {
            run.look();
            run.request();
            match run.next_step() {
                Step::Score(at) => damaged.extend(self.score_some(run.take(&at), planner)?),
                Step::Recompute(at) => {
                    let taken = run.take(&at);
                    run.request();
                    self.compute_some(taken, planner)?;
                }
                Step::Wait { seconds } => thread::sleep(LOOK.min(Duration::from_secs_f64(seconds))),
                Step::Done => break,
            }
        }
        self.damaged(damaged, on_damage)
    }

    /// Takes some blocks to compute if it is not known yet how fast that is. They are no more than a quarter.
    fn first_computed<'a, 's>(
        &self,
        far: &mut Vec<OpenBlock<'a, 's>>,
        planner: &Planner,
    ) -> Vec<OpenBlock<'a, 's>> {
        let unknown = planner.work().prefill_tokens_per_second.is_none();
        let count = COMPUTED_TOGETHER.min(self.batch).min(far.len() / 4);
        far.split_off(far.len() - if unknown { count } else { 0 })
    }

    fn compute_some(
        &mut self,
        some: Vec<OpenBlock<'_, '_>>,
        planner: &Planner,
    ) -> Result<(), RerankError> {
        if some.is_empty() {
            return Ok(());
        }
        let tokens = some.iter().map(|(_, block)| block.tokens() as u64).sum();
        // What was on its way need not come any more.
        let pending: Vec<_> = some.into_iter().map(|(pending, _)| pending).collect();
        let start = Instant::now();
        self.compute(&pending)?;
        planner.computed(pending.len(), tokens, start.elapsed());
        Ok(())
    }

    fn score_some<'a>(
        &mut self,
        some: Vec<OpenBlock<'a, '_>>,
        planner: &Planner,
    ) -> Result<Vec<DamagedRead<'a>>, RerankError> {
        let tokens = some.iter().map(|(pending, _)| query_tokens(pending)).sum();
        let (blocks, start) = (some.len(), Instant::now());
        let damaged = self.score_open(some)?;
        planner.scored(blocks - damaged.len(), tokens, start.elapsed());
        Ok(damaged)
    }
}

fn query_tokens(pending: &PendingBlock<'_>) -> u64 {
    pending.query.computed().len() as u64
}

/// The far blocks of a request while they come.
struct Run<'a, 's, 'p> {
    blocks: Vec<Option<OpenBlock<'a, 's>>>,
    sizes: Vec<u64>,
    ends: BothEnds,
    planner: &'p Planner,
    /// Blocks that were requested and have not come: index, time of the request, whether nothing else was under
    /// way then.
    requested: VecDeque<(usize, Instant, bool)>,
    /// Blocks that have come and are not scored.
    here: Vec<usize>,
    /// Bytes of each block that was requested and not taken, else 0, and their sum.
    held: Vec<u64>,
    bytes: u64,
    first_request: Option<Instant>,
    last_arrival: Option<Instant>,
}

impl<'a, 's, 'p> Run<'a, 's, 'p> {
    fn new(far: Vec<OpenBlock<'a, 's>>, planner: &'p Planner, together: usize) -> Self {
        let (speed, rates) = planner.speeds();
        let planned: Vec<PlannedBlock> = far
            .iter()
            .map(|(pending, block)| PlannedBlock {
                bytes: block.kv_shape().block_bytes(block.tokens()) as u64,
                tokens: block.tokens() as u32,
                query_tokens: query_tokens(pending) as u32,
                tier: FAR,
            })
            .collect();
        let limits = PlanLimits { policy: Policy::Auto, recompute_at_once: together };
        let ends = BothEnds::new(&planned, &CostModel { tiers: &[speed], rates }, limits);
        Self {
            sizes: planned.iter().map(|block| block.bytes).collect(),
            blocks: far.into_iter().map(Some).collect(),
            ends,
            planner,
            requested: VecDeque::new(),
            here: Vec::new(),
            held: vec![0; planned.len()],
            bytes: 0,
            first_request: None,
            last_arrival: None,
        }
    }

    /// Requests blocks while there is room for them.
    fn request(&mut self) {
        while self.bytes < UNDER_WAY_BYTES || self.requested.len() + self.here.len() < 2 {
            let Some(at) = self.ends.next_load(FAR) else { return };
            let Some((_, block)) = &self.blocks[at] else { continue };
            let (now, is_first) = (Instant::now(), self.requested.is_empty());
            block.request();
            self.first_request.get_or_insert(now);
            self.requested.push_back((at, now, is_first));
            self.held[at] = self.sizes[at];
            self.bytes += self.sizes[at];
        }
    }

    /// Looks which blocks have come, and learns from their times.
    fn look(&mut self) {
        let mut came = Vec::new();
        for (at, since, was_idle) in std::mem::take(&mut self.requested) {
            let Some((_, block)) = &self.blocks[at] else { continue };
            match block.presence() {
                Presence::Away => self.requested.push_back((at, since, was_idle)),
                Presence::AtHand => self.here.push(at),
                Presence::Came(when) => came.push((when, at, since, was_idle)),
            }
        }
        came.sort_unstable_by_key(|(when, at, ..)| (*when, *at));
        for (when, at, since, was_idle) in came {
            let from = self.last_arrival.map_or(since, |last| last.max(since));
            let seconds = when.saturating_duration_since(from).as_secs_f64();
            let fetched = Fetched { bytes: self.sizes[at], seconds, was_idle };
            self.planner.fetched(fetched);
            self.last_arrival = Some(self.last_arrival.map_or(when, |last| last.max(when)));
            self.here.push(at);
        }
        let since = self.last_arrival.or(self.first_request);
        if since.is_some_and(|since| since.elapsed() > SILENCE) {
            self.here.extend(self.requested.drain(..).map(|(at, ..)| at));
        }
        if self.here.len() >= SCORED_TOGETHER || self.requested.is_empty() {
            self.here.drain(..).for_each(|at| self.ends.arrived(at));
        }
    }

    fn next_step(&mut self) -> Step {
        let (speed, rates) = self.planner.speeds();
        let since = self.last_arrival.or(self.first_request);
        let wait = since.map_or(TierWait::NOT_ASKED, |since| TierWait {
            seconds: since.elapsed().as_secs_f64(),
            is_first: self.last_arrival.is_none(),
        });
        self.ends.next_step(&CostModel { tiers: &[speed], rates }, &[wait])
    }

    /// Takes blocks out of the run, to be scored or computed.
    fn take(&mut self, all: &[usize]) -> Vec<OpenBlock<'a, 's>> {
        self.requested.retain(|(at, ..)| !all.contains(at));
        self.here.retain(|at| !all.contains(at));
        self.bytes -= all.iter().map(|at| std::mem::take(&mut self.held[*at])).sum::<u64>();
        all.iter().filter_map(|at| self.blocks[*at].take()).collect()
    }
}

//! Speeds that queries teach: times of far places and of the model come in, estimates for the next query go out. It
//! decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::plan::cost_model::ModelRates;
use crate::plan::explain::TierShare;
use crate::plan::tier_speed::{Fetched, TierEstimate, TierSpeed};

/// Share of a rate's former value that is kept when a new one was measured.
const KEPT: f64 = 0.6;
/// Times that a pass over blocks as they come may take of its expected time before the place counts as slow.
const OVERDUE: f64 = 1.5;
/// Fetches from a place after which its speed is known.
const KNOWN: u64 = 4;
/// Speed of a far place that is believed before its first block came.
const AT_FIRST: TierEstimate = TierEstimate { latency_seconds: 1e-3, bytes_per_second: 300e6 };

/// Planner of a session, which learns from query to query how fast far places and the model are.
#[derive(Debug, Default)]
pub struct Planner(Mutex<Learnt>);

#[derive(Debug, Default)]
struct Learnt {
    /// Far places, by their numbers in the order in which places are asked.
    far: BTreeMap<usize, Far>,
    /// Places that were turned to.
    met: BTreeSet<usize>,
    /// Rates of the model in tokens a second; `None` before they were measured.
    prefill: Option<f64>,
    query: Option<f64>,
}

#[derive(Debug)]
struct Far {
    speed: TierSpeed,
    fetches: u64,
    loaded: u64,
    loaded_bytes: u64,
    computed: u64,
}

/// Work of a planner since its session was opened.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanWork {
    /// Division of the blocks of each far place, in the order of the places.
    pub tiers: Vec<TierShare>,
    /// Tokens of chunks that the model computes a second; `None` if it was not measured.
    pub prefill_tokens_per_second: Option<f64>,
}

impl Learnt {
    fn far(&mut self, place: usize) -> &mut Far {
        self.far.entry(place).or_insert_with(|| {
            let speed = TierSpeed::new(AT_FIRST);
            Far { speed, fetches: 0, loaded: 0, loaded_bytes: 0, computed: 0 }
        })
    }
}

impl Planner {
    /// Returns what was done and learnt.
    #[must_use]
    pub fn work(&self) -> PlanWork {
        let learnt = self.lock();
        let share = |(place, far): (&usize, &Far)| TierShare {
            place: *place,
            loaded: far.loaded,
            loaded_bytes: far.loaded_bytes,
            computed: far.computed,
            speed: (far.fetches > 0).then(|| far.speed.estimate()),
        };
        PlanWork {
            tiers: learnt.far.iter().map(share).collect(),
            prefill_tokens_per_second: learnt.prefill,
        }
    }

    /// Locks. A panic of another thread does not matter: every change is one step.
    fn lock(&self) -> MutexGuard<'_, Learnt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the speeds of the first `places` places and of the model, as they are believed now.
    pub(crate) fn speeds(&self, places: usize) -> (Vec<TierEstimate>, ModelRates) {
        let learnt = self.lock();
        let speed = |place| learnt.far.get(&place).map_or(AT_FIRST, |far| far.speed.estimate());
        // A model computes chunks about as fast as queries. Before either was measured, nothing is computed.
        let prefill = learnt.prefill.or(learnt.query).unwrap_or(0.0);
        let rates = ModelRates {
            prefill_tokens_per_second: prefill,
            query_tokens_per_second: learnt.query.unwrap_or(prefill),
        };
        ((0..places).map(speed).collect(), rates)
    }

    /// Whether it was measured how fast the model computes chunks.
    pub(crate) fn knows_prefill(&self) -> bool {
        self.lock().prefill.is_some()
    }

    /// Whether it was measured how fast the model scores queries.
    pub(crate) fn knows_query(&self) -> bool {
        self.lock().query.is_some()
    }

    /// Returns the bytes that a place sends while two requests go there and their answers begin; 0 before its speed
    /// was measured.
    pub(crate) fn sent_in_a_trip(&self, place: usize) -> u64 {
        let learnt = self.lock();
        let known = learnt.far.get(&place).filter(|far| far.fetches >= KNOWN);
        known.map_or(0, |far| {
            let TierEstimate { latency_seconds, bytes_per_second } = far.speed.estimate();
            (2.0 * latency_seconds * bytes_per_second) as u64
        })
    }

    /// Whether the speeds of these places and of the model are measured.
    pub(crate) fn knows(&self, mut places: impl Iterator<Item = usize>) -> bool {
        let learnt = self.lock();
        let known = |place| learnt.far.get(&place).is_some_and(|far| far.fetches >= KNOWN);
        (learnt.query.is_some() || learnt.prefill.is_some()) && places.all(known)
    }

    /// Whether this is the first time that a place is turned to.
    pub(crate) fn is_first_contact(&self, place: usize) -> bool {
        let mut learnt = self.lock();
        let is_known = learnt.far.get(&place).is_some_and(|far| far.fetches > 0);
        learnt.met.insert(place) && !is_known
    }

    /// Notes how the first bytes came from a place. Its speed is known then.
    pub(crate) fn met(&self, place: usize, first: &[Fetched]) {
        let mut learnt = self.lock();
        let far = learnt.far(place);
        first.iter().for_each(|fetched| far.speed.note(*fetched));
        far.fetches = far.fetches.max(KNOWN);
    }

    /// Notes that a block has come from a place.
    pub(crate) fn fetched(&self, place: usize, fetched: Fetched) {
        let mut learnt = self.lock();
        let far = learnt.far(place);
        far.fetches += 1;
        far.speed.note(fetched);
    }

    /// Notes the time in which so many tokens of queries were scored on blocks that were read as they came, so many
    /// bytes from a place. If it took much longer than scoring, the place was slow.
    pub(crate) fn streamed(&self, bytes: &[(usize, u64)], tokens: u64, time: Duration) {
        let mut learnt = self.lock();
        let seconds = time.as_secs_f64();
        let mut sums = BTreeMap::new();
        bytes.iter().for_each(|(place, bytes)| *sums.entry(*place).or_insert(0) += bytes);
        let scoring = learnt.query.map_or(f64::INFINITY, |rate| tokens as f64 / rate);
        if seconds <= OVERDUE * scoring {
            return note(&mut learnt.query, tokens, time);
        }
        let loading = sums.iter().map(|(place, bytes)| {
            let speed = learnt.far.get(place).map_or(AT_FIRST, |far| far.speed.estimate());
            speed.latency_seconds + speed.seconds_of(*bytes)
        });
        if seconds <= OVERDUE * loading.fold(0.0, f64::max) {
            return;
        }
        for (place, bytes) in sums {
            let far = learnt.far(place);
            far.fetches += 1;
            far.speed.note(Fetched { bytes, seconds, was_idle: false });
        }
    }

    /// Notes that a block that came from a place was scored.
    pub(crate) fn loaded(&self, place: usize, bytes: u64) {
        let mut learnt = self.lock();
        let far = learnt.far(place);
        far.loaded += 1;
        far.loaded_bytes += bytes;
    }

    /// Notes that a block was computed that was to come from a place.
    pub(crate) fn computed(&self, place: usize) {
        self.lock().far(place).computed += 1;
    }

    /// Notes the time in which chunks of so many tokens were computed.
    pub(crate) fn prefilled(&self, tokens: u64, time: Duration) {
        note(&mut self.lock().prefill, tokens, time);
    }

    /// Notes the time in which so many tokens of queries were scored on blocks.
    pub(crate) fn scored(&self, tokens: u64, time: Duration) {
        note(&mut self.lock().query, tokens, time);
    }
}

fn note(rate: &mut Option<f64>, tokens: u64, time: Duration) {
    if tokens > 0 {
        let now = tokens as f64 / time.as_secs_f64().max(1e-6);
        *rate = Some(rate.map_or(now, |rate| KEPT * rate + (1.0 - KEPT) * now));
    }
}

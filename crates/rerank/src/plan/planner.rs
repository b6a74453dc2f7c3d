//! Speeds that queries teach: times of far places and of the model come in, estimates for the next query go out. It
//! decides nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::plan::cost_model::ModelRates;
use crate::plan::tier_speed::{Fetched, TierEstimate, TierSpeed};

/// Share of a rate's former value that is kept when a new one was measured.
const KEPT: f64 = 0.6;
/// Speed of far places that is believed before the first block came.
const AT_FIRST: TierEstimate = TierEstimate { latency_seconds: 1e-3, bytes_per_second: 300e6 };

/// Planner of a session, which learns from query to query how fast far places and the model are.
#[derive(Debug)]
pub struct Planner(Mutex<Learnt>);

#[derive(Debug)]
struct Learnt {
    far: TierSpeed,
    /// Rates of the model in tokens a second; `None` before they were measured.
    prefill: Option<f64>,
    query: Option<f64>,
    loaded: u64,
    computed: u64,
}

/// Work of a planner since its session was opened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlanWork {
    /// Blocks that came from far places.
    pub loaded: u64,
    /// Blocks that were computed meanwhile: because that was sooner, or to time it.
    pub computed: u64,
    /// Speed of the far places as it is believed now.
    pub far: TierEstimate,
    /// Tokens of chunks that the model computes a second; `None` if it was not measured.
    pub prefill_tokens_per_second: Option<f64>,
}

impl Default for Planner {
    fn default() -> Self {
        let far = TierSpeed::new(AT_FIRST);
        let (prefill, query, loaded, computed) = (None, None, 0, 0);
        Self(Mutex::new(Learnt { far, prefill, query, loaded, computed }))
    }
}

impl Planner {
    /// Returns what was done and learnt.
    #[must_use]
    pub fn work(&self) -> PlanWork {
        let learnt = self.lock();
        PlanWork {
            loaded: learnt.loaded,
            computed: learnt.computed,
            far: learnt.far.estimate(),
            prefill_tokens_per_second: learnt.prefill,
        }
    }

    /// Locks. A panic of another thread does not matter: every change is one step.
    fn lock(&self) -> MutexGuard<'_, Learnt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the speeds of far places and of the model, as they are believed now.
    pub(crate) fn speeds(&self) -> (TierEstimate, ModelRates) {
        let learnt = self.lock();
        // Before it was measured, nothing is computed.
        let prefill = learnt.prefill.unwrap_or(0.0);
        let rates = ModelRates {
            prefill_tokens_per_second: prefill,
            query_tokens_per_second: learnt.query.unwrap_or(prefill),
        };
        (learnt.far.estimate(), rates)
    }

    /// Notes that a block has come.
    pub(crate) fn fetched(&self, fetched: Fetched) {
        self.lock().far.note(fetched);
    }

    /// Notes that blocks of so many tokens were computed.
    pub(crate) fn computed(&self, blocks: usize, tokens: u64, time: Duration) {
        let mut learnt = self.lock();
        learnt.computed += blocks as u64;
        note(&mut learnt.prefill, tokens, time);
    }

    /// Notes that blocks were scored, with so many tokens of queries.
    pub(crate) fn scored(&self, blocks: usize, tokens: u64, time: Duration) {
        let mut learnt = self.lock();
        learnt.loaded += blocks as u64;
        note(&mut learnt.query, tokens, time);
    }
}

fn note(rate: &mut Option<f64>, tokens: u64, time: Duration) {
    let now = tokens as f64 / time.as_secs_f64().max(1e-6);
    *rate = Some(rate.map_or(now, |rate| KEPT * rate + (1.0 - KEPT) * now));
}

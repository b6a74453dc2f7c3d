//! Health of an object store. In: how requests ended. Out: leave to send another, or the reason why the place is
//! left alone. It sends nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyperrag_core::TierError;

use crate::breaker::Breaker;

/// Longest time for which a place that fails is left alone.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Shortest wait in vain that counts against the place. A shorter one says more of who waits.
const TELLING: Duration = Duration::from_secs(1);

/// Failures of a place. Each block of a place that is gone would wait out its own retries otherwise.
#[derive(Clone, Debug)]
pub(super) struct Health(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    breaker: Breaker,
    why: Option<TierError>,
}

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { breaker: Breaker::new(PAUSE_MAX), why: None })))
    }
}

impl Health {
    /// Locks. A panic of another thread does not matter: every change is one step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives leave for a request.
    ///
    /// # Errors
    /// The last failure, while the place is left alone.
    pub(super) fn leave(&self) -> Result<Trial, TierError> {
        let mut state = self.lock();
        match (state.breaker.allows(Instant::now()), &state.why) {
            (false, Some(why)) => Err(why.clone()),
            _ => Ok(Trial { health: self.clone(), told: false }),
        }
    }
}

/// A request that has leave. One that ends untold says nothing of the place.
pub(super) struct Trial {
    health: Health,
    told: bool,
}

impl Trial {
    /// Notes that the place answers.
    pub(super) fn succeeded(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            self.health.lock().breaker.succeeded();
        }
    }

    /// Notes how the request failed. A wrong answer is an answer.
    pub(super) fn failed(&mut self, why: &TierError) {
        match why {
            TierError::Timeout(waited) if *waited < TELLING => return,
            TierError::Timeout(_) | TierError::Unreachable(_) => {}
            _ => return self.succeeded(),
        }
        if !std::mem::replace(&mut self.told, true) {
            let mut state = self.health.lock();
            state.breaker.failed(Instant::now());
            state.why = Some(why.clone());
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if !self.told {
            self.health.lock().breaker.given_up();
        }
    }
}

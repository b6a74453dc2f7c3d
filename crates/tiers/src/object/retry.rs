//! Second tries of requests. In: a request, a time, errors. Out: its result, or the last error. Knows no object.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use hyperrag_core::TierError;
use tokio::time::{Instant, sleep, timeout};

use super::http::Failure;

/// Most tries of a request.
const TRIES: u32 = 8;
/// First pause, in milliseconds; it doubles.
const PAUSE_MS: u64 = 20;
/// Longest pause, in milliseconds.
const PAUSE_MAX_MS: u64 = 1000;

/// Pauses between tries, with jitter.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// Waits before another try.
    ///
    /// # Errors
    /// `error` if there were too many tries, or if there is no time for another before `until`.
    pub(super) async fn pause<E>(&mut self, error: E, until: Option<Instant>) -> Result<(), E> {
        self.tries += 1;
        let full = (PAUSE_MS << self.tries.min(16)).min(PAUSE_MAX_MS);
        let pause = Duration::from_millis(full / 2 + random() % (full / 2 + 1));
        if self.tries >= TRIES || until.is_some_and(|until| Instant::now() + pause >= until) {
            return Err(error);
        }
        sleep(pause).await;
        Ok(())
    }
}

/// Runs a request that may be repeated, until it succeeds or fails for good. A try lasts at most `patience`.
///
/// # Errors
/// [`Failure`] of the last try.
pub(super) async fn repeated<T, E, R>(
    patience: Duration,
    mut request: impl FnMut() -> R,
) -> Result<T, Failure>
where
    E: Into<Failure>,
    R: Future<Output = Result<T, E>>,
{
    let mut backoff = Backoff::default();
    loop {
        let failure = match timeout(patience, request()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error.into(),
            Err(_) => Failure::Tier(TierError::Timeout(patience)),
        };
        match failure {
            Failure::Tier(error) if error.is_retryable() => backoff.pause(error, None).await?,
            failure => return Err(failure),
        }
    }
}

/// Returns a number that is hard to guess and differs from call to call.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

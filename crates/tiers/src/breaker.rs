//! Breaker of a place that fails: after some failures it is left alone, and asked again after a pause.
//!
//! In: successes and failures with their times. Out: whether the place may be asked. It knows no network.

use std::time::{Duration, Instant};

/// Failures in a row that open a breaker.
const IN_ROW: u32 = 3;
/// Results among which more than half must be failures to open a breaker.
const RECENT: u32 = 20;
/// First pause.
const PAUSE: Duration = Duration::from_millis(500);

/// Counts the failures of one place.
#[derive(Debug)]
pub struct Breaker {
    in_row: u32,
    /// Results as bits, the latest lowest; 1 is a failure.
    recent: u32,
    results: u32,
    pause: Duration,
    pause_max: Duration,
    open_until: Option<Instant>,
    probed: bool,
}

impl Breaker {
    /// Makes a closed breaker whose pauses double up to `pause_max`.
    #[must_use]
    pub fn new(pause_max: Duration) -> Self {
        Self {
            in_row: 0,
            recent: 0,
            results: 0,
            pause: PAUSE.min(pause_max),
            pause_max,
            open_until: None,
            probed: false,
        }
    }

    /// Whether the breaker is open, also while its one probe is under way.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open_until.is_some()
    }

    /// Whether the place may be asked at `now`. After a pause this is true once, for a probe, until the
    /// probe's result is told.
    pub fn allows(&mut self, now: Instant) -> bool {
        match self.open_until {
            None => true,
            Some(until) if now >= until && !self.probed => {
                self.probed = true;
                true
            }
            Some(_) => false,
        }
    }

    /// Returns the time from `now` to the next probe; zero if there is no pause.
    #[must_use]
    pub fn pause_left(&self, now: Instant) -> Duration {
        self.open_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Notes a success, which closes the breaker.
    pub fn succeeded(&mut self) {
        if self.open_until.take().is_some() {
            (self.recent, self.results) = (0, 0);
            self.pause = PAUSE.min(self.pause_max);
        }
        self.in_row = 0;
        self.probed = false;
        self.note(0);
    }

    /// Notes a failure at `now`. A failed probe doubles the pause.
    pub fn failed(&mut self, now: Instant) {
        self.in_row = self.in_row.saturating_add(1);
        self.note(1);
        if self.open_until.is_some() {
            if self.probed {
                self.pause = (self.pause * 2).min(self.pause_max);
                self.open_until = Some(now + self.pause);
                self.probed = false;
            }
        } else if self.in_row >= IN_ROW
            || (self.results >= RECENT && self.recent.count_ones() > RECENT / 2)
        {
            self.open_until = Some(now + self.pause);
            self.probed = false;
        }
    }

    /// Notes that a request ended without telling anything. If it was the probe, another may follow.
    pub fn given_up(&mut self) {
        self.probed = false;
    }

    fn note(&mut self, failed: u32) {
        self.recent = ((self.recent << 1) | failed) & ((1 << RECENT) - 1);
        self.results = (self.results + 1).min(RECENT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_open_it_and_one_probe_closes_it() {
        let start = Instant::now();
        let mut breaker = Breaker::new(Duration::from_secs(30));
        for _ in 0..2 {
            breaker.failed(start);
        }
        breaker.succeeded();
        for _ in 0..2 {
            breaker.failed(start);
            assert!(breaker.allows(start));
        }
        breaker.failed(start);
        assert!(breaker.is_open() && !breaker.allows(start + PAUSE - Duration::from_millis(1)));
        assert!(breaker.allows(start + PAUSE));
        assert!(!breaker.allows(start + PAUSE), "a second probe");
        breaker.given_up();
        assert!(breaker.allows(start + PAUSE), "a probe that told nothing is the last one");
        breaker.succeeded();
        assert!(!breaker.is_open() && breaker.allows(start));
    }

    #[test]
    fn more_than_half_of_twenty_open_it() {
        let start = Instant::now();
        let mut breaker = Breaker::new(Duration::from_secs(30));
        for n in 0..20 {
            assert!(!breaker.is_open(), "opened after {n} results");
            // Two failures and a success: never three in a row.
            if n % 3 == 2 {
                breaker.succeeded();
            } else {
                breaker.failed(start);
            }
        }
        assert!(breaker.is_open());
    }

    #[test]
    fn failed_probes_double_the_pause_up_to_the_most() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(Duration::from_secs(30));
        for _ in 0..3 {
            breaker.failed(now);
        }
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let pause = breaker.pause_left(now);
            pauses.push(pause.as_millis());
            now += pause;
            assert!(breaker.allows(now));
            // A late failure of an earlier request neither doubles nor ends anything twice.
            breaker.failed(now);
            breaker.failed(now);
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
    }
}

//! A sink that keeps answers. In: answers. Out: the answers, once they are there; a panic for a second answer.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use hyperrag_core::{Answer, FetchSink};

pub(crate) struct Sink {
    answers: Mutex<Vec<Option<Answer>>>,
    twice: Mutex<bool>,
    came: Condvar,
}

impl Sink {
    pub(crate) fn new(pieces: usize) -> Arc<Self> {
        let answers = Mutex::new(vec![None; pieces]);
        Arc::new(Self { answers, twice: Mutex::new(false), came: Condvar::new() })
    }

    /// Waits for the first `n` answers and returns them.
    pub(crate) fn wait(&self, n: usize) -> Vec<Answer> {
        let answers = self.answers.lock().unwrap();
        let wait = |answers: &mut Vec<Option<Answer>>| answers[..n].iter().any(Option::is_none);
        let (answers, late) =
            self.came.wait_timeout_while(answers, Duration::from_secs(120), wait).unwrap();
        assert!(!late.timed_out(), "a piece was not answered");
        assert!(!*self.twice.lock().unwrap(), "a piece was answered twice");
        answers[..n].iter().flatten().cloned().collect()
    }

    pub(crate) fn delivered(&self) -> usize {
        self.answers.lock().unwrap().iter().flatten().count()
    }
}

impl FetchSink for Sink {
    fn deliver(&self, n: usize, answer: Answer) {
        let mut answers = self.answers.lock().unwrap();
        *self.twice.lock().unwrap() |= answers[n].is_some();
        answers[n] = Some(answer);
        self.came.notify_all();
    }
}

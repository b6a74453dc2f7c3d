//! Catches panics of libraries and turns them into errors.
//!
//! In: work that may panic inside a library because of what a file says. Out: its result, or the text of the
//! panic. It does not know what the work leaves behind.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// Number of guards that this thread is in.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// A panic that [`guarded`] caught, by its text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CaughtPanic(pub String);

/// Runs `work` on this thread and catches its panic. After one, nothing that `work` was changing may be used.
///
/// # Errors
/// The caught panic.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, CaughtPanic> {
    let depth = DEPTH.replace(DEPTH.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(work));
    DEPTH.set(depth);
    result.map_err(|panic| CaughtPanic(panic_text(&*panic).to_owned()))
}

/// Whether a panic of this thread becomes an error in [`guarded`]. A panic hook is silent then.
#[must_use]
pub fn is_guarded() -> bool {
    DEPTH.get() > 0
}

/// Returns the text of a panic.
#[must_use]
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown cause")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_text() {
        assert_eq!(guarded(|| 3), Ok(3));
        let number = 7;
        let caught = |text: &str| Err(CaughtPanic(text.to_owned()));
        assert_eq!(guarded(|| -> () { panic!("row {number}") }), caught("row 7"));
        assert_eq!(guarded(|| -> () { panic!("plain") }), caught("plain"));
        assert_eq!(guarded(|| -> () { std::panic::panic_any(number) }), caught("unknown cause"));
    }

    #[test]
    fn a_guard_is_seen_by_its_thread_alone() {
        assert!(!is_guarded());
        let seen = guarded(|| {
            let inner = guarded(|| -> () { panic!("inner") });
            let elsewhere = std::thread::spawn(is_guarded).join().unwrap();
            (inner.is_err(), is_guarded(), elsewhere)
        });
        assert_eq!(seen, Ok((true, true, false)));
        assert!(!is_guarded());
    }
}

//! Signals that ask the program to stop, and the one that a file too large sends.

use std::fs;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

use crate::exit::Status;

/// Returns a flag that SIGINT, SIGTERM and SIGHUP set. A second signal ends the process at once. One
/// that was ignored when the program started, as SIGHUP under nohup, stays ignored.
pub(crate) fn stop() -> Result<&'static AtomicBool> {
    static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    if let Some(stop) = STOP.get() {
        return Ok(stop);
    }
    let stop = STOP.get_or_init(Arc::default);
    let ignored = ignored();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        if ignored & (1 << (signal - 1)) == 0 {
            // In this order the first signal finds the flag not yet set.
            flag::register_conditional_shutdown(
                signal,
                Status::Interrupted as i32,
                Arc::clone(stop),
            )
            .and_then(|_| flag::register(signal, Arc::clone(stop)))
            .context("the signal handler cannot be set")?;
        }
    }
    Ok(stop)
}

/// Has a write beyond the limit on the size of files (`ulimit -f`) fail with an error, which names the file.
/// Unheeded, the signal would end the process without a word.
pub(crate) fn heed_file_size() -> Result<()> {
    flag::register(SIGXFSZ, Arc::default()).context("the signal handler cannot be set")?;
    Ok(())
}

/// Signals that are ignored, signal n as bit n - 1 (proc(5)); none where there is no such file.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

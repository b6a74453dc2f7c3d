//! Memory of this process, as the system tells it (proc(5)).

use std::fs;

/// The most memory this process has held since the start or the last reset, in bytes; `None` where
/// the system does not say (`VmHWM` of `/proc/self/status`).
#[must_use]
pub fn peak_memory_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Starts the peak again from what is held now; where the system refuses, the peak stays.
pub(crate) fn reset_peak_memory() {
    // 5 resets the peak (proc(5), clear_refs).
    let _ = fs::write("/proc/self/clear_refs", "5");
}

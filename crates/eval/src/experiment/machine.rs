//! Figures of this process and machine, as the system tells them (proc(5)).

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

/// Returns the name of the CPU, or of its architecture.
#[must_use]
pub fn cpu_name() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// Returns ticks stolen by other machines, and all ticks (/proc/stat); `None` where the system does
/// not say.
#[must_use]
pub fn cpu_times() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let ticks = stat.lines().next()?.split_whitespace().skip(1).map(str::parse::<f64>);
    let ticks = ticks.collect::<Result<Vec<_>, _>>().ok()?;
    Some((*ticks.get(7)?, ticks.iter().take(8).sum()))
}

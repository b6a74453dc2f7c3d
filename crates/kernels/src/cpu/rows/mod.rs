//! Operations on rows: norms, sums, rotations, rounding, and the bytes of stored rows.

mod dispatch;
pub mod format;
pub(crate) mod generic;
pub mod hadamard;
mod kv_int8;
pub mod log_sum;
#[cfg(target_arch = "x86_64")]
pub(crate) mod rms_norm;

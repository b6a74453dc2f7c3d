//! Two kernels whose scores agree within a tolerance: their names come in, a sentence for people goes out. It
//! compares nothing itself.

use std::fmt::{self, Display};

/// Two kernels whose scores agree, but not to the bit.
#[derive(Clone, Debug, PartialEq)]
pub struct OtherKernel {
    /// Made the store.
    pub stored: String,
    /// Reads it.
    pub current: String,
    /// Largest difference of scores; `None` where none is promised.
    pub tolerance: Option<f32>,
}

impl Display for OtherKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stored, current, tolerance } = self;
        write!(f, "the store was computed by {stored} and is read by {current}: scores agree ")?;
        match tolerance {
            Some(tolerance) => write!(f, "within {tolerance}, not to the bit"),
            None => write!(f, "nearly, not to the bit"),
        }
    }
}

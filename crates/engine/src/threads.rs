//! The threads that all crates share for what is not the model's work.

use crate::error::EngineError;

/// Starts them. Else they are started where they are first needed, and it is a panic where the system
/// starts none.
///
/// # Errors
/// [`EngineError::Threads`].
pub fn start_threads() -> Result<(), EngineError> {
    let started = rayon::ThreadPoolBuilder::new().build_global();
    started.map_err(|error| EngineError::Threads(error.to_string()))
}

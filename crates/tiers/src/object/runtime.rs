//! The thread that talks to object stores. In: futures. Out: their results, to threads that wait. Knows no
//! object and no tier.

use std::future::Future;
use std::sync::OnceLock;
use std::sync::mpsc::sync_channel;

use hyperrag_core::TierError;
use tokio::runtime::{Builder, Handle};

/// Starts the one thread at its first use, and returns the way to it.
///
/// # Errors
/// [`TierError::Refused`] if the system gives no thread.
pub(super) fn handle() -> Result<Handle, TierError> {
    static THREAD: OnceLock<Result<Handle, String>> = OnceLock::new();
    THREAD.get_or_init(start).clone().map_err(TierError::Refused)
}

fn start() -> Result<Handle, String> {
    let failed = |error: std::io::Error| format!("no thread for the network: {error}");
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let handle = runtime.handle().clone();
    let forever = move || runtime.block_on(std::future::pending::<()>());
    std::thread::Builder::new().name("objects".to_owned()).spawn(forever).map_err(failed)?;
    Ok(handle)
}

/// Runs a future on the thread and waits for its result. The thread itself must not call it.
///
/// # Errors
/// [`TierError::Unreachable`] if the future panicked.
pub(super) fn wait<T: Send + 'static>(
    handle: &Handle,
    future: impl Future<Output = Result<T, TierError>> + Send + 'static,
) -> Result<T, TierError> {
    let (sender, receiver) = sync_channel(1);
    handle.spawn(async move {
        let _ = sender.send(future.await);
    });
    receiver.recv().unwrap_or_else(|_| Err(stopped()))
}

/// Returns the error of a request whose task ended without an answer.
pub(super) fn stopped() -> TierError {
    TierError::Unreachable("the request was stopped by a fault of the program".to_owned())
}

//! The list of a store's replicas: folders come in, checksummed bytes go out, and back. It opens no file.

use std::path::PathBuf;

use crate::format::envelope::{self, Envelope};

/// Largest list, in bytes: thousands of paths.
pub(crate) const BYTES_MAX: u64 = 16 << 20;

/// Name of the list in its envelope.
const ENVELOPE: &str = "replicas";

/// Parses a list. Its checksum is checked first.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<PathBuf>, String> {
    let no_list = |error| format!("no list of replicas: {error}");
    let envelope = Envelope::parse(ENVELOPE, bytes).map_err(no_list)?;
    serde_json::from_str(envelope.checked()?).map_err(no_list)
}

/// Returns the bytes of a list. The paths are UTF-8.
pub(crate) fn encode(all: &[PathBuf]) -> Vec<u8> {
    envelope::encode(ENVELOPE, &serde_json::to_string(all).expect("paths are UTF-8"))
}

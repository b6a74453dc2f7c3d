//! Reads, checks and writes the calibration file of a store. Out: the calibration, or its damage. Knows
//! nothing of how it is measured.

use std::path::Path;

use hyperrag_core::{Calibration, Digest};

use crate::damage::Damage;
use crate::error::StoreError;
use crate::format::paths::StorePaths;
use crate::local::durable::write_whole;
use crate::local::open::read_plain;
use crate::local::reader::Store;
use crate::read_error::ReadError;

/// Largest calibration file that is read without a fingerprint, in bytes.
const BYTES_MAX: u64 = 1 << 30;

impl Store {
    /// Reads the calibration, if the element type needs one.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the file is not what was written.
    pub fn calibration(&self) -> Result<Option<Calibration>, StoreError> {
        let fingerprint = &self.manifest.fingerprint;
        let Some(digest) = fingerprint.calibration else { return Ok(None) };
        let path = self.paths.calibration();
        let max = Calibration::bytes_max(&fingerprint.kv_shape, fingerprint.chunk_tokens);
        let read = || -> Result<Calibration, ReadError> {
            let bytes = read_plain(&path, max)?;
            if Digest::of(&bytes) != digest {
                return Err("its digest is not the one that the fingerprint names"
                    .to_owned()
                    .into());
            }
            let calibration = Calibration::from_bytes(&bytes).map_err(|error| error.to_string())?;
            match calibration.fits(&fingerprint.kv_shape) {
                true => Ok(calibration),
                false => Err("it is that of another model's sizes".to_owned().into()),
            }
        };
        read().map(Some).map_err(|fault| fault.of_file(&path))
    }

    /// Reads the calibration file at `root`; `None` if it is no calibration. Only its digest in the
    /// fingerprint tells whether it is the store's.
    #[must_use]
    pub fn calibration_at(root: &Path) -> Option<Calibration> {
        let path = StorePaths::new(root).calibration();
        Calibration::from_bytes(&read_plain(&path, BYTES_MAX).ok()?).ok()
    }

    /// Checks the calibration and returns its damage.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the system refuses the file.
    pub fn verify_calibration(&self) -> Result<Option<Damage>, StoreError> {
        match self.calibration() {
            Ok(_) => Ok(None),
            Err(error) if error.is_refusal() => Err(error),
            Err(error) => Ok(Some(Damage::from_error(&self.paths.root, &error))),
        }
    }
}

/// Writes a calibration to `path`.
pub(crate) fn write(path: &Path, calibration: &Calibration) -> Result<(), StoreError> {
    write_whole(path, &calibration.to_bytes())
}

use std::path::Path;

use hyperrag_kv::{Calibration, Digest};

use crate::fault::Fault;
use crate::files::{Files, write_whole};
use crate::open::read_plain;
use crate::{Damage, Store, StoreError};

/// Bytes of a calibration that are read without knowing whose it is.
const BYTES_MAX: u64 = 1 << 30;

impl Store {
    /// The calibration that the store's elements need, if they do.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where the file is not what was written.
    pub fn calibration(&self) -> Result<Option<Calibration>, StoreError> {
        let fingerprint = &self.manifest.fingerprint;
        let Some(digest) = fingerprint.calibration else { return Ok(None) };
        let path = self.files.calibration();
        let max = Calibration::bytes_max(&fingerprint.geometry, fingerprint.chunk_tokens);
        let read = || -> Result<Calibration, Fault> {
            let bytes = read_plain(&path, max)?;
            if Digest::of(&bytes) != digest {
                return Err("its digest is not the one that the fingerprint names"
                    .to_owned()
                    .into());
            }
            let calibration = Calibration::from_bytes(&bytes)?;
            match calibration.fits(&fingerprint.geometry) {
                true => Ok(calibration),
                false => Err("it is that of another model's sizes".to_owned().into()),
            }
        };
        read().map(Some).map_err(|fault| fault.of_file(&path))
    }

    /// What is wrong with the calibration.
    ///
    /// # Errors
    /// [`StoreError::Io`] where the system refuses the file.
    pub fn verify_calibration(&self) -> Result<Option<Damage>, StoreError> {
        match self.calibration() {
            Ok(_) => Ok(None),
            Err(error) if error.is_refusal() => Err(error),
            Err(error) => Ok(Some(Damage::from_error(&self.files.root, &error))),
        }
    }
}

/// What stands in the calibration's file at `root`, if it is one: whether it is the store's, its
/// digest in the fingerprint says.
#[must_use]
pub fn calibration_at(root: &Path) -> Option<Calibration> {
    let path = Files { root: root.to_owned() }.calibration();
    Calibration::from_bytes(&read_plain(&path, BYTES_MAX).ok()?).ok()
}

/// Writes the calibration of the store at `root`.
pub(crate) fn write(path: &Path, calibration: &Calibration) -> Result<(), StoreError> {
    write_whole(path, &calibration.to_bytes())
}

//! The choice of a device by the user, and the device that it leads to.
//!
//! In: `cpu`, `cuda`, `cuda:N` or `auto`. Out: an opened GPU, or the CPU. It does not know models.

use std::fmt;
use std::str::FromStr;

use hyperrag_core::{KvDtype, Warning};
use hyperrag_kernels::dtype::ComputeDtype;
use serde::Serialize;

use crate::backend::candle::device::Device;
use crate::error::LoadError;

/// Device that computes, as the user chose it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The GPU if the driver and the libraries answer, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

/// A string that names no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown device {0:?}: use cpu, cuda, cuda:N or auto")]
pub struct UnknownDevice(String);

impl FromStr for DeviceChoice {
    type Err = UnknownDevice;

    fn from_str(name: &str) -> Result<Self, UnknownDevice> {
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => name
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| UnknownDevice(name.to_owned())),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// Settings for the layout of a model on a device.
#[derive(Clone, Copy, Debug)]
pub struct DeviceSettings {
    /// Type of weights and products.
    pub dtype: ComputeDtype,
    /// Type to which K and V are rounded.
    pub kv_dtype: KvDtype,
    /// Number of positions to which every block is padded: that of the longest chunk.
    pub block_positions: usize,
    /// Memory for activations and batches, in bytes; `None` takes a share of the device's free memory.
    pub memory_bytes: Option<usize>,
    /// Receives a warning when a batch had to be made smaller for lack of memory.
    pub warn: fn(&Warning),
}

/// Facts about a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceInfo {
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// The maker's name of the device, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Size of the device's own memory in bytes, if it has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// The newest CUDA version that the driver serves, e.g. `13.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
}

impl DeviceInfo {
    pub(crate) fn cpu() -> Self {
        Self { device: "cpu".to_owned(), name: None, memory_bytes: None, driver: None }
    }

    /// Returns the device to which `choice` leads on this machine, without loading a model.
    ///
    /// # Errors
    /// [`LoadError::Device`] if a GPU was requested and there is none.
    pub fn of(choice: DeviceChoice) -> Result<Self, LoadError> {
        Ok(open(choice, |_| ())?.map_or_else(Self::cpu, |(_, info)| info))
    }
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} ({name})", self.device),
            None => f.write_str(&self.device),
        }
    }
}

/// Opens the GPU to which `choice` leads; `None` stands for the CPU. `warn` gets a warning about a
/// GPU that is there but cannot be used.
pub(crate) fn open(
    choice: DeviceChoice,
    warn: fn(&Warning),
) -> Result<Option<(Device, DeviceInfo)>, LoadError> {
    let failed =
        |number: usize, what: String| LoadError::Device { device: format!("cuda:{number}"), what };
    match choice {
        DeviceChoice::Cpu => Ok(None),
        DeviceChoice::Cuda(number) => match open_cuda(number) {
            Ok(opened) => Ok(Some(opened)),
            Err(NoGpu::Absent(what) | NoGpu::Unusable(what)) => Err(failed(number, what)),
        },
        DeviceChoice::Auto => match open_cuda(0) {
            Ok(opened) => Ok(Some(opened)),
            Err(NoGpu::Absent(_)) => Ok(None),
            Err(NoGpu::Unusable(what)) => {
                warn(&format!("{}; the CPU computes instead", failed(0, what)).into());
                Ok(None)
            }
        },
    }
}

/// Reason why a GPU was not opened.
enum NoGpu {
    /// No such GPU, no driver, or no code for one.
    Absent(String),
    /// Something other than the GPU is missing.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "nothing else is looked for"))]
    Unusable(String),
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(_: usize) -> Result<(Device, DeviceInfo), NoGpu> {
    let what = "this program was built without CUDA (`make cuda` makes one with it)";
    Err(NoGpu::Absent(what.to_owned()))
}

#[cfg(feature = "cuda")]
fn open_cuda(number: usize) -> Result<(Device, DeviceInfo), NoGpu> {
    use candle_core::cuda_backend::cudarc::driver::CudaContext;
    let context = CudaContext::new(number).map_err(|error| no_context(number, &error))?;
    let version = driver_version();
    let info = DeviceInfo {
        device: format!("cuda:{number}"),
        name: context.name().ok(),
        memory_bytes: context.total_mem().ok().map(|bytes| bytes as u64),
        driver: (version > 0).then(|| format!("{}.{}", version / 1000, version % 1000 / 10)),
    };
    // A stream of its own: copies may run beside it, and a graph can capture it.
    let device = Device::new_cuda_with_stream(number).map_err(|error| {
        NoGpu::Unusable(format!(
            "{}: its CUDA libraries (cublas, curand) must be found, see LD_LIBRARY_PATH",
            super::transfer::first_line(&error)
        ))
    })?;
    // Products in f32 (attention, LM head) have factors of 8 bits, or need no more than TF32's 11.
    candle_core::cuda_backend::set_gemm_reduced_precision_f32(true);
    Ok((device, info))
}

/// Returns 1000 times the major version plus 10 times the minor; 0 if the driver does not say.
#[cfg(feature = "cuda")]
fn driver_version() -> i32 {
    let mut version = 0;
    #[expect(unsafe_code, reason = "a function of the driver that has no wrapper")]
    // SAFETY: it writes one int, and needs no context.
    let answer = unsafe {
        candle_core::cuda_backend::cudarc::driver::sys::cuDriverGetVersion(&raw mut version)
    };
    answer.result().map_or(0, |()| version)
}

#[cfg(feature = "cuda")]
fn no_context(
    number: usize,
    error: &candle_core::cuda_backend::cudarc::driver::DriverError,
) -> NoGpu {
    use candle_core::cuda_backend::cudarc::driver::sys::CUresult;
    match error.0 {
        // The link-time stand-in of the driver answers so if there is no driver.
        CUresult::CUDA_ERROR_STUB_LIBRARY => NoGpu::Absent("no CUDA driver was found".to_owned()),
        CUresult::CUDA_ERROR_NO_DEVICE => NoGpu::Absent("the driver finds no GPU".to_owned()),
        CUresult::CUDA_ERROR_INVALID_DEVICE => {
            NoGpu::Absent(format!("there is no GPU number {number}"))
        }
        other => NoGpu::Unusable(format!("the driver answers {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for choice in [DeviceChoice::Auto, DeviceChoice::Cpu, DeviceChoice::Cuda(3)] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for wrong in ["gpu", "cuda:", "cuda:x", "cuda:-1", ""] {
            assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong}");
        }
    }
}

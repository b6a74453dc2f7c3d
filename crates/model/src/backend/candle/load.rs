//! Puts the weights of a model on a device.
//!
//! In: a model file, or sizes alone. Out: a [`DeviceModel`]. It does not compute.

use candle_core::{DType, Device, Tensor};
use hyperrag_core::{Hint, KvDtype};
use hyperrag_kernels::dtype::ComputeDtype;

use crate::arch::config::Config;
use crate::arch::rope::Rope;
use crate::arch::weights::{TensorRows, WeightSource, Weights};
use crate::backend::candle::batch::Batching;
use crate::backend::candle::choice::{DeviceChoice, DeviceInfo, DeviceSettings, open};
use crate::backend::candle::decoder::{Angles, DeviceModel};
use crate::backend::candle::transfer::{Transfer, first_line};
use crate::error::LoadError;
use crate::format::model_file::ModelFile;

/// Source of weights from a file.
struct FileSource<'a> {
    file: &'a mut ModelFile,
    device: &'a Device,
    dtype: DType,
}

impl WeightSource for FileSource<'_> {
    type Matrix = Tensor;
    type Vector = Tensor;

    fn has(&self, name: &str) -> bool {
        self.file.has(name)
    }

    fn pairs_halves(&self) -> bool {
        self.file.pairs_halves()
    }

    fn matrix(&mut self, parts: Vec<TensorRows>, inputs: usize) -> Result<Tensor, LoadError> {
        let values = self.file.values_of(&parts, Some(inputs))?;
        // Converted on the host, so that half as much goes over the bus.
        let placed = Tensor::from_vec(values, (rows(&parts), inputs), &Device::Cpu)
            .and_then(|t| t.to_dtype(self.dtype)?.to_device(self.device));
        placed.map_err(|error| failed(&error))
    }

    fn vector_times(&mut self, parts: Vec<TensorRows>, times: f32) -> Result<Tensor, LoadError> {
        let mut values = self.file.values_of(&parts, None)?;
        values.iter_mut().for_each(|value| *value *= times);
        Tensor::from_vec(values, rows(&parts), self.device).map_err(|error| failed(&error))
    }
}

fn rows(parts: &[TensorRows]) -> usize {
    parts.iter().map(|part| part.rows).sum()
}

/// Source of random weights from the device, for figures that do not depend on their values.
struct RandomSource<'a> {
    device: &'a Device,
    dtype: DType,
}

impl WeightSource for RandomSource<'_> {
    type Matrix = Tensor;
    type Vector = Tensor;

    fn has(&self, _: &str) -> bool {
        false
    }

    fn pairs_halves(&self) -> bool {
        false
    }

    fn matrix(&mut self, parts: Vec<TensorRows>, inputs: usize) -> Result<Tensor, LoadError> {
        let deviation = (1.0 / inputs as f32).sqrt();
        Tensor::randn(0.0, deviation, (rows(&parts), inputs), self.device)
            .and_then(|t| t.to_dtype(self.dtype))
            .map_err(|error| failed(&error))
    }

    fn vector_times(&mut self, parts: Vec<TensorRows>, _: f32) -> Result<Tensor, LoadError> {
        Tensor::ones(rows(&parts), DType::F32, self.device).map_err(|error| failed(&error))
    }
}

/// Returns candle's name of the type.
fn tensor_dtype(dtype: ComputeDtype) -> Result<DType, LoadError> {
    match dtype {
        ComputeDtype::F16 => Ok(DType::F16),
        ComputeDtype::Bf16 => Ok(DType::BF16),
        ComputeDtype::F32 => Ok(DType::F32),
        ComputeDtype::Int8 => {
            let hint = Hint::UseDtype("f16, bf16 or f32");
            Err(LoadError::UnsupportedChoice { choice: "int8 on a GPU".to_owned(), hint })
        }
    }
}

/// Refuses layers that differ in the sizes of K and V: the device computes with one size.
fn refuse_mixed(config: &Config) -> Result<(), LoadError> {
    match config.mixed {
        Some(_) => {
            let choice = format!("a {} on a GPU", config.architecture);
            Err(LoadError::UnsupportedChoice { choice, hint: Hint::UseCpu })
        }
        None => Ok(()),
    }
}

fn failed(error: &candle_core::Error) -> LoadError {
    LoadError::Device { device: "the device".to_owned(), what: first_line(error) }
}

impl DeviceModel {
    /// Reads the weights and moves them to the device to which `choice` leads; for the CPU that is
    /// candle's CPU device.
    ///
    /// # Errors
    /// [`LoadError`] for tensors that are missing or differ from the metadata, for int8, or for lack of
    /// memory.
    pub fn load(
        file: &mut ModelFile,
        choice: DeviceChoice,
        settings: DeviceSettings,
    ) -> Result<(Self, DeviceInfo), LoadError> {
        let (device, info) =
            open(choice, settings.warn)?.unwrap_or((Device::Cpu, DeviceInfo::cpu()));
        Ok((Self::load_on(file, &device, settings)?, info))
    }

    pub(crate) fn load_on(
        file: &mut ModelFile,
        device: &Device,
        settings: DeviceSettings,
    ) -> Result<Self, LoadError> {
        let config = file.config().clone();
        refuse_mixed(&config)?;
        let dtype = tensor_dtype(settings.dtype)?;
        let weights = Weights::read(&config, &mut FileSource { file, device, dtype })?;
        Self::new(config, weights, device, settings)
    }

    /// Makes a model of these sizes with random weights, see [`DeviceModel::load`].
    ///
    /// # Errors
    /// [`LoadError::Device`] for lack of memory, [`LoadError::UnsupportedChoice`] for int8.
    pub fn random(
        config: Config,
        choice: DeviceChoice,
        settings: DeviceSettings,
    ) -> Result<(Self, DeviceInfo), LoadError> {
        let (device, info) =
            open(choice, settings.warn)?.unwrap_or((Device::Cpu, DeviceInfo::cpu()));
        refuse_mixed(&config)?;
        let dtype = tensor_dtype(settings.dtype)?;
        let weights = Weights::read(&config, &mut RandomSource { device: &device, dtype })?;
        Ok((Self::new(config, weights, &device, settings)?, info))
    }

    fn new(
        config: Config,
        weights: Weights<Tensor, Tensor>,
        device: &Device,
        settings: DeviceSettings,
    ) -> Result<Self, LoadError> {
        let stored = match settings.kv_dtype {
            KvDtype::Bf16 => DType::BF16,
            KvDtype::F32 => DType::F32,
            kv_dtype @ (KvDtype::Int8 | KvDtype::Int5 | KvDtype::Int4) => {
                let choice = format!("K and V in {kv_dtype} on a GPU");
                return Err(LoadError::UnsupportedChoice { choice, hint: Hint::UseCpu });
            }
        };
        let angles = |rope: &Rope| -> candle_core::Result<Angles> {
            let (rotary, dim) = (config.rotary_dim, config.head_dim);
            let rotations = rope.rotations(config.context, rotary, dim);
            let (cos, sin) = rotations.tables();
            let shape = (config.context, config.head_dim / 2);
            let place = |values| Tensor::from_vec(values, shape, device);
            let factor = rope.attention_factor.powi(2);
            let factors = (0..dim).map(|i| if i < rotary { factor } else { 1.0 });
            let factors = Tensor::from_iter(factors, device)?;
            let query_factors = (factor != 1.0).then_some(factors);
            Ok(Angles { cos: place(cos)?, sin: place(sin)?, query_factors })
        };
        let local = config.window.as_ref().map(|_| &config.local_rope);
        let angles: candle_core::Result<_> =
            [&config.rope].into_iter().chain(local).map(angles).collect();
        let kv_shape = config.kv_shape(settings.kv_dtype);
        Ok(Self {
            dtype: settings.dtype,
            kv_dtype: stored,
            angles: angles.map_err(|error| failed(&error))?,
            batching: Batching::new(&config, &kv_shape, settings, device),
            transfer: Transfer::new(),
            block_positions: settings.block_positions,
            device: device.clone(),
            kv_shape,
            config,
            weights,
        })
    }
}

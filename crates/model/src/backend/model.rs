//! One model behind one type, on the CPU or on a GPU.
//!
//! In: an opened model file and settings. Out: blocks and scores, through [`LanguageModel`]. It does
//! not know how either device computes.

use std::sync::Arc;

use hyperrag_core::{
    BlockError, Calibration, Chunk, FixedPositions, Hint, KvBlock, KvDtype, KvShape, LanguageModel,
    LayerSource, ModelError, Pair, Warning,
};
use hyperrag_kernels::isa::Kernel;

use crate::arch::config::Config;
use crate::backend::candle::choice::{DeviceChoice, DeviceInfo, DeviceSettings, open};
use crate::backend::candle::decoder::{DeviceBlock, DeviceModel};
use crate::backend::cpu::model::CpuModel;
use crate::backend::dtype_choice::DtypeChoice;
use crate::error::LoadError;
use crate::format::model_file::ModelFile;

/// Order of the smallest Hadamard matrix that is applied to K and V in few bits.
const HADAMARD_MIN: usize = 8;

/// A model on the CPU or on a GPU.
pub enum Model {
    /// On the CPU.
    Cpu(Box<CpuModel>),
    /// On a GPU.
    Gpu(Box<DeviceModel>, DeviceInfo),
}

/// A block in the memory of the device of a [`Model`].
pub enum ResidentBlock {
    /// Block in the host's memory.
    Cpu(KvBlock),
    /// Block in the GPU's memory.
    Gpu(DeviceBlock),
}

/// Settings that say where and how a model computes.
#[derive(Clone, Debug)]
pub struct LoadSettings {
    /// Device that computes.
    pub device: DeviceChoice,
    /// Type of weights and products.
    pub dtype: DtypeChoice,
    /// Number of threads on the CPU; 0 stands for one a core.
    pub threads: usize,
    /// Type to which K and V are rounded.
    pub kv_dtype: KvDtype,
    /// Calibration, for element types that need one. If it is `None`, the model computes in f32 until
    /// [`Model::calibrated`] adds it.
    pub calibration: Option<Arc<Calibration>>,
    /// Length of the longest chunk, in positions.
    pub chunk_tokens: usize,
    /// Receives warnings for the user while the model loads.
    pub warn: fn(&Warning),
}

impl Model {
    /// Reads the weights of `file` and moves them to the device.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(file: &mut ModelFile, settings: LoadSettings) -> Result<Self, LoadError> {
        let model = Self::load_unchecked(file, settings)?;
        file.check_unchanged()?;
        Ok(model)
    }

    fn load_unchecked(file: &mut ModelFile, settings: LoadSettings) -> Result<Self, LoadError> {
        let LoadSettings { device, dtype, threads, kv_dtype, chunk_tokens, warn, .. } = settings;
        check_heads(kv_dtype, file.config())?;
        match open(device, warn)? {
            None => {
                let computed = if kv_dtype.is_calibrated() { KvDtype::F32 } else { kv_dtype };
                let kernel = Kernel::best();
                let dtype = dtype.on_cpu(kernel);
                let model = CpuModel::load(file, computed, dtype, kernel, threads)?;
                let model = Self::Cpu(Box::new(model));
                match settings.calibration {
                    Some(calibration) => model.calibrated(kv_dtype, calibration),
                    None => Ok(model),
                }
            }
            Some((device, info)) => {
                let (block_positions, memory_bytes) = (chunk_tokens, None);
                let dtype = dtype.on_gpu();
                let settings =
                    DeviceSettings { dtype, kv_dtype, block_positions, memory_bytes, warn };
                Ok(Self::Gpu(Box::new(DeviceModel::load_on(file, &device, settings)?), info))
            }
        }
    }

    /// Computes the calibration of `chunks`, see [`CpuModel::calibrate`].
    ///
    /// # Errors
    /// The errors of [`LanguageModel::prefill`]; [`ModelError::OnCpuOnly`] on a GPU.
    pub fn calibrate(
        &self,
        chunks: &[Chunk],
        fixed: FixedPositions,
    ) -> Result<Calibration, ModelError> {
        match self {
            Self::Cpu(model) => model.calibrate(chunks, fixed),
            Self::Gpu(..) => Err(ModelError::OnCpuOnly { what: "calibration" }),
        }
    }

    /// Returns the model with an element type that needs a calibration.
    ///
    /// # Errors
    /// [`LoadError`] on a GPU, or if the calibration has the sizes of another model.
    pub fn calibrated(
        self,
        kv_dtype: KvDtype,
        calibration: Arc<Calibration>,
    ) -> Result<Self, LoadError> {
        check_heads(kv_dtype, self.config())?;
        match self {
            Self::Cpu(model) if calibration.fits(model.kv_shape()) => {
                Ok(Self::Cpu(Box::new(model.calibrated(kv_dtype, calibration))))
            }
            Self::Cpu(_) => {
                let feature = "a calibration of another model's sizes".to_owned();
                Err(LoadError::Unsupported { feature })
            }
            Self::Gpu(..) => Err(LoadError::UnsupportedChoice {
                choice: format!("K and V in {kv_dtype} on a GPU"),
                hint: Hint::UseCpu,
            }),
        }
    }

    /// Returns a model with the same weights and another element type. `calibration` is required if the
    /// type needs one.
    ///
    /// # Errors
    /// The errors of [`Model::calibrated`].
    pub fn with_kv_dtype(
        &self,
        kv_dtype: KvDtype,
        calibration: Option<Arc<Calibration>>,
    ) -> Result<Self, LoadError> {
        match (self, kv_dtype.is_calibrated(), calibration) {
            (Self::Gpu(..), ..) => Err(LoadError::UnsupportedChoice {
                choice: "several element types on a GPU".to_owned(),
                hint: Hint::UseCpu,
            }),
            (Self::Cpu(model), false, _) => {
                Ok(Self::Cpu(Box::new(CpuModel::clone(model).with_kv_dtype(kv_dtype))))
            }
            (Self::Cpu(model), true, Some(calibration)) => {
                Self::Cpu(model.clone()).calibrated(kv_dtype, calibration)
            }
            (Self::Cpu(_), true, None) => {
                let feature = format!("{kv_dtype} without a calibration");
                Err(LoadError::Unsupported { feature })
            }
        }
    }

    /// Rounds K and V of a block in f32 to this model's element type, see [`CpuModel::requantise`].
    ///
    /// # Errors
    /// [`ModelError`] on a GPU, or for a block of other sizes.
    pub fn requantise(&self, exact: &KvBlock) -> Result<KvBlock, ModelError> {
        match self {
            Self::Cpu(model) => model.requantise(exact),
            Self::Gpu(..) => Err(ModelError::OnCpuOnly { what: "rounding" }),
        }
    }

    /// Returns the sizes of the model.
    #[must_use]
    pub fn config(&self) -> &Config {
        match self {
            Self::Cpu(model) => model.config(),
            Self::Gpu(model, _) => model.config(),
        }
    }

    /// Returns the device that computes.
    #[must_use]
    pub fn device(&self) -> DeviceInfo {
        match self {
            Self::Cpu(_) => DeviceInfo::cpu(),
            Self::Gpu(_, info) => info.clone(),
        }
    }

    /// Returns the identifier of the arithmetic on which the bits of blocks depend.
    #[must_use]
    pub fn kernel_id(&self) -> &'static str {
        match self {
            Self::Cpu(model) => model.kernel().id(model.dtype()),
            Self::Gpu(model, _) => model.dtype().kernel_id(),
        }
    }

    /// Returns the name of the type of weights and products.
    #[must_use]
    pub fn dtype(&self) -> &'static str {
        match self {
            Self::Cpu(model) => model.dtype().name(),
            Self::Gpu(model, _) => model.dtype().name(),
        }
    }

    /// Describes the instruction set and the threads, or the GPU, for people.
    #[must_use]
    pub fn backend_description(&self) -> String {
        match self {
            Self::Cpu(model) => format!("{}, {} threads", model.kernel().name(), model.threads()),
            Self::Gpu(_, info) => info.to_string(),
        }
    }
}

/// Refuses heads whose largest Hadamard matrix would mix too few dimensions, and layers of which a
/// calibration has no means of their own.
fn check_heads(kv_dtype: KvDtype, config: &Config) -> Result<(), LoadError> {
    if kv_dtype.is_calibrated() && config.mixed.is_some() {
        let choice = format!("K and V of a {} in {kv_dtype}", config.architecture);
        let hint = Hint::UseKvDtype(KvDtype::Int8);
        return Err(LoadError::UnsupportedChoice { choice, hint });
    }
    if kv_dtype.is_calibrated() && !config.head_dim.is_multiple_of(HADAMARD_MIN) {
        let choice = format!(
            "K and V in {kv_dtype} with heads of {} dimensions, no multiple of {HADAMARD_MIN}",
            config.head_dim
        );
        let hint = Hint::UseKvDtype(KvDtype::Int8);
        return Err(LoadError::UnsupportedChoice { choice, hint });
    }
    Ok(())
}

impl LanguageModel for Model {
    type Resident = ResidentBlock;

    fn kv_shape(&self) -> &KvShape {
        match self {
            Self::Cpu(model) => model.kv_shape(),
            Self::Gpu(model, _) => model.kv_shape(),
        }
    }

    fn context_tokens(&self) -> usize {
        self.config().context
    }

    fn prefill_tokens(&self) -> usize {
        match self {
            Self::Cpu(model) => model.prefill_tokens(),
            Self::Gpu(model, _) => model.prefill_tokens(),
        }
    }

    fn batch_bytes(&self) -> usize {
        match self {
            Self::Cpu(model) => model.batch_bytes(),
            Self::Gpu(model, _) => model.batch_bytes(),
        }
    }

    fn score_rows(&self) -> usize {
        match self {
            Self::Cpu(model) => model.score_rows(),
            Self::Gpu(model, _) => model.score_rows(),
        }
    }

    fn prefill(&self, chunks: &[Chunk]) -> Result<Vec<KvBlock>, ModelError> {
        match self {
            Self::Cpu(model) => model.prefill(chunks),
            Self::Gpu(model, _) => model.prefill(chunks),
        }
    }

    fn prefill_resident(&self, chunks: &[Chunk]) -> Result<Vec<ResidentBlock>, ModelError> {
        Ok(match self {
            Self::Cpu(model) => {
                model.prefill_resident(chunks)?.into_iter().map(ResidentBlock::Cpu).collect()
            }
            Self::Gpu(model, _) => {
                model.prefill_resident(chunks)?.into_iter().map(ResidentBlock::Gpu).collect()
            }
        })
    }

    fn upload(&self, block: KvBlock) -> Result<ResidentBlock, ModelError> {
        match self {
            Self::Cpu(model) => model.upload(block).map(ResidentBlock::Cpu),
            Self::Gpu(model, _) => model.upload(block).map(ResidentBlock::Gpu),
        }
    }

    /// # Panics
    /// For blocks that another model uploaded.
    fn score_resident(&self, pairs: &[Pair<'_, ResidentBlock>]) -> Result<Vec<f32>, ModelError> {
        match self {
            Self::Cpu(model) => {
                let own = pairs.iter().map(|pair| match pair.block {
                    ResidentBlock::Cpu(block) => Pair { query: pair.query, block },
                    ResidentBlock::Gpu(_) => panic!("a block of a GPU was given to the CPU"),
                });
                model.score_resident(&own.collect::<Vec<_>>())
            }
            Self::Gpu(model, _) => {
                let own = pairs.iter().map(|pair| match pair.block {
                    ResidentBlock::Gpu(block) => Pair { query: pair.query, block },
                    ResidentBlock::Cpu(_) => panic!("a block of the CPU was given to a GPU"),
                });
                model.score_resident(&own.collect::<Vec<_>>())
            }
        }
    }

    fn score_streamed(
        &self,
        pairs: &[Pair<'_, dyn LayerSource + '_>],
    ) -> Result<Vec<Result<f32, BlockError>>, ModelError> {
        match self {
            Self::Cpu(model) => model.score_streamed(pairs),
            Self::Gpu(model, _) => model.score_streamed(pairs),
        }
    }
}

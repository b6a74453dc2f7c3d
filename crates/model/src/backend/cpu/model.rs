//! The decoder on the CPU as a value: its weights, its threads and its buffers.
//!
//! In: a model file and types. Out: a [`CpuModel`], whose passes are in other files. It does not compute.

use std::sync::{Arc, Mutex};

use hyperrag_core::{Hint, KvDtype, KvShape};
use hyperrag_kernels::cpu::gemm::pack_rhs::PackedWeights;
use hyperrag_kernels::dtype::ComputeDtype;
use hyperrag_kernels::isa::Kernel;
use hyperrag_kernels::memory::huge_pages::WeightMemory;

use crate::arch::config::Config;
use crate::arch::weights::Weights;
use crate::backend::cpu::kv_codec::KvCodec;
use crate::backend::cpu::load_weights::{FileWeights, UnpackedMatrix};
use crate::backend::cpu::scratch::{ScratchPool, Workspace};
use crate::error::LoadError;
use crate::format::model_file::ModelFile;

/// A decoder on the CPU. Products with weights are in f32, or in values rounded to bf16 or int8;
/// everything else is f32.
///
/// A layer has two steps: attention by sequence and KV head, and everything else by rows. K and V are
/// rounded to the element type before any attention reads them, so that fresh and stored ones are the
/// same numbers.
///
/// A clone shares weights, threads and buffers.
#[derive(Clone)]
pub struct CpuModel {
    pub(crate) config: Config,
    pub(crate) kernel: Kernel,
    pub(crate) dtype: ComputeDtype,
    pub(crate) pool: Arc<rayon::ThreadPool>,
    pub(crate) scratch: Arc<ScratchPool>,
    pub(crate) weights: Arc<Weights<PackedWeights, Vec<f32>>>,
    pub(crate) kv_shape: KvShape,
    pub(crate) codec: KvCodec,
    pub(crate) workspaces: Arc<Mutex<Vec<Workspace>>>,
}

impl CpuModel {
    /// Reads and packs the weights. K and V are rounded to `kv_dtype`; `dtype` is the type of weights
    /// and products; `threads` threads compute.
    ///
    /// # Errors
    /// [`LoadError`] for tensors that are missing or differ from the metadata, for f16, for sizes that
    /// int8 cannot have, and for an element type that needs a calibration: load with f32, then call
    /// [`CpuModel::calibrated`].
    pub fn load(
        file: &mut ModelFile,
        kv_dtype: KvDtype,
        dtype: ComputeDtype,
        kernel: Kernel,
        threads: usize,
    ) -> Result<Self, LoadError> {
        if dtype == ComputeDtype::F16 {
            let (choice, hint) = ("f16 on a CPU".to_owned(), Hint::UseDtype("f32, bf16 or int8"));
            return Err(LoadError::UnsupportedChoice { choice, hint });
        }
        if !Kernel::available().contains(&kernel) {
            let feature = format!("{} instructions that this machine lacks", kernel.name());
            return Err(LoadError::Unsupported { feature });
        }
        if kv_dtype.is_calibrated() {
            let feature = format!("{kv_dtype} without a calibration");
            return Err(LoadError::Unsupported { feature });
        }
        let config = file.config().clone();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("model-{i}"))
            .build()
            .map_err(|source| LoadError::Threads { source: source.into() })?;
        let stored = Weights::read(&config, &mut FileWeights(file))?;
        let memory = WeightMemory::shared();
        let pack_head = |matrix: UnpackedMatrix| matrix.pack(&memory, dtype.head_dtype());
        let weights = pool.install(|| stored.try_map(pack_head, |m| m.pack(&memory, dtype)))?;
        Ok(Self {
            kv_shape: config.kv_shape(kv_dtype),
            codec: KvCodec::new(kernel, kv_dtype, config.slot().head_dim, config.rotations()),
            scratch: Arc::new(ScratchPool::new(pool.current_num_threads())),
            workspaces: Arc::default(),
            config,
            kernel,
            dtype,
            pool: Arc::new(pool),
            weights: Arc::new(weights),
        })
    }

    /// Returns the sizes of the model.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the type of weights and products.
    #[must_use]
    pub fn dtype(&self) -> ComputeDtype {
        self.dtype
    }

    /// Returns the instruction set in use.
    #[must_use]
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Returns the number of threads that compute.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }
}

//! Opens a store with the model that reads it: a folder, the name of a model and choices in, an
//! [`Engine`] out, or why both do not belong together.
//!
//! This and its folder are all of the engine that names the crate of models. It prints nothing: warnings go
//! to the callback of the request, or are returned.
//!
//! ```
//! use hyperrag_engine::search::session::BlockPolicy;
//! use hyperrag_engine::{Engine, ModelRequest, Query};
//! use hyperrag_model::{ComputeDtype, DeviceChoice, DtypeChoice};
//!
//! let testdata = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
//! let model = testdata.join("tiny.gguf");
//! let request = ModelRequest {
//!     model: model.to_str(),
//!     tokenizer: None,
//!     profile: None,
//!     notes: None,
//!     device: DeviceChoice::Cpu,
//!     dtype: DtypeChoice::Named(ComputeDtype::F32),
//!     threads: 1,
//!     warn: |warning| eprintln!("{}", warning.what),
//! };
//! # // An index writes a lock beside it, and testdata stays as it is.
//! # let folder = tempfile::tempdir()?;
//! # let store = folder.path().join("v2");
//! # let mut copy = std::process::Command::new("cp");
//! # assert!(copy.arg("-r").arg(testdata.join("stores/v2")).arg(&store).status()?.success());
//! let engine = Engine::open(&store, &request)?;
//! let session = engine.session()?;
//! let query = Query { id: "q".into(), text: "a river of bees".into() };
//! let stored = session.search(&query, 9, BlockPolicy::Load)?;
//! let recomputed = session.search(&query, 9, BlockPolicy::Recompute)?;
//! assert_eq!(stored.hits[0].id, "river");
//! assert_eq!(stored.hits, recomputed.hits);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod collection;
pub mod collection_list;
pub mod error;
pub mod request;
pub mod tiers;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyperrag_core::{
    Calibration, Coverage, Fingerprint, KvDtype, LanguageModel, Mismatch, NotedPart, Profile,
    Reproducibility,
};
use hyperrag_model::{
    ComputeDtype, DtypeChoice, Generator, KERNEL_ID, KERNEL_ID_BF16, KERNEL_ID_BF16_AMX,
    KERNEL_ID_BF16_PAIRS, KERNEL_ID_INT8, KERNEL_ID_INT8_AMX, KERNEL_ID_INT8_PAIRS, Kernel,
    LoadSettings, Model, ModelCache, ModelFile, Tokenizer,
};
use hyperrag_store::{FORMAT_VERSION, Store, StoreError, StoreNotes, TierChoice, Tiered, notes};
use hyperrag_tiers::TierSpec;

use crate::error::EngineError;
use crate::notes::{ChosenName, absolute, lasting_profile};
use crate::open::error::OpenError;
use crate::open::request::{ModelRequest, Weights, noted};
use crate::open::tiers::{TierLogins, open_tiers};
use crate::other_kernel::OtherKernel;
use crate::profile::read_profile;
use crate::search::session::{BlockPolicy, Session};

/// Types and kernels that stores are made with.
const KERNELS: [(ComputeDtype, &str); 10] = [
    (ComputeDtype::F32, KERNEL_ID),
    (ComputeDtype::Bf16, KERNEL_ID_BF16_PAIRS),
    (ComputeDtype::Bf16, KERNEL_ID_BF16_AMX),
    (ComputeDtype::Bf16, KERNEL_ID_BF16),
    (ComputeDtype::Int8, KERNEL_ID_INT8_PAIRS),
    (ComputeDtype::Int8, KERNEL_ID_INT8_AMX),
    (ComputeDtype::Int8, KERNEL_ID_INT8),
    (ComputeDtype::F16, ComputeDtype::F16.kernel_id()),
    (ComputeDtype::Bf16, ComputeDtype::Bf16.kernel_id()),
    (ComputeDtype::F32, ComputeDtype::F32.kernel_id()),
];

/// A model ready to compute, with its tokenizer and its prompt.
pub struct LoadedModel {
    /// File or folder of the model.
    pub file: ModelFile,
    /// Tokenizer of the model.
    pub tokenizer: Tokenizer,
    /// The prompt.
    pub profile: Profile,
    /// Means that int5 and int4 need.
    pub calibration: Option<Arc<Calibration>>,
    /// Weights on their device.
    pub model: Model,
    /// Names by which a store can note model, tokenizer and profile.
    pub notes: StoreNotes,
}

impl LoadedModel {
    /// Loads the model of the request. Its profile and its arithmetic, where the request leaves these
    /// open, are as `stored`, if there is a store, whose `calibration` comes along.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn load(
        request: &ModelRequest<'_>,
        kv_dtype: KvDtype,
        chunk_tokens: u32,
        stored: Option<&Fingerprint>,
        calibration: Option<Calibration>,
    ) -> Result<Self, OpenError> {
        let file = request.open(Weights::Hashed)?;
        Self::of_file(file, request, kv_dtype, chunk_tokens, stored, calibration)
    }

    fn of_file(
        mut file: ModelFile,
        request: &ModelRequest<'_>,
        kv_dtype: KvDtype,
        chunk_tokens: u32,
        stored: Option<&Fingerprint>,
        calibration: Option<Calibration>,
    ) -> Result<Self, OpenError> {
        let tokenizer = file.tokenizer()?;
        let default = stored.and_then(built_in_profile);
        let default = default.unwrap_or_else(|| default_profile(&file, &tokenizer));
        let chosen = request.profile().unwrap_or(ChosenName { name: default, noted: false });
        let profile = noted(read_profile(chosen.name), NotedPart::Profile, chosen)?;
        let profile = profile.for_model(tokenizer.bos());
        let usable = profile
            .query_template(&tokenizer)
            .map_err(|source| OpenError::OtherProfile { name: chosen.name.to_owned(), source });
        noted(usable, NotedPart::Profile, chosen)?;
        let notes = StoreNotes {
            model: Some(ModelCache::lasting_name(request.model().name, &file)),
            tokenizer: request.tokenizer().map(|chosen| absolute(chosen.name)),
            profile: Some(lasting_profile(chosen.name)),
            ..StoreNotes::default()
        };
        let calibration = calibration.map(Arc::new);
        let settings = LoadSettings {
            calibration: calibration.clone(),
            device: request.device,
            dtype: dtype_for(request.dtype, stored),
            threads: request.threads,
            kv_dtype,
            chunk_tokens: chunk_tokens as usize,
            warn: request.warn,
        };
        let model = Model::load(&mut file, settings)?;
        Ok(Self { file, tokenizer, profile, calibration, model, notes })
    }

    /// Returns the same model with elements that need a calibration.
    ///
    /// # Errors
    /// [`OpenError::Load`] where the calibration is not for this model or device.
    pub fn calibrated(
        mut self,
        kv_dtype: KvDtype,
        calibration: Calibration,
    ) -> Result<Self, OpenError> {
        let calibration = Arc::new(calibration);
        self.model = self.model.calibrated(kv_dtype, Arc::clone(&calibration))?;
        self.calibration = Some(calibration);
        Ok(self)
    }

    /// Returns the fingerprint that the store of `stored` would carry if this model made it now.
    ///
    /// # Errors
    /// [`OpenError::Load`] where the model's files cannot be read.
    pub fn fingerprint_like(&self, stored: &Fingerprint) -> Result<Fingerprint, OpenError> {
        let Fingerprint { format_version, chunk_tokens, unit_rows, ref language, .. } = *stored;
        self.fingerprint(format_version, chunk_tokens, unit_rows, language.clone())
    }

    /// Returns the fingerprint that a store of this version of the format would carry if this model
    /// made it now.
    ///
    /// # Errors
    /// [`OpenError::Load`] where the model's files cannot be read.
    pub fn fingerprint(
        &self,
        format_version: u32,
        chunk_tokens: u32,
        unit_rows: u32,
        language: String,
    ) -> Result<Fingerprint, OpenError> {
        let coverage = Coverage::of_format(format_version);
        Ok(Fingerprint {
            format_version,
            model: self.file.name(),
            weights: self.file.digest(coverage)?,
            tokenizer: self.tokenizer.digest(coverage),
            profile: self.profile.name.clone(),
            profile_digest: self.profile.document_digest(),
            chunk_tokens,
            unit_rows,
            language,
            kv_shape: *self.model.kv_shape(),
            calibration: self.calibration.as_ref().map(|calibration| calibration.digest()),
            rope: self.model.config().rope(),
            dtype: self.model.dtype().to_owned(),
            kernel: self.model.kernel_id().to_owned(),
        })
    }

    /// Loads the model that writes answers: the one of this `name`, else this one, whose weights are
    /// shared. Its turns are those of the chat template in a file, if one is named.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn generator(
        &mut self,
        name: Option<&str>,
        chat_template: Option<&Path>,
        threads: usize,
    ) -> Result<Generator, OpenError> {
        let Some(name) = name else {
            chat_template.into_iter().for_each(|path| self.file.set_chat_template(path));
            return Ok(Generator::sharing(&self.model, &mut self.file, threads)?);
        };
        let path = ModelCache::from_environment().resolve(name)?;
        let mut file = ModelFile::open(&path)?;
        chat_template.into_iter().for_each(|path| file.set_chat_template(path));
        // In the type of the model that reranks, which may be that of a GPU.
        let dtype = self.model.dtype().parse().ok();
        let dtype = dtype.filter(|dtype| *dtype != ComputeDtype::F16).unwrap_or(ComputeDtype::F32);
        let generator = Generator::load(&mut file, dtype, Kernel::best(), threads);
        generator.map_err(|source| OpenError::Generator { path, source })
    }
}

/// A session of a model from files.
pub type OpenSession<'a> = Session<'a, Model, Tokenizer>;

/// A store with the model that reads it.
pub struct Engine {
    root: PathBuf,
    /// The store, and the replicas that it remembers.
    pub store: Tiered,
    /// The model.
    pub loaded: LoadedModel,
    /// Says so where another kernel made the store than the one that reads it.
    pub other_kernel: Option<OtherKernel>,
}

impl Engine {
    /// Opens the store at `root`, loads the model for it, and checks that they belong together.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(root: &Path, request: &ModelRequest<'_>) -> Result<Self, OpenError> {
        let opened = Self::load(root, request, Weights::Hashed)?;
        let other_kernel = opened.check()?;
        Ok(Self { other_kernel, ..opened })
    }

    /// Opens the store at `root` to rank its documents, with the digest of the weights that another
    /// process computed. With a profile that has the query first any model may, as no block is read.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_to_rank(root: &Path, request: &ModelRequest<'_>) -> Result<Self, OpenError> {
        let opened = Self::load(root, request, Weights::Remembered)?;
        let other_kernel = match opened.loaded.profile.lead {
            None => opened.check()?,
            Some(_) => None,
        };
        Ok(Self { other_kernel, ..opened })
    }

    /// Opens the store, and loads the model with the store's settings.
    fn load(root: &Path, request: &ModelRequest<'_>, weights: Weights) -> Result<Self, OpenError> {
        let store = Tiered::open(root)?;
        store.warnings().iter().for_each(|warning| (request.warn)(warning));
        store.doubt().into_iter().for_each(request.warn);
        let stored = &store.manifest().fingerprint;
        let (kv_dtype, calibration) = (stored.kv_shape.kv_dtype, store.calibration()?);
        let (notes, warning) = store.notes();
        warning.iter().for_each(request.warn);
        let request = &ModelRequest { notes: Some(&notes), ..*request };
        let file = request.open(weights)?;
        let chunk_tokens = stored.chunk_tokens;
        let loaded =
            LoadedModel::of_file(file, request, kv_dtype, chunk_tokens, Some(stored), calibration)?;
        Ok(Self { root: root.to_owned(), store, loaded, other_kernel: None })
    }

    /// Returns the engine with another order of the places that blocks come from. Nothing is sent to a
    /// server before a block is asked for.
    ///
    /// # Errors
    /// [`OpenError::Tier`] for a tier that cannot be used.
    pub fn with_tiers(self, specs: &[TierSpec], logins: &TierLogins) -> Result<Self, OpenError> {
        let choices = open_tiers(specs, logins, largest_block(&self.store))?;
        Ok(self.with_places(choices))
    }

    /// Returns the engine with another order of the places that blocks come from.
    #[must_use]
    pub fn with_places(self, places: Vec<TierChoice>) -> Self {
        Self { store: self.store.with_tiers(places), ..self }
    }

    /// Returns what is best where the user chose nothing: blocks are computed in the stead of late ones only where
    /// they have the same bits.
    #[must_use]
    pub fn default_policy(&self) -> BlockPolicy {
        let on_cpu = self.loaded.model.kernel_id().starts_with("cpu-");
        match on_cpu && self.other_kernel.is_none() {
            true => BlockPolicy::Auto,
            false => BlockPolicy::Load,
        }
    }

    /// Opens a session on the store.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn session(&self) -> Result<OpenSession<'_>, EngineError> {
        let LoadedModel { tokenizer, profile, model, .. } = &self.loaded;
        Session::open(&self.store, model, tokenizer, profile)
    }

    /// Checks that the model can read the store's blocks, and tells with what difference.
    fn check(&self) -> Result<Option<OtherKernel>, OpenError> {
        let stored = &self.store.manifest().fingerprint;
        let current = self.loaded.fingerprint_like(stored)?;
        let exactness = stored.readable_by(&current);
        let exactness = exactness.map_err(|mismatch| refused(&self.root, mismatch))?;
        Ok((exactness == Reproducibility::WithinTolerance).then(|| OtherKernel {
            tolerance: tolerance(&self.loaded.profile, [&stored.dtype, &current.dtype]),
            stored: stored.kernel.clone(),
            current: current.kernel,
        }))
    }

    /// Checks that the model makes the very bits of the store, kernel included.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] where it does not.
    pub fn check_same_bits(&self) -> Result<(), OpenError> {
        let stored = &self.store.manifest().fingerprint;
        match stored.mismatch(&self.loaded.fingerprint_like(stored)?) {
            Some(mismatch) => Err(refused(&self.root, mismatch).into()),
            None => Ok(()),
        }
    }

    /// Returns by how much scores of the store's blocks may differ from those of this model on any
    /// device; `None` where nothing is promised.
    #[must_use]
    pub fn tolerance(&self) -> Option<f32> {
        let stored = &self.store.manifest().fingerprint;
        tolerance(&self.loaded.profile, [&stored.dtype, self.loaded.model.dtype()])
    }
}

/// Returns the length of the largest block that a store may have, in bytes, but for its head.
#[must_use]
pub fn largest_block(store: &Tiered) -> u64 {
    let chunk_tokens = store.manifest().fingerprint.chunk_tokens as usize;
    store.kv_shape().block_bytes(chunk_tokens) as u64
}

/// Returns the fingerprint in the present version of the format of the store at `root`, for the very
/// model of the store, and what the store is to note of it.
///
/// # Errors
/// [`StoreError::Mismatch`] where the model of the request is another one.
pub fn upgraded_fingerprint(
    root: &Path,
    request: &ModelRequest<'_>,
) -> Result<(Fingerprint, StoreNotes), OpenError> {
    let stored = Store::open(root)?.manifest().fingerprint.clone();
    let noted = notes(root)?.unwrap_or_default();
    let request = &ModelRequest { notes: Some(&noted), ..*request };
    let file = request.open(Weights::Hashed)?;
    let tokenizer = file.tokenizer()?;
    let of = |coverage| -> Result<Fingerprint, OpenError> {
        let (weights, tokenizer) = (file.digest(coverage)?, tokenizer.digest(coverage));
        Ok(Fingerprint { weights, tokenizer, ..stored.clone() })
    };
    if let Some(mismatch) = stored.mismatch(&of(stored.coverage())?) {
        return Err(refused(root, mismatch).into());
    }
    let format_version = FORMAT_VERSION;
    let next = Fingerprint { format_version, ..of(Coverage::of_format(format_version))? };
    let model = Some(ModelCache::lasting_name(request.model().name, &file));
    let profile = noted.profile.or_else(|| built_in_profile(&stored).map(str::to_owned));
    Ok((next, StoreNotes { model, profile, ..noted }))
}

/// Returns the fingerprint with every type and kernel that stores are made with.
#[must_use]
pub fn by_any_kernel(fingerprint: &Fingerprint) -> Vec<Fingerprint> {
    let made = KERNELS.map(|(dtype, kernel)| Fingerprint {
        dtype: dtype.name().to_owned(),
        kernel: kernel.to_owned(),
        ..fingerprint.clone()
    });
    made.into()
}

/// Returns `asked`, or, where that leaves the type open, the type of the store, so that its bits are
/// computed again. A CPU reads a GPU's store in f32, whose scores are the nearest to a GPU's.
#[must_use]
pub fn dtype_for(asked: DtypeChoice, stored: Option<&Fingerprint>) -> DtypeChoice {
    match (asked, stored) {
        (DtypeChoice::Auto, Some(stored)) => {
            let on_cpu = stored.dtype.parse().ok().filter(|_| stored.kernel.starts_with("cpu-"));
            DtypeChoice::OnCpu(on_cpu.unwrap_or(ComputeDtype::F32))
        }
        (asked, _) => asked,
    }
}

fn refused(root: &Path, mismatch: Mismatch) -> StoreError {
    StoreError::mismatch(root, mismatch)
}

/// Returns by how much scores of two computations may differ; `None` where nothing is promised.
fn tolerance(profile: &Profile, computes: [&str; 2]) -> Option<f32> {
    // int8 moves scores by more than kernels may.
    let rounded = computes.contains(&ComputeDtype::Int8.name());
    profile.scorer.tolerance().filter(|_| !rounded)
}

/// Returns the profile of a store, where this program has it.
fn built_in_profile(stored: &Fingerprint) -> Option<&str> {
    let name = stored.profile.as_str();
    Profile::BUILT_IN.contains(&name).then_some(name)
}

/// Returns the profile whose turns the model knows, if it knows any. Base models of some families have
/// the tokens that turns are made of as well, but no template.
fn default_profile(file: &ModelFile, tokenizer: &Tokenizer) -> &'static str {
    if tokenizer.has_special("<|im_start|>") {
        return "chat";
    }
    let turns = [("<start_of_turn>", "chat-gemma"), ("<|start_header_id|>", "chat-llama3")];
    let known = turns.into_iter().find(|(token, _)| tokenizer.has_special(token));
    known.filter(|_| file.takes_turns()).map_or("plain", |(_, profile)| profile)
}

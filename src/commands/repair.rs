//! `repair`: mends a store; the model is loaded when a block has to be computed.

use std::mem;

use anyhow::Result;
use hyperrag_core::{Calibration, Chunk, Fingerprint, KvBlock, LanguageModel, Reproducibility};
use hyperrag_corpus::Chunker;
use hyperrag_engine::maintain::repair::{RepairReport, RepairSettings, RepairSource, repair_from};
use hyperrag_engine::maintain::repair_model::{Recompute, RecomputeError};
use hyperrag_engine::open::by_any_kernel;
use hyperrag_engine::{ByteProgress, LoadedModel, ModelRequest, OpenError};
use hyperrag_model::DtypeChoice;
use hyperrag_store::{Store, StoreNotes};

use crate::cli::keep::RepairArgs;
use crate::error::Damaged;
use crate::exit::Status;
use crate::hint::with_hint;
use crate::input::model::request;
use crate::input::store::{fetched, open_place};
use crate::output::table::{Fit, Table};
use crate::report;

/// Mends what is damaged in a store.
pub(crate) fn repair(args: &RepairArgs, json: bool) -> Result<Status> {
    let settings = RepairSettings {
        dry_run: args.dry_run,
        accept_older: args.accept_older,
        threads: args.model.threads,
    };
    let progress = ByteProgress::default();
    // Damaged notes are among what is mended.
    let notes = hyperrag_store::notes(&args.store).ok().flatten().unwrap_or_default();
    let mut model = LazyModel { args, notes, loaded: None };
    let place = args.from.as_deref().map(open_place).transpose()?;
    let root = place.as_ref().map(fetched).transpose()?;
    let from = root.as_deref().zip(place.as_ref());
    let from = from.map(|(root, place)| RepairSource { root, place });
    let mut done = report::watch_bytes(&progress, || {
        repair_from(&args.store, settings, from, &mut model, &progress)
    })?;
    for mend in &mut done.mends {
        mend.how = with_hint(mem::take(&mut mend.how), mend.hint.take().as_ref());
    }
    match json {
        true => report::print_data(&serde_json::to_string(&done)?)?,
        false => report::print(&describe(&done))?,
    }
    match done.left {
        0 => Ok(Status::Done),
        left => Err(Damaged(format!(
            "{}: {left} damaged {} left",
            args.store.display(),
            if left == 1 { "file is" } else { "files are" }
        ))
        .into()),
    }
}

fn describe(done: &RepairReport) -> String {
    if done.mends.is_empty() {
        return "no damage".to_owned();
    }
    let state = if done.dry_run { "plan" } else { "mended" };
    let names = ["file", "damage", state, "how, or why not"];
    let mut table = Table::new(names.map(|name| (name, Fit::Wrap)));
    for mend in &done.mends {
        table.add([
            mend.file.display().to_string(),
            mend.what.clone(),
            if mend.mended { "yes" } else { "no" }.to_owned(),
            mend.how.clone(),
        ]);
    }
    table.text()
}

fn load_error(error: OpenError) -> RecomputeError {
    RecomputeError::Load(Box::new(error))
}

fn fingerprint_error(error: OpenError) -> RecomputeError {
    RecomputeError::Fingerprint(Box::new(error))
}

/// The model, loaded when the first block has to be computed.
struct LazyModel<'a> {
    args: &'a RepairArgs,
    notes: StoreNotes,
    loaded: Option<LoadedModel>,
}

impl LazyModel<'_> {
    fn load(
        &self,
        stored: &Fingerprint,
        calibration: Option<Calibration>,
    ) -> Result<LoadedModel, RecomputeError> {
        let (kv_dtype, chunk_tokens) = (stored.kv_shape.kv_dtype, stored.chunk_tokens);
        let request = ModelRequest { notes: Some(&self.notes), ..request(&self.args.model) };
        let loaded = LoadedModel::load(&request, kv_dtype, chunk_tokens, Some(stored), calibration);
        loaded.map_err(load_error)
    }

    /// The model for blocks of the store.
    fn loaded(&mut self, stored: &Fingerprint) -> Result<&LoadedModel, RecomputeError> {
        let loaded = match self.loaded.take() {
            Some(loaded) => loaded,
            None => {
                let calibration = Store::calibration_at(&self.args.store);
                let calibrated = stored.kv_shape.kv_dtype.is_calibrated();
                self.load(stored, calibration.filter(|_| calibrated))?
            }
        };
        Ok(self.loaded.insert(loaded))
    }
}

impl Recompute for LazyModel<'_> {
    fn fingerprints(&mut self, format_version: u32) -> Result<Vec<Fingerprint>, RecomputeError> {
        let RepairArgs { model, kv_dtype, chunk_tokens, unit_rows, language, store, .. } =
            self.args;
        let calibration = Store::calibration_at(store).filter(|_| kv_dtype.is_calibrated());
        let request = ModelRequest { notes: Some(&self.notes), ..request(model) };
        let loaded = LoadedModel::load(&request, *kv_dtype, *chunk_tokens, None, calibration);
        let loaded = loaded.map_err(load_error)?;
        let language = language.to_string();
        let here = loaded.fingerprint(format_version, *chunk_tokens, *unit_rows, language);
        let here = here.map_err(fingerprint_error)?;
        if model.dtype != DtypeChoice::Auto {
            return Ok(vec![here]);
        }
        // The shards say which one it was.
        Ok(by_any_kernel(&here))
    }

    fn calibrate(
        &mut self,
        stored: &Fingerprint,
        chunks: &[Chunk],
    ) -> Result<Calibration, RecomputeError> {
        let LoadedModel { tokenizer, profile, model, .. } = self.load(stored, None)?;
        let chunker = Chunker::new(&tokenizer, &profile, stored.chunk_tokens as usize);
        Ok(model.calibrate(chunks, chunker?.fixed())?)
    }

    fn other_kernel(&mut self, stored: &Fingerprint) -> Result<Option<String>, RecomputeError> {
        let current = self.loaded(stored)?.fingerprint_like(stored);
        let current = current.map_err(fingerprint_error)?;
        match stored.readable_by(&current) {
            Ok(Reproducibility::BitExact) => Ok(None),
            Ok(Reproducibility::WithinTolerance) => Ok(Some(current.kernel)),
            Err(mismatch) => Err(RecomputeError::OtherModel(Box::new(mismatch))),
        }
    }

    fn compute(
        &mut self,
        stored: &Fingerprint,
        chunks: &[Chunk],
    ) -> Result<Vec<KvBlock>, RecomputeError> {
        self.other_kernel(stored)?;
        Ok(self.loaded(stored)?.model.prefill(chunks)?)
    }
}

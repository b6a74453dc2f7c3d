//! One file a command; here what they share.

mod answer;
mod arithmetic;
mod batch;
mod bench;
mod bench_device;
mod bench_quality;
mod build;
mod compact;
mod delete;
mod devices;
mod eval;
mod info;
mod model;
mod quality_chart;
mod quality_table;
mod query;
mod repair;
mod replicate;
mod tune;
mod upgrade;
mod verify;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use hyperrag_engine::Session;
use hyperrag_kv::{
    Calibration, Coverage, Element, Exactness, Failover, Fingerprint, LanguageModel, Mismatch,
    Profile,
};
use hyperrag_model::{Compute, LoadError, LoadSettings, Model, ModelCache, ModelFile, Tokenizer};
use hyperrag_store::{Replicated, Store, StoreError, replica_states};

use crate::cli::{BenchKind, Cli, Command, ModelArgs};
use crate::exit::Status;
use crate::text;

/// Runs the command.
pub(crate) fn run(cli: Cli) -> Result<Status> {
    hyperrag_engine::threads::start_threads()?;
    match cli.command {
        Command::Model(command) => model::model(&command, cli.json),
        Command::Build(args) => build::build(&args, cli.json),
        Command::Query(args) => query::query(&args, cli.json),
        Command::Answer(args) => answer::answer(&args, cli.json),
        Command::Bench(BenchKind::Speed(args)) => bench::bench(&args, cli.json),
        Command::Bench(BenchKind::Quality(args)) => bench_quality::bench_quality(&args, cli.json),
        Command::Eval(args) => eval::eval(&args, cli.json),
        Command::Tune(args) => tune::tune(&args, cli.json),
        Command::Delete(args) => delete::delete(&args, cli.json),
        Command::Compact(args) => compact::compact(&args, cli.json),
        Command::Info(args) => info::info(&args, cli.json),
        Command::Verify(args) => verify::verify(&args, cli.json),
        Command::Upgrade(args) => upgrade::upgrade(&args, cli.json),
        Command::Repair(args) => repair::repair(&args, cli.json),
        Command::Replicate(args) => replicate::replicate(&args, cli.json),
        Command::Devices => devices::devices(cli.json),
        Command::BenchDevice(args) => bench_device::bench_device(&args, cli.json),
    }
}

/// Bytes of a profile's file.
const PROFILE_BYTES_MAX: u64 = 1 << 20;

/// A model ready to compute, with its tokenizer and its prompt.
struct LoadedModel {
    file: ModelFile,
    tokenizer: Tokenizer,
    profile: Profile,
    calibration: Option<Arc<Calibration>>,
    model: Model,
}

impl LoadedModel {
    /// Loads the model that `args` names. Its profile and its arithmetic, where they leave these open,
    /// are as `stored`, if there is a store, whose `calibration` comes along.
    fn load(
        args: &ModelArgs,
        element: Element,
        chunk_tokens: u32,
        stored: Option<&Fingerprint>,
        calibration: Option<Calibration>,
    ) -> Result<Self> {
        let path = ModelCache::from_environment()?.resolve(&args.model)?;
        let file = ModelFile::open(&path)?;
        Self::of_file(file, args, element, chunk_tokens, stored, calibration)
    }

    fn of_file(
        mut file: ModelFile,
        args: &ModelArgs,
        element: Element,
        chunk_tokens: u32,
        stored: Option<&Fingerprint>,
        calibration: Option<Calibration>,
    ) -> Result<Self> {
        let tokenizer = file.tokenizer()?;
        let default = stored.and_then(built_in_profile);
        let default = default.unwrap_or_else(|| default_profile(&file, &tokenizer));
        let named = args.profile.as_deref().unwrap_or(default);
        let profile = read_profile(named)?.for_model(tokenizer.bos());
        let template = profile.query_template(&tokenizer);
        template.with_context(|| format!("{named}: not a profile for this model"))?;
        let calibration = calibration.map(Arc::new);
        let settings = LoadSettings {
            calibration: calibration.clone(),
            device: args.device,
            compute: arithmetic::choice(args.compute, stored),
            threads: args.threads,
            element,
            chunk_tokens: chunk_tokens as usize,
            notice: crate::report::warn,
        };
        let model = Model::load(&mut file, settings)?;
        Ok(Self { file, tokenizer, profile, calibration, model })
    }

    /// The same model with elements that need a calibration.
    fn calibrated(mut self, element: Element, calibration: Calibration) -> Result<Self> {
        let calibration = Arc::new(calibration);
        self.model = self.model.calibrated(element, Arc::clone(&calibration))?;
        self.calibration = Some(calibration);
        Ok(self)
    }

    /// The fingerprint that the store of `stored` would carry if it were made by this model now.
    fn fingerprint_like(&self, stored: &Fingerprint) -> Result<Fingerprint> {
        let Fingerprint { format_version, chunk_tokens, unit_rows, ref language, .. } = *stored;
        self.fingerprint(format_version, chunk_tokens, unit_rows, language.clone())
    }

    /// The fingerprint that a store of this version of the format would carry if it were made by this
    /// model now.
    fn fingerprint(
        &self,
        format_version: u32,
        chunk_tokens: u32,
        unit_rows: u32,
        language: String,
    ) -> Result<Fingerprint> {
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
            geometry: *self.model.geometry(),
            calibration: self.calibration.as_ref().map(|calibration| calibration.digest()),
            rope: self.model.config().rope(),
            compute: self.model.compute().to_owned(),
            kernel: self.model.kernel_id().to_owned(),
        })
    }
}

type OpenSession<'a> = Session<'a, Model, Tokenizer>;

/// The profile of a store, where this program has it.
fn built_in_profile(stored: &Fingerprint) -> Option<&str> {
    let name = stored.profile.as_str();
    Profile::BUILT_IN.contains(&name).then_some(name)
}

/// The profile whose turns the model knows, if it knows any. Base models of some families have the
/// tokens that turns are made of as well, but no template.
fn default_profile(file: &ModelFile, tokenizer: &Tokenizer) -> &'static str {
    if tokenizer.has_special("<|im_start|>") {
        return "chat";
    }
    let turns = [("<start_of_turn>", "chat-gemma"), ("<|start_header_id|>", "chat-llama3")];
    let known = turns.into_iter().find(|(token, _)| tokenizer.has_special(token));
    known.filter(|_| file.takes_turns()).map_or("plain", |(_, profile)| profile)
}

fn read_profile(name: &str) -> Result<Profile> {
    if let Some(profile) = Profile::built_in(name) {
        return Ok(profile);
    }
    let known = Profile::BUILT_IN.join(", ");
    let path = Path::new(name);
    let opened = hyperrag_files::open(path).map_err(anyhow::Error::new);
    let read = |_| text::read(path, "the profile", PROFILE_BYTES_MAX);
    let text = opened.and_then(read).with_context(|| {
        format!(
            "there is no profile {name:?}: name one of {known}, or a TOML file that can be read"
        )
    })?;
    Profile::from_toml(&text).with_context(|| format!("{name}: not a usable profile"))
}

/// Opens a store, loads the model for it, and checks that they belong together.
fn open(root: &Path, args: &ModelArgs) -> Result<(Replicated, LoadedModel)> {
    let opened = |cache: ModelCache| ModelFile::open(&cache.resolve(&args.model)?);
    let (store, loaded) = load(root, args, opened)?;
    check(root, &store, &loaded)?;
    Ok((store, loaded))
}

/// The same to rank its documents, with the digest of the weights that another process computed: with a
/// profile that has the query first any model may, as no block is read.
fn open_to_rank(root: &Path, args: &ModelArgs) -> Result<(Replicated, LoadedModel)> {
    let (store, loaded) = load(root, args, |cache| cache.open(&args.model))?;
    if loaded.profile.lead.is_none() {
        check(root, &store, &loaded)?;
    }
    Ok((store, loaded))
}

/// Opens a store, and loads the model that `opened` finds with the store's settings.
fn load(
    root: &Path,
    args: &ModelArgs,
    opened: impl FnOnce(ModelCache) -> Result<ModelFile, LoadError>,
) -> Result<(Replicated, LoadedModel)> {
    let store = Replicated::open(root)?;
    store.notices().iter().for_each(|notice| crate::report::warn(notice));
    store.doubt().into_iter().for_each(crate::report::warn);
    let stored = &store.manifest().fingerprint;
    let (element, calibration) = (stored.geometry.element, store.calibration()?);
    let (file, chunk_tokens) = (opened(ModelCache::from_environment()?)?, stored.chunk_tokens);
    let loaded =
        LoadedModel::of_file(file, args, element, chunk_tokens, Some(stored), calibration)?;
    Ok((store, loaded))
}

/// Says how much of an unfinished build is searched, and how a command ends that has done all that it
/// could with `store`.
fn status_with(store: &Replicated, session: &OpenSession<'_>) -> Status {
    let unindexed = session.unindexed_documents();
    if !store.manifest().complete {
        let documents = store.manifest().documents();
        crate::report::warn(&format!(
            "the build is not finished: {} of the {documents} documents stored so far are in the index, \
             and only these are searched; run the same build again to go on",
            documents - unindexed
        ));
    }
    match store.doubt().is_some() || unindexed > 0 {
        true => Status::Degraded,
        false => Status::Done,
    }
}

/// Names the replicas that a change of the store at `root` has left behind.
fn note_replicas_behind(root: &Path) {
    let Ok(store) = Store::open(root) else { return };
    let generation = store.manifest().generation;
    for replica in replica_states(root, store.manifest()).unwrap_or_default() {
        if replica.generation.is_some_and(|theirs| theirs < generation) {
            let (root, path) = (root.display(), replica.path.display());
            crate::report::note(&format!(
                "{path}: the replica is behind; bring it up to date with \
                 `hyperrag replicate --store {root} --to {path}`"
            ));
        }
    }
}

fn refused(root: &Path, mismatch: Mismatch) -> StoreError {
    StoreError::Mismatch { path: root.to_owned(), mismatch: Box::new(mismatch) }
}

/// Whether the model can read the store's blocks, and with what differences.
fn check(root: &Path, store: &Replicated, loaded: &LoadedModel) -> Result<()> {
    let stored = &store.manifest().fingerprint;
    let current = loaded.fingerprint_like(stored)?;
    let exactness = stored.readable_by(&current).map_err(|mismatch| refused(root, mismatch))?;
    if exactness == Exactness::Tolerance {
        let within = match tolerance(&loaded.profile, [&stored.compute, &current.compute]) {
            Some(tolerance) => format!("within {tolerance}"),
            None => "nearly".to_owned(),
        };
        crate::report::note(&format!(
            "the store was computed by {} and is read by {}: scores agree {within}, not to the bit",
            stored.kernel, current.kernel
        ));
    }
    Ok(())
}

/// What scores of two computations may differ by; `None` where nothing is promised.
fn tolerance(profile: &Profile, computes: [&str; 2]) -> Option<f32> {
    // int8 moves scores by more than kernels may.
    let rounded = computes.contains(&Compute::Int8.name());
    profile.scorer.tolerance().filter(|_| !rounded)
}

/// Speaks of every block that was damaged, and computed again or left out.
fn warn_of_damages(damages: &[hyperrag_rerank::Damage]) {
    for damage in damages {
        crate::report::warn(&format!(
            "{}; the block of {} was {}",
            damage.what,
            damage.key.chunk,
            if damage.skipped { "left out" } else { "computed again" }
        ));
    }
}

/// Speaks of everything that was read from a replica, once of each thing in the life of `said`.
fn warn_of_failovers(failovers: &[Failover], said: &mut HashSet<String>) {
    for Failover { what, from } in failovers {
        if said.insert(what.clone()) {
            let from = from.display();
            crate::report::warn(&format!("{what}; read from the replica {from} instead"));
        }
    }
}

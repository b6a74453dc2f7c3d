//! One file a command; here what they share.

mod bench;
mod build;
mod info;
mod model;
mod query;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use hyperrag_kv::{Element, Fingerprint, Geometry, LanguageModel, Profile};
use hyperrag_model::{CpuModel, GgufTokenizer, KERNEL_ID, Kernel, ModelCache, ModelFile};
use hyperrag_store::{FORMAT_VERSION, Store, StoreError};

use crate::cli::{Cli, Command, ModelArgs};
use crate::exit::Status;

/// Runs the command.
pub(crate) fn run(cli: Cli) -> Result<Status> {
    match cli.command {
        Command::Model(command) => model::model(&command, cli.json),
        Command::Build(args) => build::build(&args, cli.json),
        Command::Query(args) => query::query(&args, cli.json),
        Command::Bench(args) => bench::bench(&args, cli.json),
        Command::Info(args) => info::info(&args, cli.json),
    }
}

/// A model ready to compute, with its tokenizer and its prompt.
struct LoadedModel {
    name: String,
    weights: hyperrag_kv::Digest,
    tokenizer: GgufTokenizer,
    profile: Profile,
    model: CpuModel,
}

impl LoadedModel {
    /// Loads the model that `args` names. `profile` is that of the store, where there is one.
    fn load(args: &ModelArgs, element: Element, profile: Option<&str>) -> Result<Self> {
        let path = ModelCache::from_environment()?.resolve(&args.model)?;
        let mut file = ModelFile::open(&path)?;
        let tokenizer = file.tokenizer()?;
        let turns = tokenizer.has_special("<|im_start|>");
        let default = profile.unwrap_or(if turns { "chat" } else { "plain" });
        let profile = read_profile(args.profile.as_deref().unwrap_or(default))?;
        let (name, weights) = (file.name(), file.digest());
        let model = CpuModel::load(&mut file, element, Kernel::best(), args.threads)?;
        Ok(Self { name, weights, tokenizer, profile, model })
    }

    /// What a store made by this model now would carry.
    fn fingerprint(&self, chunk_tokens: u32, unit_rows: u32) -> Fingerprint {
        let geometry: Geometry = *self.model.geometry();
        Fingerprint {
            format_version: FORMAT_VERSION,
            model: self.name.clone(),
            weights: self.weights,
            tokenizer: self.tokenizer.digest(),
            profile: self.profile.name.clone(),
            profile_digest: self.profile.document_digest(),
            chunk_tokens,
            unit_rows,
            geometry,
            rope: self.model.config().rope(),
            compute: "f32".to_owned(),
            kernel: KERNEL_ID.to_owned(),
        }
    }
}

fn read_profile(name: &str) -> Result<Profile> {
    if let Some(profile) = Profile::built_in(name) {
        return Ok(profile);
    }
    let known = Profile::BUILT_IN.join(", ");
    let text = fs::read_to_string(name).with_context(|| {
        format!(
            "there is no profile {name:?}: name one of {known}, or a TOML file that can be read"
        )
    })?;
    Profile::from_toml(&text).with_context(|| format!("{name}: not a usable profile"))
}

/// Opens a store, loads the model for it, and checks that they belong together.
fn open(root: &Path, args: &ModelArgs) -> Result<(Store, LoadedModel)> {
    let store = Store::open(root)?;
    let stored = &store.manifest().fingerprint;
    if stored.format_version != FORMAT_VERSION {
        let mismatch =
            stored.mismatch(&Fingerprint { format_version: FORMAT_VERSION, ..stored.clone() });
        if let Some(mismatch) = mismatch {
            let (path, mismatch) = (root.to_owned(), Box::new(mismatch));
            return Err(StoreError::Mismatch { path, mismatch }.into());
        }
    }
    let built_in = Profile::BUILT_IN.contains(&stored.profile.as_str());
    let profile = built_in.then_some(stored.profile.as_str());
    let loaded = LoadedModel::load(args, stored.geometry.element, profile)?;
    let current = loaded.fingerprint(stored.chunk_tokens, stored.unit_rows);
    if let Some(mismatch) = stored.mismatch(&current) {
        let (path, mismatch) = (root.to_owned(), Box::new(mismatch));
        return Err(StoreError::Mismatch { path, mismatch }.into());
    }
    if !store.manifest().complete {
        let shards = store.manifest().shards.len();
        crate::report::warn(&format!(
            "{}: the build is not finished, only {shards} shards are searched; run the same build again to go on",
            root.display()
        ));
    }
    Ok((store, loaded))
}

/// Speaks of every block that was damaged and computed again.
fn warn_of_damages(damages: &[hyperrag_rerank::Damage]) {
    for damage in damages {
        crate::report::warn(&format!(
            "{}; the block of {} was computed again",
            damage.what, damage.key.chunk
        ));
    }
}

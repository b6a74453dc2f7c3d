//! A store as the command line names it: a folder, or the URL of a place that it was exported to. Of a place, all
//! but the shards is fetched once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use hyperrag_core::{Digest, TierRole};
use hyperrag_engine::build::build_place::BuildPlace;
use hyperrag_engine::open::collection_list::collection_at;
use hyperrag_engine::open::largest_block;
use hyperrag_engine::open::tiers::{TierLogins, TierSpec, open_tiers};
use hyperrag_engine::shared::fetch;
use hyperrag_engine::shared::place::{SharedPlace, is_url};
use hyperrag_engine::{ByteProgress, Engine};
use hyperrag_model::{CATALOG, ModelCache};
use hyperrag_store::TierChoice;

use crate::error::Usage;
use crate::{hint, report};

/// Opens a place, with the secrets that the environment has.
pub(crate) fn open_place(text: &str) -> Result<SharedPlace> {
    Ok(SharedPlace::open(text, &TierLogins::from_environment())?)
}

/// Folder beside the models that has fetched stores.
const STORES: &str = "stores";
/// Folder beside the models for the work on stores that many processes build elsewhere.
const BUILDS: &str = "builds";

/// A store in a folder of this machine.
pub(crate) struct NamedStore {
    /// Folder of the store. Without shards, if there is a place.
    pub(crate) root: PathBuf,
    /// Place of its blocks, if that is not the folder.
    pub(crate) place: Option<SharedPlace>,
}

/// Finds the store that `store` names, and fetches its files where it is a URL.
pub(crate) fn named(store: &Path) -> Result<NamedStore> {
    if let Some(list) = collection_at(store) {
        return Err(
            Usage(format!("{}: a list of stores, which only query takes", list.display())).into()
        );
    }
    match store.to_str().filter(|text| is_url(text)) {
        None => Ok(NamedStore { root: store.to_owned(), place: None }),
        Some(url) => {
            let place = open_place(url)?;
            let root = fetched(&place)?;
            Ok(NamedStore { root, place: Some(place) })
        }
    }
}

/// Fetches the files of the store at a place, unless they are here, and returns their folder.
pub(crate) fn fetched(place: &SharedPlace) -> Result<PathBuf> {
    let home = beside_models(STORES)?;
    let progress = ByteProgress::default();
    let fetched = report::watch_bytes(&progress, || fetch(place, &home, &progress))?;
    fetched.warning.iter().for_each(hint::warn);
    Ok(fetched.root)
}

/// Returns the path of a folder beside that of all models.
fn beside_models(name: &str) -> Result<PathBuf> {
    // A model lies in a folder of its own below that of all models.
    let model = ModelCache::from_environment().path(&CATALOG[0])?;
    Ok(model.ancestors().nth(2).unwrap_or(&model).with_file_name(name))
}

/// Opens the place in which many processes build one store, and names the folder for what is on its way there.
pub(crate) fn build_place(store: &Path, scratch: Option<&Path>) -> Result<(BuildPlace, PathBuf)> {
    let place = BuildPlace::open(store, &TierLogins::from_environment())?;
    let scratch = match (scratch, place.scratch()) {
        (Some(scratch), _) => scratch.to_owned(),
        (None, Some(scratch)) => scratch,
        (None, None) => {
            let name = Digest::of(place.name.as_bytes()).to_string();
            beside_models(BUILDS)?.join(&name[..32])
        }
    };
    Ok((place, scratch))
}

impl NamedStore {
    /// Has an engine read blocks from the place, if there is one.
    pub(crate) fn with_place(self, engine: Engine) -> Engine {
        match self.home() {
            None => engine,
            Some(home) => engine.with_places(vec![home]),
        }
    }

    /// Has an engine read blocks from these tiers, among which `store` is the store as it was named. A list of
    /// caches alone ends with the place.
    pub(crate) fn with_tiers(self, engine: Engine, specs: &[TierSpec]) -> Result<Engine> {
        if specs.is_empty() {
            return Ok(self.with_place(engine));
        }
        let logins = TierLogins::from_environment();
        let mut choices = open_tiers(specs, &logins, largest_block(&engine.store))?;
        if let Some(home) = self.home() {
            let is_cache = |choice: &TierChoice| match choice {
                TierChoice::Store => false,
                TierChoice::Tier { tier, .. } => tier.shape().role == TierRole::Cache,
            };
            if choices.iter().all(is_cache) {
                choices.push(TierChoice::Store);
            }
            for choice in &mut choices {
                if matches!(choice, TierChoice::Store) {
                    *choice = home.clone();
                }
            }
        }
        Ok(engine.with_places(choices))
    }

    /// Returns the place as a tier.
    fn home(&self) -> Option<TierChoice> {
        let SharedPlace { blocks, patience, .. } = self.place.as_ref()?;
        Some(TierChoice::Tier { tier: Arc::clone(blocks), patience: *patience })
    }
}

//! Opens a collection: the path of a list of stores comes in, the stores with the one model that reads them go
//! out, or why they do not belong together.

use std::path::Path;

use hyperrag_model::{Model, Tokenizer};
use hyperrag_store::{Store, StoreError, Tiered};

use crate::error::EngineError;
use crate::open::collection_list::folders;
use crate::open::error::OpenError;
use crate::open::request::ModelRequest;
use crate::open::{Engine, LoadedModel, OpenSession};
use crate::search::collection::CollectionSession;
use crate::search::session::Session;

/// Session of a collection with a model from files.
pub type OpenCollectionSession<'a> = CollectionSession<'a, Model, Tokenizer>;

/// Stores that answer as one, with the model that reads them.
pub struct OpenCollection {
    /// The first store, with the model.
    pub first: Engine,
    others: Vec<Tiered>,
}

impl OpenCollection {
    /// Opens the stores of the list at `path`, and loads the model of the first to rank their documents.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] for a store with another fingerprint than the first; the errors of opening a
    /// store.
    pub fn open(path: &Path, request: &ModelRequest<'_>) -> Result<Self, OpenError> {
        let roots = folders(path)?;
        let mut others = Vec::new();
        // A store that is missing or of another kind is named before a model is loaded.
        let stored = Store::open(&roots[0])?.manifest().fingerprint.clone();
        for root in &roots[1..] {
            let store = Tiered::open(root)?;
            store.warnings().iter().for_each(|warning| (request.warn)(warning));
            store.doubt().into_iter().for_each(request.warn);
            if let Some(mismatch) = store.manifest().fingerprint.mismatch(&stored) {
                return Err(StoreError::mismatch(root, mismatch).into());
            }
            others.push(store);
        }
        Ok(Self { first: Engine::open_to_rank(&roots[0], request)?, others })
    }

    /// The stores, in the order of the list.
    pub fn stores(&self) -> impl Iterator<Item = &Tiered> {
        std::iter::once(&self.first.store).chain(&self.others)
    }

    /// Opens a session on all stores; `ranking` says how each of their sessions ranks.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn session<'a>(
        &'a self,
        ranking: impl Fn(OpenSession<'a>) -> OpenSession<'a>,
    ) -> Result<OpenCollectionSession<'a>, EngineError> {
        let LoadedModel { tokenizer, profile, model, .. } = &self.first.loaded;
        let open = |store| Ok(ranking(Session::open(store, model, tokenizer, profile)?));
        let members: Result<Vec<_>, EngineError> = self.stores().map(open).collect();
        Ok(CollectionSession::new(members?))
    }
}

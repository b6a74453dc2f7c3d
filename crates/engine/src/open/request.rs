//! The request for a model: names that a user gave and a store notes, and choices. The files of the model come
//! out. It loads no weights.

use std::path::Path;

use hyperrag_core::{Hint, NotedPart, Warning};
use hyperrag_model::{CATALOG, DeviceChoice, DtypeChoice, ModelCache, ModelFile};
use hyperrag_store::StoreNotes;

use crate::notes::ChosenName;
use crate::open::error::OpenError;

/// Names a model and says how it is loaded.
#[derive(Clone, Copy, Debug)]
pub struct ModelRequest<'a> {
    /// Name, path or id of the model; without it that of the store, or the first of the catalogue.
    pub model: Option<&'a str>,
    /// File or folder of the tokenizer; without it that of the model.
    pub tokenizer: Option<&'a str>,
    /// Name or file of the profile; without it that of the store, or what the model knows.
    pub profile: Option<&'a str>,
    /// Notes of the store. [`Engine::open`](crate::Engine::open) reads them itself.
    pub notes: Option<&'a StoreNotes>,
    /// Device that computes.
    pub device: DeviceChoice,
    /// Type of weights and products.
    pub dtype: DtypeChoice,
    /// Threads on the CPU; 0 is one a core.
    pub threads: usize,
    /// Told what a user should know meanwhile.
    pub warn: fn(&Warning),
}

impl<'a> ModelRequest<'a> {
    fn noted(&self, of: fn(&StoreNotes) -> &Option<String>) -> Option<&'a str> {
        self.notes.and_then(|notes| of(notes).as_deref())
    }

    pub(super) fn model(&self) -> ChosenName<'a> {
        let chosen = ChosenName::of(self.model, self.noted(|notes| &notes.model));
        chosen.unwrap_or(ChosenName { name: CATALOG[0].name, noted: false })
    }

    /// Returns the tokenizer's name. A noted one belongs to the noted model.
    pub(super) fn tokenizer(&self) -> Option<ChosenName<'a>> {
        let noted = self.noted(|notes| &notes.tokenizer);
        ChosenName::of(self.tokenizer, noted.filter(|_| self.model.is_none()))
    }

    pub(super) fn profile(&self) -> Option<ChosenName<'a>> {
        ChosenName::of(self.profile, self.noted(|notes| &notes.profile))
    }

    /// Opens the files of the model. Weights are hashed anew, or their digest remembered. A noted model is
    /// never fetched: no user asked for it.
    pub(super) fn open(&self, weights: Weights) -> Result<ModelFile, OpenError> {
        let cache = ModelCache::from_environment().warning(self.warn);
        let chosen = self.model();
        let opened = match chosen.noted {
            true => cache.resolve_here(chosen.name),
            false => cache.resolve(chosen.name),
        };
        let opened = opened.and_then(|path| match weights {
            Weights::Hashed => ModelFile::open(&path),
            Weights::Remembered => cache.open_at(&path),
        });
        let file = noted(opened, NotedPart::Model, chosen)?;
        self.tell_of_noted_tokenizer();
        match self.tokenizer() {
            None => Ok(file),
            Some(chosen) => {
                let file = file.with_tokenizer(Path::new(chosen.name));
                noted(file, NotedPart::Tokenizer, chosen)
            }
        }
    }

    /// Tells the user where a noted tokenizer is not used, as a model was named without one.
    fn tell_of_noted_tokenizer(&self) {
        let noted = self.noted(|notes| &notes.tokenizer).filter(|_| self.tokenizer().is_none());
        if let Some(noted) = noted {
            let what = format!(
                "the store was made with the tokenizer {noted}, which belongs to the model that it notes \
                 and is not used with another one"
            );
            let hint = Some(Hint::GiveNotedTokenizer { noted: noted.to_owned() });
            (self.warn)(&Warning { what, hint });
        }
    }
}

/// Says that the store notes this part, where that is why it was used and it cannot be.
pub(super) fn noted<T>(
    result: Result<T, impl Into<OpenError>>,
    part: NotedPart,
    chosen: ChosenName<'_>,
) -> Result<T, OpenError> {
    result.map_err(|error| match chosen.noted {
        true => {
            let (name, source) = (chosen.name.to_owned(), Box::new(error.into()));
            OpenError::Noted { part, name, source }
        }
        false => error.into(),
    })
}

/// Digest of the weights of a model that is opened.
#[derive(Clone, Copy)]
pub(super) enum Weights {
    Hashed,
    Remembered,
}

//! The digest of everything that a model computes with: tensors and configuration as they are read.
//!
//! In: an opened model file. Out: a digest. Metadata, the order of tensors and their spread over files
//! do not change it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::path::{Path, PathBuf};

use hyperrag_core::{Coverage, Digest};
use rayon::prelude::*;

use crate::arch::weights::{TensorRows, WeightSource, Weights};
use crate::error::LoadError;
use crate::format::digest_memory::DigestMemory;
use crate::format::model_file::{ModelFile, ModelFormat};
use crate::format::raw_tensor::RawTensor;

impl ModelFile {
    /// Returns the digest of the weights and of all that says how they are used. The weights are read
    /// at most once for it, and not at all if [`ModelFile::with_digests_in`] remembers it.
    ///
    /// # Errors
    /// [`LoadError`] if the weights cannot be read or a tensor is missing.
    pub fn digest(&self, coverage: Coverage) -> Result<Digest, LoadError> {
        let known = match coverage {
            Coverage::Files => &self.digest_of_files,
            Coverage::Contents => &self.digest_of_contents,
        };
        if let Some(digest) = known.get() {
            return Ok(*digest);
        }
        let digest = match coverage {
            Coverage::Contents => contents_digest(self, self.memory.as_ref())?,
            Coverage::Files => self.files_digest()?,
        };
        Ok(*known.get_or_init(|| digest))
    }

    /// Hashes the bytes of all files that weights and sizes are read from.
    fn files_digest(&self) -> Result<Digest, LoadError> {
        let hash = || match &self.format {
            ModelFormat::Gguf(file) => file.digest(),
            ModelFormat::Folder(folder) => folder.digest(),
        };
        let Some(memory) = &self.memory else { return hash() };
        let paths = match &self.format {
            ModelFormat::Gguf(file) => file.files(),
            ModelFormat::Folder(folder) => folder.hashed_files(),
        };
        let open = |path: &PathBuf| {
            let opened = hyperrag_files::open(path);
            opened.map_err(LoadError::io(path, "the model file cannot be opened"))
        };
        let files: Vec<File> = paths.iter().map(open).collect::<Result<_, _>>()?;
        memory.digest(&files.iter().collect::<Vec<_>>(), "files", hash)
    }
}

/// Hashes a text: the configuration, the conventions for rows, and a line for each tensor. The bytes of
/// tensors are read only if `memory` does not know the digest.
fn contents_digest(file: &ModelFile, memory: Option<&DigestMemory>) -> Result<Digest, LoadError> {
    let mut listed = TensorListing { file, tensors: Vec::new() };
    Weights::read(file.config(), &mut listed)?;
    listed.tensors.sort_unstable();
    // Rows of a fused tensor are read part by part.
    listed.tensors.dedup();
    let named = listed.tensors.into_iter().map(|(name, shape)| {
        let raw = file.raw(&name, &shape)?;
        Ok((format!("{name} {shape:?} {}", raw.kind), raw))
    });
    let tensors: Vec<(String, RawTensor<'_>)> = named.collect::<Result<_, LoadError>>()?;
    let mut text = file.config().canonical_text();
    // The same rows have another meaning in a GGUF than in a folder.
    let _ = writeln!(text, "conventions={}", file.conventions());
    let Some(memory) = memory else { return hash(text, &tensors) };

    let files: BTreeMap<&Path, &File> =
        tensors.iter().map(|(_, raw)| (raw.path, raw.file)).collect();
    let mut what = text.clone();
    for (name, raw) in &tensors {
        let _ = writeln!(what, "{name} {} {} {}", raw.path.display(), raw.offset, raw.bytes);
    }
    let files: Vec<&File> = files.into_values().collect();
    memory.digest(&files, &what, || hash(text, &tensors))
}

fn hash(mut text: String, tensors: &[(String, RawTensor<'_>)]) -> Result<Digest, LoadError> {
    let lines = tensors.par_iter().map(|(name, raw)| Ok(format!("{name} {}\n", raw.digest()?)));
    let lines: Vec<String> = lines.collect::<Result<_, LoadError>>()?;
    text.extend(lines);
    Ok(Digest::of(text.as_bytes()))
}

/// Records which tensors the decoder reads, without reading them.
struct TensorListing<'a> {
    file: &'a ModelFile,
    tensors: Vec<(String, Vec<usize>)>,
}

impl WeightSource for TensorListing<'_> {
    type Matrix = ();
    type Vector = ();

    fn has(&self, name: &str) -> bool {
        self.file.has(name)
    }

    fn pairs_halves(&self) -> bool {
        self.file.pairs_halves()
    }

    fn matrix(&mut self, parts: Vec<TensorRows>, inputs: usize) -> Result<(), LoadError> {
        self.tensors.extend(parts.into_iter().map(|part| (part.name, vec![part.of, inputs])));
        Ok(())
    }

    fn vector_times(&mut self, parts: Vec<TensorRows>, _: f32) -> Result<(), LoadError> {
        self.tensors.extend(parts.into_iter().map(|part| (part.name, vec![part.of])));
        Ok(())
    }
}

//! The digest of everything that a model computes with: tensors and configuration as they are read.
//!
//! In: an opened model file. Out: a digest. Metadata, the order of tensors and their spread over files
//! do not change it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use hyperrag_core::Digest;
use rayon::prelude::*;

use crate::digest_memory::DigestMemory;
use crate::weights::{Part, WeightSource, Weights};
use crate::{LoadError, ModelFile};

/// Number of bytes of a tensor that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// Location of a tensor's bytes in a file.
pub(crate) struct RawTensor<'a> {
    pub(crate) file: &'a File,
    pub(crate) path: &'a Path,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    /// Name of the element type in GGUF or safetensors.
    pub(crate) kind: &'a str,
}

impl RawTensor<'_> {
    fn digest(&self) -> Result<Digest, LoadError> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; READ_BYTES.min(usize::try_from(self.bytes).unwrap_or(READ_BYTES))];
        let (mut offset, end) = (self.offset, self.offset + self.bytes);
        while offset < end {
            let part = (end - offset).min(READ_BYTES as u64) as usize;
            let read = self.file.read_exact_at(&mut buffer[..part], offset);
            read.map_err(LoadError::io(self.path, "the weights cannot be read"))?;
            hasher.update(&buffer[..part]);
            offset += part as u64;
        }
        Ok(Digest(*hasher.finalize().as_bytes()))
    }
}

/// Hashes a text: the configuration, the conventions for rows, and a line for each tensor. The bytes of
/// tensors are read only if `memory` does not know the digest.
pub(crate) fn contents_digest(
    file: &ModelFile,
    memory: Option<&DigestMemory>,
) -> Result<Digest, LoadError> {
    let mut listed = Listing { file, tensors: Vec::new() };
    Weights::read(file.config(), &mut listed)?;
    listed.tensors.sort_unstable();
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
struct Listing<'a> {
    file: &'a ModelFile,
    tensors: Vec<(String, Vec<usize>)>,
}

impl WeightSource for Listing<'_> {
    type Matrix = ();
    type Vector = ();

    fn has(&self, name: &str) -> bool {
        self.file.has(name)
    }

    fn pairs_halves(&self) -> bool {
        self.file.pairs_halves()
    }

    fn matrix(&mut self, parts: Vec<Part>, inputs: usize) -> Result<(), LoadError> {
        self.tensors.extend(parts.into_iter().map(|part| (part.name, vec![part.rows, inputs])));
        Ok(())
    }

    fn vector(&mut self, parts: Vec<Part>) -> Result<(), LoadError> {
        self.tensors.extend(parts.into_iter().map(|part| (part.name, vec![part.rows])));
        Ok(())
    }
}

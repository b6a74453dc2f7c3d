//! A store with everything in it, and the check of a damaged one.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use hyperrag_core::{
    BlockKey, BlockRead, Chunk, ChunkRead, Coverage, Fingerprint, KvBlock, KvDtype, LanguageModel,
    Profile, Slot,
};
use hyperrag_corpus::{Chunker, Columns, Corpus};
use hyperrag_engine::maintain::verify::{VerifySettings, verify};
use hyperrag_engine::{Add, BuildInput, BuildProgress, ByteProgress, Memory, build};
use hyperrag_model::{ComputeDtype, CpuModel, KERNEL_ID, Kernel, ModelFile, Tokenizer};
use hyperrag_retrieval::{Index, RetrievalError};
use hyperrag_store::{FORMAT_VERSION, Store};
use tempfile::TempDir;

use crate::world::{Found, read_tree, with_documents};

const ROWS: u64 = 12;
const UNIT_ROWS: u32 = 5;
const CHUNK_TOKENS: u32 = 192;

pub(crate) fn testdata(name: &str) -> String {
    format!("{}/testdata/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A store of three shards, and the results of reading it.
pub(crate) struct Pristine {
    folder: TempDir,
    pub(crate) model: CpuModel,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) blocks: Vec<(BlockKey, KvBlock)>,
    chunks: Vec<Chunk>,
    hits: Found,
    found: Found,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

/// Result of reading a damaged store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Detected,
    Harmless,
    Wrong,
}

fn search(index: &Index) -> Result<Found, RetrievalError> {
    with_documents(index, index.search("honey", 9, |_| true)?)
}

impl Pristine {
    pub(crate) fn build() -> Self {
        let folder = TempDir::new().unwrap();
        let root = folder.path().join("store");
        let (model, fingerprint) = build_store(&root, ROWS);
        let store = Store::open(&root).unwrap();
        let index = Index::open(&root.join("index")).unwrap();
        let (mut blocks, mut chunks) = (Vec::new(), Vec::new());
        let hits = index.sample(ROWS as usize, |_| true).unwrap();
        let hits = with_documents(&index, hits).unwrap();
        for (hit, _) in &hits {
            for ordinal in 0..hit.location.chunks {
                let (shard, first) = (hit.location.shard, hit.location.first_slot.0);
                let document = hit.id.clone();
                let chunk = hyperrag_core::ChunkId { document, ordinal };
                let key = BlockKey { shard, slot: Slot(first + ordinal), chunk };
                let block = store.get_many(std::slice::from_ref(&key)).remove(0).unwrap().unwrap();
                chunks.push(store.chunk(&key, &mut Vec::new()).unwrap());
                blocks.push((key, block));
            }
        }
        assert_eq!((hits.len() as u64, store.manifest().shards.len()), (ROWS, 3));
        let found = search(&index).unwrap();
        assert!(!found.is_empty());
        let files = files_of(&root);
        Self { folder, model, fingerprint, blocks, chunks, hits, found, files }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Returns names and bytes of all files. The lock file's text only serves messages.
    pub(crate) fn files(&self) -> &BTreeMap<PathBuf, Vec<u8>> {
        &self.files
    }

    pub(crate) fn bytes(&self) -> usize {
        self.files.values().map(Vec::len).sum()
    }

    pub(crate) fn keys(&self) -> Vec<BlockKey> {
        self.blocks.iter().map(|(key, _)| key.clone()).collect()
    }

    /// Reads all of the store, as queries and `verify` do.
    pub(crate) fn judge(&self) -> Verdict {
        let read = catch_unwind(AssertUnwindSafe(|| self.read()));
        // A panic is neither.
        let Ok(read) = read else { return Verdict::Wrong };
        let settings = VerifySettings { deep: false, threads: 1 };
        let verified = catch_unwind(AssertUnwindSafe(|| {
            verify(&self.root(), settings, &ByteProgress::default())
        }));
        let Ok(verified) = verified else { return Verdict::Wrong };
        let clean = verified.is_ok_and(|report| report.damages.is_empty());
        match read {
            Verdict::Harmless if !clean => Verdict::Detected,
            // `verify` must find whatever a reader notices.
            Verdict::Detected if clean => Verdict::Wrong,
            read => read,
        }
    }

    fn read(&self) -> Verdict {
        let mut verdict = Verdict::Harmless;
        let mut saw = |same: Option<bool>| match same {
            Some(true) => {}
            Some(false) => verdict = Verdict::Wrong,
            None if verdict == Verdict::Harmless => verdict = Verdict::Detected,
            None => {}
        };
        match Store::open(&self.root()) {
            Err(_) => saw(None),
            Ok(store) => {
                let read = store.get_many(&self.keys());
                for (read, (_, block)) in read.iter().zip(&self.blocks) {
                    saw(read.as_ref().ok().map(|read| read.as_ref() == Some(block)));
                }
                for ((key, _), chunk) in self.blocks.iter().zip(&self.chunks) {
                    saw(store.chunk(key, &mut Vec::new()).ok().map(|read| read == *chunk));
                }
            }
        }
        match Index::open(&self.root().join("index")) {
            Err(_) => saw(None),
            Ok(index) => {
                saw(search(&index).ok().map(|found| found == self.found));
                for expected in &self.hits {
                    let hit = index.get(&expected.0.id, |_| true).map(Vec::from_iter);
                    let read = hit.and_then(|hit| with_documents(&index, hit)).ok();
                    saw(read.map(|read| read.first() == Some(expected)));
                }
            }
        }
        verdict
    }
}

/// Returns names and bytes of all files below `root` except locks, whose bytes are never read back.
fn files_of(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    assert!(root.is_dir(), "{} is no folder", root.display());
    let is_lock = |name: &Path| {
        let name = name.file_name().unwrap().to_string_lossy();
        name == "lock" || name.ends_with(".lock")
    };
    let files = read_tree(root).into_iter().filter_map(|(name, bytes)| Some((name, bytes?)));
    files.filter(|(name, _)| !is_lock(name)).collect()
}

/// Builds a store of the first `rows` passages with the tiny model.
pub(crate) fn build_store(root: &Path, rows: u64) -> (CpuModel, Fingerprint) {
    let tiny = Tiny::load();
    let corpus = Corpus::open(&[testdata("corpus.parquet")], Columns::default()).unwrap();
    tiny.build(root, &corpus, Some(rows), None);
    (tiny.model, tiny.fingerprint)
}

/// The tiny model with the settings of its stores.
pub(crate) struct Tiny {
    pub(crate) model: CpuModel,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) profile: Profile,
    pub(crate) fingerprint: Fingerprint,
}

impl Tiny {
    pub(crate) fn load() -> Self {
        let mut file = ModelFile::open(Path::new(&testdata("tiny.gguf"))).unwrap();
        let tokenizer = file.tokenizer().unwrap();
        let profile = Profile::built_in("plain").unwrap();
        let model =
            CpuModel::load(&mut file, KvDtype::Bf16, ComputeDtype::F32, Kernel::best(), 1).unwrap();
        let fingerprint = Fingerprint {
            format_version: FORMAT_VERSION,
            model: file.name(),
            weights: file.digest(Coverage::Contents).unwrap(),
            tokenizer: tokenizer.digest(Coverage::Contents),
            profile: profile.name.clone(),
            profile_digest: profile.document_digest(),
            chunk_tokens: CHUNK_TOKENS,
            unit_rows: UNIT_ROWS,
            language: "english".into(),
            kv_shape: *model.kv_shape(),
            calibration: None,
            rope: model.config().rope(),
            dtype: "f32".to_owned(),
            kernel: KERNEL_ID.to_owned(),
        };
        Self { model, tokenizer, profile, fingerprint }
    }

    pub(crate) fn build(&self, root: &Path, corpus: &Corpus, limit: Option<u64>, add: Option<Add>) {
        let Self { model, tokenizer, profile, fingerprint } = self;
        let input = BuildInput {
            model,
            corpus,
            chunker: &Chunker::new(tokenizer, profile, CHUNK_TOKENS as usize).unwrap(),
            fingerprint,
            calibration: None,
            notes: None,
            add,
            limit,
            max_bytes: None,
            memory: Memory::default(),
            warn: |_| {},
            progress: &BuildProgress::default(),
            stop: &AtomicBool::new(false),
        };
        build(&input, root).unwrap();
    }
}

//! A folder with a store, on which programs with a failing disk are run, and the checks of its
//! contents.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use hyperrag_core::Document;
use hyperrag_engine::ByteProgress;
use hyperrag_engine::maintain::verify::{VerifySettings, verify};
use hyperrag_retrieval::{Hit, Index, RetrievalError};
use hyperrag_store::{Manifest, Store, StoreError};
use tempfile::TempDir;

use crate::disk::{self, Call, ReadError};
use crate::started::{after, by};
use crate::store::testdata;

/// Number of rows of the corpus, which are three units.
const ROWS: usize = 7;
pub(crate) const UNITS: usize = 3;
const WORDS: &str = "honey";

/// Files with their bytes and folders without, by path below some folder.
pub(crate) type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

pub(crate) fn read_tree(root: &Path) -> Tree {
    let (mut tree, mut folders) = (Tree::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            let bytes = (!path.is_dir()).then(|| fs::read(&path).unwrap());
            if bytes.is_none() {
                folders.push(path);
            }
            tree.insert(name, bytes);
        }
    }
    tree
}

/// Makes `root` hold this tree and nothing else.
pub(crate) fn write_tree(root: &Path, tree: &Tree) {
    let _ = fs::remove_dir_all(root);
    fs::create_dir_all(root).unwrap();
    for (name, bytes) in tree {
        match bytes {
            Some(bytes) => fs::write(root.join(name), bytes).unwrap(),
            None => fs::create_dir_all(root.join(name)).unwrap(),
        }
    }
}

/// Hits with their documents.
pub(crate) type Found = Vec<(Hit, Document)>;

/// Reads the documents of hits.
pub(crate) fn with_documents(index: &Index, hits: Vec<Hit>) -> Result<Found, RetrievalError> {
    let documents = index.read_documents(&hits)?;
    Ok(hits.into_iter().zip(documents).collect())
}

/// Returns all documents, and those that have one of [`WORDS`].
fn read(index: &Index) -> Result<(Found, Found), RetrievalError> {
    let all = with_documents(index, index.sample(ROWS, |_| true)?)?;
    Ok((all, with_documents(index, index.search(WORDS, ROWS, |_| true)?)?))
}

pub(crate) struct World {
    folder: TempDir,
    manifest: Manifest,
    /// Shards, chunk files and manifest of the finished store.
    pub(crate) contents: Tree,
    hits: Found,
    found: Found,
    /// The answer to [`WORDS`].
    pub(crate) answer: String,
}

impl World {
    /// Builds the store once, undisturbed.
    pub(crate) fn new() -> Self {
        let folder = in_memory();
        // The program sees paths with all links followed.
        let store = folder.path().canonicalize().unwrap().join("disk/store");
        fs::create_dir(store.parent().unwrap()).unwrap();
        let run = |line: &[&str]| {
            let output = command(&folder, line).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        run(&BUILD);
        let answer = hits_of(&run(&QUERY));
        let index = Index::open(&store.join("index")).unwrap();
        let (hits, found) = read(&index).unwrap();
        let manifest = Store::open(&store).unwrap().manifest().clone();
        assert_eq!((hits.len(), manifest.shards.len()), (ROWS, UNITS));
        let contents = contents(&store);
        Self { folder, manifest, contents, hits, found, answer }
    }

    /// Returns the folder whose files the disk holds.
    pub(crate) fn disk(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join("disk")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.disk().join("store")
    }

    pub(crate) fn replica(&self) -> PathBuf {
        self.disk().join("replica")
    }

    /// Writes a file beside the disk, where the program runs.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// Returns the documents of the finished store.
    pub(crate) fn documents(&self) -> impl Iterator<Item = &Document> {
        self.hits.iter().map(|(_, document)| document)
    }

    /// Runs the program with `STORE`, `REPLICA`, `CORPUS`, `MODEL` and `SETTINGS` replaced in its
    /// words.
    pub(crate) fn run(&self, line: &[&str]) -> Output {
        command(&self.folder, line).output().unwrap()
    }

    /// Runs the program for half a minute at most and in 4 GiB of memory: a program that takes more
    /// ends with code 124 or a signal.
    pub(crate) fn run_limited(&self, line: &[&str]) -> Output {
        self.run_after("ulimit -v 4194304", line)
    }

    /// Runs the program after a shell has run `script`.
    pub(crate) fn run_after(&self, script: &str, line: &[&str]) -> Output {
        let limited = after(script, &command(&self.folder, line));
        by(&["timeout", "30"], &limited).stdin(Stdio::null()).output().unwrap()
    }

    /// Copies the program, the model and the corpus to a place that every user may read.
    pub(crate) fn open_to_all(&self) {
        let folder = self.folder.path();
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_hyperrag"), folder.join("hyperrag")).unwrap();
        for name in ["corpus.parquet", "tiny.gguf"] {
            fs::copy(testdata(name), folder.join(name)).unwrap();
        }
    }

    /// Gives the disk to the user of [`World::run_as_user`].
    pub(crate) fn give_to_user(&self) {
        let Some(id) = user() else { return };
        let below = read_tree(&self.disk()).into_keys();
        for name in below.chain([PathBuf::new()]) {
            chown(self.disk().join(name), Some(id), Some(id)).unwrap();
        }
    }

    /// Runs the copies of [`World::open_to_all`] as a user who is not root: root may open every file,
    /// whatever its mode.
    pub(crate) fn run_as_user(&self, line: &[&str]) -> Output {
        let original = command(&self.folder, line);
        let mut copy = Command::new(self.folder.path().join("hyperrag"));
        for word in original.get_args() {
            match Path::new(word).strip_prefix(testdata("")) {
                Ok(name) => copy.arg(self.folder.path().join(name)),
                Err(_) => copy.arg(word),
            };
        }
        for (name, _) in original.get_envs() {
            copy.env_remove(name);
        }
        if let Some(id) = user() {
            copy.uid(id).gid(id);
        }
        copy.current_dir(self.folder.path()).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs the program on a disk that fails at the call `nth`. Returns its calls too.
    pub(crate) fn run_faulty(
        &self,
        line: &[&str],
        fault: Option<(ReadError, usize)>,
    ) -> (Output, Vec<Call>) {
        let record = self.folder.path().join("record");
        let mut command = command(&self.folder, line);
        disk::attach(&mut command, &self.disk(), &record, fault);
        let output = command.output().unwrap();
        (output, disk::calls(&record))
    }

    /// Checks that the store at `root` equals the finished one to the byte, and that its index gives
    /// the same hits.
    pub(crate) fn is_whole(&self, root: &Path) -> Result<(), String> {
        let found = contents(root);
        if found != self.contents {
            let differ =
                |(name, bytes): &(&PathBuf, &Option<Vec<u8>>)| found.get(*name) != Some(bytes);
            let names = self.contents.iter().filter(differ).map(|(name, _)| name);
            let others = found.keys().filter(|name| !self.contents.contains_key(*name));
            return Err(format!("other bytes: {:?}", names.chain(others).collect::<Vec<_>>()));
        }
        let text = |name| fs::read_to_string(root.join(name)).unwrap_or_default();
        let (announced, manifest) = (text("generation"), text("manifest.json"));
        if !announced.ends_with(&format!(" {}\n", &manifest[13..77])) {
            return Err(format!("another manifest is announced: {announced}"));
        }
        undamaged(root, true)?;
        let index = Index::open(&root.join("index")).map_err(|error| error.to_string())?;
        match read(&index) {
            Ok((hits, found)) if hits == self.hits && found == self.found => Ok(()),
            _ => Err("the index gives other hits".to_owned()),
        }
    }

    /// Checks that a query of a complete store gives the right answer, or says why it does not.
    pub(crate) fn answers_or_refuses(&self) -> Result<(), String> {
        let Ok(store) = Store::open(&self.store()) else { return Ok(()) };
        if !store.manifest().complete {
            return Ok(());
        }
        let output = self.run(&QUERY);
        let answer = hits_of(&String::from_utf8_lossy(&output.stdout));
        match output.status.code() {
            Some(0 | 3) if answer == self.answer => Ok(()),
            Some(4) if answer.is_empty() => Ok(()),
            _ => Err(format!("a query then gives {output:?}")),
        }
    }

    /// Checks that the store at `root` reads as a part of the finished store, from its start. Returns
    /// the number of units. Only the index may be damaged.
    pub(crate) fn is_readable(&self, root: &Path) -> Result<usize, String> {
        let store = match Store::open(root) {
            Ok(store) => store,
            Err(StoreError::Absent { .. }) => return Ok(0),
            Err(error) => return Err(format!("it cannot be read: {error}")),
        };
        let manifest = store.manifest();
        if !self.manifest.shards.starts_with(&manifest.shards)
            || manifest.complete && manifest.shards.len() != UNITS
        {
            return Err("the manifest has other shards".to_owned());
        }
        undamaged(root, false)?;
        self.index_is_right(root)?;
        Ok(manifest.shards.len())
    }

    /// Checks that an index that can be opened gives right documents only.
    fn index_is_right(&self, root: &Path) -> Result<(), String> {
        let Ok(index) = Index::open(&root.join("index")) else { return Ok(()) };
        let hits = index.sample(ROWS, |_| true).and_then(|hits| with_documents(&index, hits));
        let hits = hits.map_err(|error| error.to_string())?;
        match hits.iter().all(|hit| self.hits.contains(hit)) {
            true => Ok(()),
            false => Err("the index gives other documents".to_owned()),
        }
    }
}

pub(crate) const BUILD: [&str; 5] = ["build", "CORPUS", "--limit", "7", "SETTINGS"];
/// Words for which `SETTINGS` stands, in all commands that build the store or add to it.
const SETTINGS: [&str; 14] = [
    "--store",
    "STORE",
    "--model",
    "MODEL",
    "--unit-rows",
    "3",
    "--chunk-tokens",
    "192",
    "--device",
    "cpu",
    "--threads",
    "1",
    "--profile",
    "plain",
];
pub(crate) const QUERY: [&str; 12] = [
    "query",
    WORDS,
    "--store",
    "STORE",
    "--model",
    "MODEL",
    "--device",
    "cpu",
    "--threads",
    "1",
    "--json",
    "-k=100",
];

/// Returns a user who is not root, if root runs this.
fn user() -> Option<u32> {
    let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    root.then_some(65_534)
}

/// Makes a folder, in memory if the system has a place for that: real syncs take most of the time.
fn in_memory() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

fn command(folder: &TempDir, line: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hyperrag"));
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("HYPERRAG_") {
            command.env_remove(variable);
        }
    }
    let disk = folder.path().canonicalize().unwrap().join("disk");
    let settings = |word| if word == "SETTINGS" { SETTINGS.to_vec() } else { vec![word] };
    for word in line.iter().copied().flat_map(settings) {
        match word {
            "STORE" => command.arg(disk.join("store")),
            "REPLICA" => command.arg(disk.join("replica")),
            "CORPUS" => command.arg(testdata("corpus.parquet")),
            "MODEL" => command.arg(testdata("tiny.gguf")),
            word => command.arg(word),
        };
    }
    command.current_dir(folder.path());
    command
}

/// Returns documents and scores of an answer, without the way it was found.
pub(crate) fn hits_of(stdout: &str) -> String {
    let end = stdout.find(",\"query\"").or(stdout.find(",\"stats\"")).unwrap_or(stdout.len());
    stdout[..end].to_owned()
}

/// Returns shards, chunk files and manifest.
fn contents(root: &Path) -> Tree {
    let mut tree = read_tree(root);
    tree.retain(|name, bytes| {
        let other = name.to_str().is_some_and(|name| {
            ["generation", "index", "journal-", "lock", "replicas.json"]
                .iter()
                .any(|other| name.starts_with(other))
        });
        bytes.is_some() && !other && !is_temporary(name)
    });
    tree
}

pub(crate) fn is_temporary(name: &Path) -> bool {
    let name = name.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".tmp") || name.starts_with(".tmp")
}

/// Checks that nothing is damaged. Without `with_index`, damage of the index is ignored: it can be made
/// again.
pub(crate) fn undamaged(root: &Path, with_index: bool) -> Result<(), String> {
    let mut damages = damages(root, with_index)?;
    damages.retain(|what| with_index || !what.starts_with("index"));
    if damages.is_empty() { Ok(()) } else { Err(format!("damaged: {damages:?}")) }
}

/// Returns the findings of `verify`, one sentence each.
fn damages(root: &Path, deep: bool) -> Result<Vec<String>, String> {
    let settings = VerifySettings { deep, threads: 1 };
    let report = verify(root, settings, &ByteProgress::default());
    let report = report.map_err(|error| format!("it cannot be verified: {error}"))?;
    let sentence =
        |damage: &hyperrag_store::Damage| format!("{}: {}", damage.file.display(), damage.what);
    Ok(report.damages.iter().map(sentence).collect())
}

//! Names of a store's files: a folder comes in, paths go out, and names are read back. No other file spells
//! them. It opens nothing.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use hyperrag_core::ShardId;

const MANIFEST: &str = "manifest.json";
const CALIBRATION: &str = "calibration.bin";
const GENERATION: &str = "generation";
const SHARDS: &str = "shards";
const SHARD_EXTENSION: &str = "kv";
const TABLES: &str = "tables";
const TABLE_EXTENSION: &str = "kvt";
const CHUNKS: &str = "chunks";
const CHUNK_FILE_EXTENSION: &str = "parquet";
const INDEX: &str = "index";
const INDEX_PREFIX: &str = "index-";
const REPLICAS: &str = "replicas.json";
const NOTES: &str = "notes.json";
const EXPORTS: &str = "exports";
/// Folder, and start of the names of objects, with the work of several processes that build one store.
pub const BUILD: &str = "build";
const JOURNAL_PREFIX: &str = "journal-";
const JOURNAL_SUFFIX: &str = ".log";
const OLD_MANIFEST_PREFIX: &str = "retired-";
/// Suffix that `hyperrag_files::temporary` adds.
const TEMPORARY_SUFFIX: &str = ".tmp";

/// Paths of the files in a store's folder.
#[derive(Clone, Debug)]
pub(crate) struct StorePaths {
    pub(crate) root: PathBuf,
}

impl StorePaths {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn manifest(&self) -> PathBuf {
        self.root.join(MANIFEST)
    }

    /// Returns the path of the file that announces the manifest.
    pub(crate) fn generation(&self) -> PathBuf {
        self.root.join(GENERATION)
    }

    /// Returns the path of the journal that continues the manifest of this generation.
    pub(crate) fn journal(&self, generation: u64) -> PathBuf {
        self.root.join(format!("{JOURNAL_PREFIX}{generation:06}{JOURNAL_SUFFIX}"))
    }

    pub(crate) fn calibration(&self) -> PathBuf {
        self.root.join(CALIBRATION)
    }

    pub(crate) fn replicas(&self) -> PathBuf {
        self.root.join(REPLICAS)
    }

    /// Returns the path of the notes on what the store was made with.
    pub(crate) fn notes(&self) -> PathBuf {
        self.root.join(NOTES)
    }

    /// Returns the path of a manifest that was replaced, named by its inode, for as long as a reader may hold
    /// it.
    pub(crate) fn old_manifest(&self, inode: u64) -> PathBuf {
        self.root.join(format!("{OLD_MANIFEST_PREFIX}{inode}.json"))
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Returns the folder of shards.
    pub(crate) fn shards(&self) -> PathBuf {
        self.root.join(SHARDS)
    }

    /// Returns the folder of chunk files.
    pub(crate) fn chunks(&self) -> PathBuf {
        self.root.join(CHUNKS)
    }

    /// Returns the folder of block tables that are kept without their shards.
    pub(crate) fn tables(&self) -> PathBuf {
        self.root.join(TABLES)
    }

    /// Returns the path of a shard's header and block table, as in the shard, for stores whose shards are
    /// elsewhere.
    pub(crate) fn table(&self, shard: ShardId) -> PathBuf {
        self.tables().join(format!("{shard}.{TABLE_EXTENSION}"))
    }

    /// Returns the folder of what exports have done.
    pub(crate) fn exports(&self) -> PathBuf {
        self.root.join(EXPORTS)
    }

    pub(crate) fn shard(&self, shard: ShardId) -> PathBuf {
        self.shards().join(format!("{shard}.{SHARD_EXTENSION}"))
    }

    pub(crate) fn chunk_file(&self, shard: ShardId) -> PathBuf {
        self.chunks().join(format!("{shard}.{CHUNK_FILE_EXTENSION}"))
    }
}

/// Returns the name of the index's folder with this number.
pub(crate) fn index_folder(number: u64) -> String {
    match number {
        0 => INDEX.to_owned(),
        generation => format!("{INDEX_PREFIX}{generation:06}"),
    }
}

/// Whether this is the name of an index's folder.
pub(crate) fn is_index(name: &str) -> bool {
    name == INDEX || name.starts_with(INDEX_PREFIX)
}

/// Returns the number in the name of an index's folder; `None` for the first index and for other names.
pub(crate) fn index_number(name: &str) -> Option<u64> {
    name.strip_prefix(INDEX_PREFIX)?.parse().ok()
}

/// Whether this is the name of a journal.
pub(crate) fn is_journal(name: &str) -> bool {
    name.starts_with(JOURNAL_PREFIX)
}

/// Returns the generation in the name of a journal.
pub(crate) fn journal_generation(name: &str) -> Option<u64> {
    name.strip_prefix(JOURNAL_PREFIX)?.strip_suffix(JOURNAL_SUFFIX)?.parse().ok()
}

/// Whether this is the name of a manifest that was replaced.
pub(crate) fn is_old_manifest(name: &str) -> bool {
    name.starts_with(OLD_MANIFEST_PREFIX)
}

/// Returns the name that a file gets when it is finished.
pub(crate) fn finished_name(name: &str) -> &str {
    name.strip_suffix(TEMPORARY_SUFFIX).unwrap_or(name)
}

/// Whether this is the path of the list of replicas.
pub(crate) fn is_replica_list(path: &Path) -> bool {
    path.ends_with(REPLICAS)
}

/// Whether this is the path of a chunk file.
pub(crate) fn is_chunk_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == CHUNK_FILE_EXTENSION)
}

/// Whether this is the path of a shard.
pub(crate) fn is_shard(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == SHARD_EXTENSION)
}

/// Returns the number in the name of a shard.
pub(crate) fn shard_number(name: &str) -> Option<ShardId> {
    number_before(name, SHARD_EXTENSION)
}

/// Returns the number in the name of a chunk file.
pub(crate) fn chunk_file_number(name: &str) -> Option<ShardId> {
    number_before(name, CHUNK_FILE_EXTENSION)
}

/// Returns the number in the name of a block table.
pub(crate) fn table_number(name: &str) -> Option<ShardId> {
    number_before(name, TABLE_EXTENSION)
}

fn number_before(name: &str, extension: &str) -> Option<ShardId> {
    name.strip_suffix(extension)?.strip_suffix('.')?.parse().ok().map(ShardId)
}

/// Whether this is the path, in a store's folder, of a file that an export sends beside the shards. No other
/// path is ever taken from a place that others write to.
pub(crate) fn is_sent_along(path: &str) -> bool {
    let paths = StorePaths::new(Path::new(""));
    let is = |named: PathBuf| named.to_str() == Some(path);
    let Some((folder, name)) = path.split_once('/') else {
        return [MANIFEST, GENERATION, CALIBRATION, NOTES].contains(&path);
    };
    match folder {
        CHUNKS => chunk_file_number(name).is_some_and(|shard| is(paths.chunk_file(shard))),
        TABLES => table_number(name).is_some_and(|shard| is(paths.table(shard))),
        _ => {
            let number = if folder == INDEX { Some(0) } else { index_number(folder) };
            let usual = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
            number.is_some_and(|number| index_folder(number) == folder)
                && !["", ".", ".."].contains(&name)
                && name.bytes().all(usual)
        }
    }
}

/// Whether this is the path of the manifest.
pub(crate) fn is_manifest(path: &str) -> bool {
    path == MANIFEST
}

/// Returns the name of the object that holds a whole shard in a place of files. `table` has 32 hexadecimal
/// digits.
pub(crate) fn shard_object(shard: ShardId, table: &str) -> String {
    format!("{SHARDS}/{shard}.{table}.{SHARD_EXTENSION}")
}

/// Returns the name of the object that holds a shard's header and block table, as long as no listing names them.
/// `table` has 32 hexadecimal digits.
pub(crate) fn table_object(shard: ShardId, table: &str) -> String {
    format!("{TABLES}/{shard}.{table}.{TABLE_EXTENSION}")
}

/// Returns the path of a chunk file in the store's folder, as a listing has it.
pub(crate) fn chunk_object_path(shard: ShardId) -> String {
    format!("{CHUNKS}/{shard}.{CHUNK_FILE_EXTENSION}")
}

/// Whether this is the name of the folder in which several processes build the store.
pub(crate) fn is_build(name: &OsStr) -> bool {
    name == BUILD
}

/// Kind of a file of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Blocks of a shard.
    Shard,
    /// Chunks and documents of a shard.
    ChunkFile,
    /// Means that the element type needs.
    Calibration,
    /// The file that announces the manifest.
    Generation,
    /// The notes on what the store was made with.
    Notes,
    /// Any other: manifest, journal, list of replicas, index.
    Other,
}

impl FileKind {
    /// Returns the kind of a file by its path in the store's folder.
    pub(crate) fn of(path: &Path) -> Self {
        match path.components().next().and_then(|name| name.as_os_str().to_str()) {
            Some(SHARDS) => Self::Shard,
            Some(CHUNKS) => Self::ChunkFile,
            _ if path == Path::new(CALIBRATION) => Self::Calibration,
            _ if path == Path::new(GENERATION) => Self::Generation,
            _ if path == Path::new(NOTES) => Self::Notes,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let paths = StorePaths::new(Path::new("store"));
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        for number in [1, 999_999, 1_000_000] {
            let shard = Some(ShardId(number));
            let (kv, chunks) = (paths.shard(ShardId(number)), paths.chunk_file(ShardId(number)));
            assert!(is_shard(&kv) && !is_shard(&chunks));
            let numbers = [shard_number, chunk_file_number];
            assert_eq!(numbers.map(|of| of(&name(kv.clone()))), [shard, None]);
            assert_eq!(numbers.map(|of| of(&name(chunks.clone()))), [None, shard]);
            let (journal, index) =
                (name(paths.journal(number.into())), index_folder(number.into()));
            assert!(is_journal(&journal) && is_index(&index));
            assert_eq!(journal_generation(&journal), Some(number.into()));
            assert_eq!(index_number(&index), Some(number.into()));
        }
        assert!(is_index(&index_folder(0)) && index_number(&index_folder(0)).is_none());
        assert!(is_old_manifest(&name(paths.old_manifest(5))));
        assert_eq!(finished_name("000001.kv.tmp"), "000001.kv");
        let kind = |path: PathBuf| FileKind::of(path.strip_prefix("store").unwrap());
        assert_eq!(kind(paths.shard(ShardId(1))), FileKind::Shard);
        assert_eq!(kind(paths.chunk_file(ShardId(1))), FileKind::ChunkFile);
        assert_eq!(kind(paths.calibration()), FileKind::Calibration);
        assert_eq!(kind(paths.generation()), FileKind::Generation);
        assert_eq!(kind(paths.notes()), FileKind::Notes);
        assert_eq!(kind(paths.manifest()), FileKind::Other);
    }

    #[test]
    fn only_a_stores_own_paths_are_sent_along() {
        for path in [
            "manifest.json",
            "generation",
            "notes.json",
            "calibration.bin",
            "chunks/000001.parquet",
            "tables/1000000.kvt",
            "index/.managed.json",
            "index-000004/meta.json",
        ] {
            assert!(is_sent_along(path), "{path}");
        }
        for path in [
            "",
            "..",
            "../x",
            "/etc/passwd",
            "lock",
            "replicas.json",
            "manifest.json/",
            "./manifest.json",
            "shards/000001.kv",
            "chunks/1.parquet",
            "chunks/+00001.parquet",
            "chunks/../manifest.json",
            "tables/000001.kv",
            "tables/",
            "index/..",
            "index/",
            "index/a/b",
            "index-4/meta.json",
            "index-000000/meta.json",
            "index/a b",
            "exports/a.json",
        ] {
            assert!(!is_sent_along(path), "{path}");
        }
    }
}

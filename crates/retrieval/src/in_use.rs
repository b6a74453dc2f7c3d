//! Tests of an index whose files change while it is in use, or are links.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use hyperrag_core::{DocId, Document, ShardId, Slot};
use tempfile::TempDir;

use crate::analyzer::Analyzer;
use crate::error::RetrievalError;
use crate::hit::{Hit, Location};
use crate::index::Index;
use crate::pages::PAGE_BYTES;
use crate::writer::IndexWriter;

/// Number of documents whose postings and stored texts are too long to be kept in memory.
const DOCUMENTS: u64 = 40_000;

/// Number of words in a document.
const WORDS: usize = 40;

const LOCATION: Location = Location { shard: ShardId(0), first_slot: Slot(0), chunks: 1 };

fn text(row: u64, words: usize) -> String {
    let mut state = row.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x51_7cc1;
    let word = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        format!("w{}", (state >> 33) % 3000)
    };
    (0..words).map(word).collect::<Vec<_>>().join(" ")
}

fn add(writer: &mut IndexWriter, row: u64, words: usize) {
    let id = DocId::new(&format!("d{row}")).unwrap();
    let document = Document { id, title: String::new(), text: text(row, words) };
    writer.add(row, &document, LOCATION).unwrap();
}

fn index_of(documents: u64) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = IndexWriter::open(dir.path(), Analyzer::NONE).unwrap();
    (0..documents).for_each(|row| add(&mut writer, row, WORDS));
    writer.finish(1).unwrap();
    dir
}

/// Paths of the files of a kind.
fn files(dir: &Path, kind: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == kind)).collect()
}

/// Hits with their documents.
type Found = (Vec<Hit>, Vec<Document>);

fn search_all(index: &Index) -> Vec<Result<Found, RetrievalError>> {
    let mut all: Vec<_> = (0..20).map(|n| index.search(&text(n, 5), 9, |_| true)).collect();
    all.push(index.sample(9, |_| true));
    let id = DocId::new("d777").unwrap();
    all.push(index.get(&id, |_| true).map(Vec::from_iter));
    let with_documents = |hits: Result<Vec<Hit>, _>| {
        let hits = hits?;
        let documents = index.read_documents(&hits)?;
        Ok((hits, documents))
    };
    all.into_iter().map(with_documents).collect()
}

fn right(index: &Index) -> Vec<Found> {
    search_all(index).into_iter().map(Result::unwrap).collect()
}

/// Searches while a file is changed. Returns the number of refused searches.
#[track_caller]
fn refused(index: &Index, expected: &[Found], victim: &Path) -> usize {
    let mut refused = 0;
    for (found, expected) in search_all(index).into_iter().zip(expected) {
        match found {
            Ok(found) => assert_eq!(&found, expected),
            Err(RetrievalError::Damaged { files, .. }) => {
                assert_eq!(files, [Path::new(victim.file_name().unwrap())]);
                refused += 1;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    refused
}

#[test]
fn what_changes_under_a_reader_is_an_error_and_never_a_hit() {
    let dir = index_of(DOCUMENTS);
    let index = Index::open(dir.path()).unwrap();
    let expected = right(&index);
    let kinds = ["idx", "store", "term", "fast", "fieldnorm", "pos", "pages"];
    for victim in kinds.into_iter().flat_map(|kind| files(dir.path(), kind)) {
        let whole = fs::read(&victim).unwrap();
        let file = File::options().write(true).open(&victim).unwrap();
        let mut count = 0;
        for page in (0..whole.len()).step_by(PAGE_BYTES) {
            let at = page + page / 7 % PAGE_BYTES.min(whole.len() - page);
            file.write_all_at(&[whole[at] ^ 1 << (at % 8)], at as u64).unwrap();
        }
        count += refused(&index, &expected, &victim);
        file.write_all_at(&vec![0; whole.len()], 0).unwrap();
        count += refused(&index, &expected, &victim);
        for length in [whole.len() / 2, 0] {
            file.set_len(length as u64).unwrap();
            count += refused(&index, &expected, &victim);
        }
        file.write_all_at(&whole, 0).unwrap();
        assert_eq!(right(&index), expected, "it goes on where the bytes are right again");
        let is_read_again = victim.extension().is_some_and(|kind| kind == "idx" || kind == "store");
        assert_eq!(count > 0, is_read_again, "{}", victim.display());
        fs::remove_file(&victim).unwrap();
        assert_eq!(right(&index), expected, "it has the file open");
        fs::write(&victim, &whole).unwrap();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn opening_reads_a_part_and_keeps_few_descriptors() {
    let dir = index_of(DOCUMENTS);
    let read = || {
        let io = fs::read_to_string("/proc/thread-self/io").unwrap();
        io.lines().find_map(|l| l.strip_prefix("rchar: ")).unwrap().parse::<u64>().unwrap()
    };
    let open_files = || {
        let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
        links
            .filter(|link| fs::read_link(link.path()).is_ok_and(|p| p.starts_with(dir.path())))
            .count()
    };
    let bytes: u64 =
        fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    let before = read();
    let index = Index::open(dir.path()).unwrap();
    let opening = read() - before;
    assert!(opening < bytes / 4, "{opening} of {bytes}");
    assert_eq!(open_files(), 2, "postings and stored texts");
    let hits = index.search(&text(7, 3), 5, |_| true).unwrap();
    let asking = read() - before - opening;
    assert!(asking < bytes / 10, "{asking} of {bytes}");

    // An older index is read once as a whole, and its pages are checked from then on.
    files(dir.path(), "pages").into_iter().for_each(|path| fs::remove_file(path).unwrap());
    let before = read();
    let older = Index::open(dir.path()).unwrap();
    assert!(read() - before > bytes * 9 / 10);
    assert_eq!(older.search(&text(7, 3), 5, |_| true).unwrap(), hits);
    let [store] = &files(dir.path(), "store")[..] else { panic!("one segment") };
    File::options().write(true).open(store).unwrap().set_len(0).unwrap();
    let hits = older.sample(3, |_| true).unwrap();
    assert!(matches!(older.read_documents(&hits), Err(RetrievalError::Damaged { .. })));
    drop((index, older));
    assert_eq!(open_files(), 0);

    // Many small segments need none.
    let dir = tempfile::tempdir().unwrap();
    let mut writer = IndexWriter::open(dir.path(), Analyzer::NONE).unwrap();
    for row in 0..7 {
        add(&mut writer, row, WORDS);
        writer.commit(1).unwrap();
    }
    drop(writer);
    let index = Index::open(dir.path()).unwrap();
    assert_eq!((files(dir.path(), "store").len(), index.documents()), (7, 7));
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let mut open = links.flat_map(|link| fs::read_link(link.path()));
    assert!(open.all(|path| !path.starts_with(dir.path())));
}

#[test]
fn pages_are_kept_of_each_segment_and_of_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let names = || {
        let stem = |path: PathBuf| path.file_stem().unwrap().to_owned();
        let of = |kind| files(dir.path(), kind).into_iter().map(stem).collect::<BTreeSet<_>>();
        (of("store"), of("pages"))
    };
    for row in 0..9 {
        let mut writer = IndexWriter::open(dir.path(), Analyzer::NONE).unwrap();
        add(&mut writer, row, WORDS);
        // The eighth commit causes a merge.
        writer.finish(1).unwrap();
        let (segments, kept) = names();
        assert_eq!(segments, kept);
    }
    assert!(names().0.len() < 7);
    let expected = Index::open(dir.path()).unwrap().search("w7 w77 w777 w1777", 9, |_| true);

    // A damaged one no longer spares a read; that is all, until it is checked itself.
    let [kept, ..] = &files(dir.path(), "pages")[..] else { panic!("none") };
    let mut bytes = fs::read(kept).unwrap();
    bytes[30] ^= 1;
    fs::write(kept, &bytes).unwrap();
    let index = Index::open(dir.path()).unwrap();
    assert_eq!(index.search("w7 w77 w777 w1777", 9, |_| true).unwrap(), expected.unwrap());
    for error in [
        Index::open_verified(dir.path()).err().unwrap(),
        IndexWriter::open(dir.path(), Analyzer::NONE).err().unwrap(),
    ] {
        let RetrievalError::Damaged { files, .. } = &error else { panic!("{error:?}") };
        assert_eq!(files, &[PathBuf::from(kept.file_name().unwrap())]);
    }
    // Without it, the next writer gives the segment a new one.
    fs::remove_file(kept).unwrap();
    fs::write(dir.path().join("0123.pages"), "of another segment").unwrap();
    let mut writer = IndexWriter::open(dir.path(), Analyzer::NONE).unwrap();
    writer.commit(1).unwrap();
    let (segments, kept) = names();
    assert_eq!(segments, kept);
    drop(writer);
    Index::open_verified(dir.path()).unwrap();
    // A file that it names must be there.
    let [positions, ..] = &files(dir.path(), "pos")[..] else { panic!("none") };
    fs::remove_file(positions).unwrap();
    let error = Index::open(dir.path()).err().unwrap().to_string();
    assert!(error.ends_with(".pos: is missing"), "{error}");
}

#[test]
fn a_merge_gives_damaged_bytes_no_checksum_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = IndexWriter::open(dir.path(), Analyzer::NONE).unwrap();
    for row in 0..7 {
        add(&mut writer, row, WORDS);
        writer.commit(1).unwrap();
    }
    let [victim, ..] = &files(dir.path(), "store")[..] else { panic!("none") };
    let mut bytes = fs::read(victim).unwrap();
    bytes[60] ^= 1;
    fs::write(victim, &bytes).unwrap();
    add(&mut writer, 7, WORDS);
    writer.finish(1).unwrap();
    let error = Index::open_verified(dir.path()).err().unwrap();
    let RetrievalError::Damaged { files, .. } = &error else { panic!("{error:?}") };
    assert_eq!(files, &[PathBuf::from(victim.file_name().unwrap())]);
}

#[test]
fn links_in_the_place_of_files_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::write(&outside, "mine").unwrap();
    let folder = dir.path().join("index");
    fs::create_dir(&folder).unwrap();
    for name in ["meta.json.tmp", ".managed.json.tmp", "meta.json", ".managed.json"] {
        symlink(&outside, folder.join(name)).unwrap();
    }
    assert!(IndexWriter::open(&folder, Analyzer::NONE).is_err());
    for name in ["meta.json", ".managed.json"] {
        fs::remove_file(folder.join(name)).unwrap();
    }
    let mut writer = IndexWriter::open(&folder, Analyzer::NONE).unwrap();
    add(&mut writer, 0, WORDS);
    writer.finish(1).unwrap();
    Index::open_verified(&folder).unwrap();

    for lock in [".tantivy-writer.lock", ".tantivy-meta.lock"] {
        let path = folder.join(lock);
        fs::remove_file(&path).unwrap();
        symlink(dir.path().join("new"), &path).unwrap();
        assert!(matches!(
            IndexWriter::open(&folder, Analyzer::NONE),
            Err(RetrievalError::Io { .. } | RetrievalError::Damaged { .. })
        ));
        fs::remove_file(&path).unwrap();
    }
    let [store] = &files(&folder, "store")[..] else { panic!("one segment") };
    fs::rename(store, dir.path().join("elsewhere")).unwrap();
    symlink(dir.path().join("elsewhere"), store).unwrap();
    let error = Index::open(&folder).err().unwrap().to_string();
    assert!(error.ends_with(".store: it is a symbolic link, not a file"), "{error}");
    assert_eq!(fs::read(&outside).unwrap(), b"mine");
    assert!(!dir.path().join("new").exists());
}

#[test]
fn files_have_the_rights_that_a_new_file_has() {
    let dir = index_of(30);
    let usual = dir.path().join("usual");
    fs::write(&usual, "").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), mode(&usual), "{}", path.display());
    }
    let copy = tempfile::tempdir().unwrap();
    crate::copy::copy_index(dir.path(), copy.path()).unwrap();
    for entry in fs::read_dir(copy.path()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), mode(&usual), "{}", path.display());
    }
    // A lock that may not be written does not stop a reader.
    let lock = dir.path().join(".tantivy-meta.lock");
    fs::set_permissions(&lock, Permissions::from_mode(0o444)).unwrap();
    Index::open(dir.path()).unwrap();
}

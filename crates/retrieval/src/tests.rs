//! Tests of search, commits, damage and copies, through the public items.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::slice;

use hyperrag_core::{DocId, Document, ShardId, Slot};
use tempfile::TempDir;

use crate::analyzer::Analyzer;
use crate::error::RetrievalError;
use crate::hit::{Hit, Location};
use crate::index::Index;
use crate::writer::IndexWriter;

fn document(id: &str, title: &str, text: &str) -> Document {
    Document { id: DocId::stored(id).unwrap(), title: title.to_owned(), text: text.to_owned() }
}

pub(crate) fn location(row: u64) -> Location {
    let row = u32::try_from(row).unwrap();
    Location { shard: ShardId(row / 4), first_slot: Slot(row % 4 * 2), chunks: 2 }
}

fn add_all(writer: &mut IndexWriter, texts: &[&str]) {
    for (row, text) in (0..).zip(texts) {
        writer.add(row, &document(&format!("d{row}"), "", text), location(row)).unwrap();
    }
}

fn index_of(texts: &[&str]) -> (TempDir, Index) {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = IndexWriter::open(dir.path(), Analyzer::ENGLISH).unwrap();
    add_all(&mut writer, texts);
    writer.finish(1).unwrap();
    let index = Index::open(dir.path()).unwrap();
    (dir, index)
}

fn ids(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.id.as_str()).collect()
}

fn check(texts: &[&str], query: &str, expected: &[&str]) {
    let (_dir, index) = index_of(texts);
    assert_eq!(ids(&index.search(query, 10, |_| true).unwrap()), expected, "{query}");
}

/// Makes a corpus of common and rare words and of long and short documents, some of them alike.
pub(crate) fn corpus(documents: u64) -> Vec<Document> {
    let words = ["river", "flood", "dam", "bridge", "valley", "spring", "harvest", "mill", "boat"];
    let mut state = 7_u64;
    let mut next = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    (0..documents)
        .map(|row| {
            let length = 1 + next(30);
            let text: Vec<&str> =
                (0..length).map(|_| words[next(words.len()).min(next(9))]).collect();
            document(&format!("d{row}"), words[next(9)], &text.join(" "))
        })
        .collect()
}

#[test]
fn more_and_rarer_words_rank_higher() {
    let texts = [
        "A bridge over the river.",
        "The river flooded the valley and the bridge fell into the river.",
        "A recipe for bread.",
        "River, river, and nothing but rivers.",
    ];
    check(&texts, "flooded rivers", &["d1", "d3", "d0"]);
    check(&texts, "bread", &["d2"]);
    check(&texts, "cathedral", &[]);
}

#[test]
fn the_title_is_searched_and_the_document_comes_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = IndexWriter::open(dir.path(), Analyzer::ENGLISH).unwrap();
    let added = document("id with blanks", "Über Größe", "zwölf\nBoxkämpfer 🥊");
    writer.add(3, &added, location(3)).unwrap();
    writer.finish(1).unwrap();
    let index = Index::open(dir.path()).unwrap();
    assert_eq!(index.documents(), 1);
    let [hit] = &index.search("über", 5, |_| true).unwrap()[..] else { panic!("one hit") };
    assert_eq!((&hit.id, hit.location), (&added.id, location(3)));
    assert_eq!(index.read_documents(slice::from_ref(hit)).unwrap(), slice::from_ref(&added));
    assert!(hit.score > 0.0);
    let got = index.get(&added.id, |_| true).unwrap().unwrap();
    assert_eq!(got, Hit { id: added.id, row: 3, score: 0.0, location: location(3) });
    assert_eq!(index.get(&DocId::new("id").unwrap(), |_| true).unwrap(), None);
}

#[test]
fn equal_scores_rank_by_row_and_so_does_the_cut() {
    let texts = ["river bank"; 9];
    let (_dir, index) = index_of(&texts);
    let all = index.search("river", 100, |_| true).unwrap();
    assert_eq!(ids(&all), ["d0", "d1", "d2", "d3", "d4", "d5", "d6", "d7", "d8"]);
    assert_eq!(index.search("river", 4, |_| true).unwrap(), all[..4]);
    assert!(index.search("river", 0, |_| true).unwrap().is_empty());

    // Added in the reverse order, one segment each.
    let dir = tempfile::tempdir().unwrap();
    let mut writer = IndexWriter::open(dir.path(), Analyzer::ENGLISH).unwrap();
    for row in (0..9).rev() {
        let text = document(&format!("d{row}"), "", "river bank");
        writer.add(row, &text, location(row)).unwrap();
        writer.commit(0).unwrap();
    }
    drop(writer);
    assert_eq!(Index::open(dir.path()).unwrap().search("river", 4, |_| true).unwrap(), all[..4]);
}

#[test]
fn a_document_that_is_not_there_is_damage() {
    let (_dir, index) = index_of(&["river dam", "river"]);
    let mut hits = index.search("river", 5, |_| true).unwrap();
    hits[1].row = 7;
    let error = index.read_documents(&hits).unwrap_err();
    assert!(matches!(error, RetrievalError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().ends_with("the document of row 7 is missing"), "{error}");
}

#[test]
fn a_repeated_word_counts_repeatedly() {
    let (_dir, index) = index_of(&["river river dam", "dam dam river", "bread"]);
    let score = |query, id: &str| {
        let hits = index.search(query, 5, |_| true).unwrap();
        hits.iter().find(|hit| hit.id.as_str() == id).unwrap().score
    };
    let twice = score("dam dam", "d0");
    assert_eq!(twice, 2.0 * score("dam", "d0"));
    assert_eq!(ids(&index.search("river river dam", 5, |_| true).unwrap()), ["d0", "d1"]);
    assert_eq!(ids(&index.search("dam river dam", 5, |_| true).unwrap()), ["d1", "d0"]);
}

#[test]
fn a_score_is_bm25() {
    let (_dir, index) = index_of(&["river river dam", "mill", "bread oven"]);
    let [hit] = &index.search("river", 5, |_| true).unwrap()[..] else { panic!("one hit") };
    let idf = (1.0_f32 + (3.0 - 1.0 + 0.5) / (1.0 + 0.5)).ln();
    let length = 1.0 - 0.75 + 0.75 * 3.0 / 2.0;
    let expected = idf * 2.2 * 2.0 / (2.0 + 1.2 * length);
    assert!((hit.score - expected).abs() < 1e-5, "{} {expected}", hit.score);
}

#[test]
fn a_query_without_words_finds_nothing() {
    let (_dir, index) = index_of(&["the river is not the dam", ""]);
    for query in ["", "   ", "the is not of", "?!", "\0", "*", &"y".repeat(10_000)] {
        assert!(index.search(query, 5, |_| true).unwrap().is_empty(), "{query}");
    }
    let (_dir, empty) = index_of(&[]);
    assert_eq!(empty.documents(), 0);
    assert!(empty.search("river", 5, |_| true).unwrap().is_empty());
    assert!(empty.sample(5, |_| true).unwrap().is_empty());
    assert_eq!(empty.get(&DocId::new("d0").unwrap(), |_| true).unwrap(), None);
}

#[test]
fn nothing_in_a_query_is_an_operator() {
    let (_dir, index) = index_of(&["river dam", "river", "dam", "id d1"]);
    let plain = index.search("river dam", 9, |_| true).unwrap();
    for query in [
        "river AND dam",
        "+river -dam",
        "\"river dam",
        "river* dam~2^3",
        "(river [ dam TO",
        "river: \\dam",
        "NOT river || dam",
    ] {
        let hits = index.search(query, 9, |_| true).unwrap();
        assert_eq!(ids(&hits)[..3], ids(&plain)[..], "{query}");
    }
    assert_eq!(ids(&index.search("id:d1", 9, |_| true).unwrap()), ["d3"]);
}

#[test]
fn rankings_do_not_depend_on_commits() {
    let documents = corpus(100);
    let rankings = |commit_every: usize, merge: bool| {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = IndexWriter::open(dir.path(), Analyzer::ENGLISH).unwrap();
        for (row, document) in (0..).zip(&documents) {
            writer.add(row, document, location(row)).unwrap();
            if (row as usize).is_multiple_of(commit_every) {
                writer.commit(1).unwrap();
            }
        }
        if merge {
            writer.finish(2).unwrap()
        } else {
            writer.commit(2).unwrap()
        }
        let index = Index::open(dir.path()).unwrap();
        let long = "river flood dam bridge valley spring harvest mill boat river dam dam boat";
        let queries = ["river", "boat mill", "flood the dam", "valley spring harvest", long];
        let hits: Vec<Vec<Hit>> = queries
            .iter()
            .flat_map(|query| {
                [
                    index.search(query, 7, |_| true).unwrap(),
                    index.search(query, 100, |_| true).unwrap(),
                ]
            })
            .collect();
        (hits, index.sample(10, |_| true).unwrap())
    };
    let once = rankings(1000, true);
    assert!(once.0.iter().all(|hits| hits.len() >= 7));
    assert_eq!(once.1.len(), 10);
    assert_eq!(once, rankings(1, true));
    assert_eq!(once, rankings(1, false));
    assert_eq!(once, rankings(17, false));
}

#[test]
fn a_writer_goes_on_where_the_last_commit_left_off() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("new/index");
    let mut writer = IndexWriter::open(&folder, Analyzer::ENGLISH).unwrap();
    assert_eq!(writer.indexed_shards(), 0);
    writer.add(0, &document("a", "", "river"), location(0)).unwrap();
    writer.commit(4).unwrap();
    assert_eq!(writer.indexed_shards(), 4);
    writer.add(1, &document("b", "", "river"), location(1)).unwrap();
    drop(writer);

    let before = Index::open(&folder).unwrap();
    assert_eq!(ids(&before.search("river", 5, |_| true).unwrap()), ["a"]);
    let mut writer = IndexWriter::open(&folder, Analyzer::ENGLISH).unwrap();
    assert_eq!(writer.indexed_shards(), 4);
    writer.add(2, &document("c", "", "river"), location(2)).unwrap();
    writer.finish(5).unwrap();
    assert_eq!(IndexWriter::open(&folder, Analyzer::ENGLISH).unwrap().indexed_shards(), 5);
    assert_eq!(
        ids(&Index::open(&folder).unwrap().search("river", 5, |_| true).unwrap()),
        ["a", "c"]
    );
    assert_eq!(
        ids(&before.search("river", 5, |_| true).unwrap()),
        ["a"],
        "an open index does not change"
    );
}

#[test]
fn one_writer_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let writer = IndexWriter::open(dir.path(), Analyzer::ENGLISH).unwrap();
    assert!(matches!(
        IndexWriter::open(dir.path(), Analyzer::ENGLISH),
        Err(RetrievalError::Locked { .. })
    ));
    Index::open(dir.path()).unwrap();
    drop(writer);
    IndexWriter::open(dir.path(), Analyzer::ENGLISH).unwrap();
}

#[test]
fn a_huge_document_is_indexed() {
    let mut text = "river ".repeat(1_000_000);
    text.push_str("confluence");
    let (_dir, index) = index_of(&[&text, "river"]);
    let hits = index.search("confluence", 5, |_| true).unwrap();
    assert_eq!(index.read_documents(&hits).unwrap()[0].text, text);
}

#[test]
fn text_that_waits_too_long_is_written_before_the_commit() {
    let text = "river dam mill boat ".repeat(200_000);
    let dir = tempfile::tempdir().unwrap();
    let mut writer = IndexWriter::open(dir.path(), Analyzer::ENGLISH).unwrap();
    add_all(&mut writer, &[text.as_str(); 20]);
    drop(writer);
    assert_eq!(Index::open(dir.path()).unwrap().documents(), 0, "nothing was committed");

    let mut writer = IndexWriter::open(dir.path(), Analyzer::ENGLISH).unwrap();
    add_all(&mut writer, &[text.as_str(); 20]);
    writer.finish(1).unwrap();
    let index = Index::open(dir.path()).unwrap();
    assert_eq!(ids(&index.search("mill", 3, |_| true).unwrap()), ["d0", "d1", "d2"]);
    assert_eq!(index.documents(), 20);
}

#[test]
fn many_documents_of_a_word_cross_the_scoring_window() {
    let texts = vec!["river"; 10_000];
    let (_dir, index) = index_of(&texts);
    let hits = index.search("river", 20_000, |_| true).unwrap();
    assert_eq!(hits.len(), 10_000);
    assert!(hits.windows(2).all(|pair| pair[0].score == pair[1].score));
    assert_eq!(hits[9_999].id.as_str(), "d9999");
}

#[test]
fn a_folder_without_an_index_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let missing = |dir: &Path| matches!(Index::open(dir), Err(RetrievalError::Missing { .. }));
    assert!(missing(dir.path()));
    assert!(missing(&dir.path().join("absent")));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "looking leaves nothing behind");

    let (dir, index) = index_of(&["river"]);
    drop(index);
    fs::remove_file(dir.path().join("meta.json")).unwrap();
    assert!(missing(dir.path()));
    let mut writer = IndexWriter::open(dir.path(), Analyzer::ENGLISH).unwrap();
    assert_eq!(writer.indexed_shards(), 0, "it is filled again from the start");
    add_all(&mut writer, &["river"]);
    writer.finish(1).unwrap();
    assert_eq!(Index::open(dir.path()).unwrap().documents(), 1);

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(Index::open(&file), Err(RetrievalError::Io { .. })));
    assert!(matches!(IndexWriter::open(&file, Analyzer::ENGLISH), Err(RetrievalError::Io { .. })));
}

/// Copies an index to a folder in which its files can be damaged.
fn copy(from: &Path, to: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copied = to.join(path.file_name().unwrap());
        fs::copy(&path, &copied).unwrap();
        files.push(copied);
    }
    files.sort();
    files
}

const QUERIES: [&str; 3] = ["river", "flood the mill", "boat bridge boat valley"];

/// Hits with their documents.
pub(crate) type Found = (Vec<Hit>, Vec<Document>);

/// Returns the rankings of an index that may be damaged, with the documents.
pub(crate) fn answers(dir: &Path) -> Result<Vec<Found>, RetrievalError> {
    let index = Index::open(dir)?;
    let mut answers = vec![
        index.sample(3, |_| true)?,
        Vec::from_iter(index.get(&DocId::new("d1").unwrap(), |_| true)?),
    ];
    for query in QUERIES {
        answers.push(index.search(query, 20, |_| true)?);
    }
    let with_documents = |hits: Vec<Hit>| {
        let documents = index.read_documents(&hits)?;
        Ok((hits, documents))
    };
    answers.into_iter().map(with_documents).collect()
}

fn small_index() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = IndexWriter::open(dir.path(), Analyzer::ENGLISH).unwrap();
    for (row, document) in (0..).zip(&corpus(40)) {
        writer.add(row, document, location(row)).unwrap();
        if row == 20 {
            writer.commit(1).unwrap();
        }
    }
    writer.finish(2).unwrap();
    dir
}

#[test]
fn flipped_bytes_never_change_a_ranking() {
    let original = small_index();
    let expected = answers(original.path()).unwrap();
    let spoilt = tempfile::tempdir().unwrap();
    let mut kinds = BTreeSet::new();
    for file in copy(original.path(), spoilt.path()) {
        let bytes = fs::read(&file).unwrap();
        let mut refused = 0;
        for at in (0..bytes.len()).step_by((bytes.len() / 200).max(1)) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            fs::write(&file, &changed).unwrap();
            match answers(spoilt.path()) {
                Ok(answers) => {
                    assert_eq!(answers, expected, "{} at {at}", file.display());
                    refused += usize::from(Index::open_verified(spoilt.path()).is_err());
                }
                Err(_) => refused += 1,
            }
        }
        fs::write(&file, &bytes).unwrap();
        let extension = file.extension().map(|e| e.to_string_lossy().into_owned());
        if let Some(extension) = extension.filter(|extension| extension != "lock") {
            assert!(refused > 0, "{}", file.display());
            kinds.insert(extension);
        }
    }
    let all = ["fast", "fieldnorm", "idx", "json", "pages", "pos", "store", "term"];
    assert_eq!(kinds, all.map(str::to_owned).into());
    assert_eq!(answers(spoilt.path()).unwrap(), expected);
}

#[test]
fn truncated_and_missing_files_are_damage_by_name() {
    let original = small_index();
    let expected = answers(original.path()).unwrap();
    let spoilt = tempfile::tempdir().unwrap();
    for file in copy(original.path(), spoilt.path()) {
        let bytes = fs::read(&file).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        for length in [0, 1, bytes.len() / 2, bytes.len().saturating_sub(1)] {
            fs::write(&file, &bytes[..length.min(bytes.len())]).unwrap();
            match answers(spoilt.path()) {
                Ok(answers) => assert_eq!(answers, expected, "{name} cut at {length}"),
                Err(error) => {
                    assert!(matches!(error, RetrievalError::Damaged { .. }), "{error:?}");
                    assert!(error.to_string().contains(name), "{error}");
                }
            }
        }
        fs::remove_file(&file).unwrap();
        match answers(spoilt.path()) {
            Ok(answers) => assert_eq!(answers, expected, "{name} removed"),
            Err(RetrievalError::Missing { .. }) => assert_eq!(name, "meta.json"),
            Err(error) => {
                assert!(matches!(error, RetrievalError::Damaged { .. }), "{error:?}");
            }
        }
        fs::write(&file, &bytes).unwrap();
    }
}

#[test]
fn a_damaged_index_is_not_added_to() {
    let dir = small_index();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "store") {
            let mut bytes = fs::read(&path).unwrap();
            bytes[10] ^= 1;
            fs::write(&path, &bytes).unwrap();
        }
    }
    let Err(error) = IndexWriter::open(dir.path(), Analyzer::ENGLISH) else { panic!("opened") };
    assert!(matches!(error, RetrievalError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains(".store"), "{error}");
}

#[test]
fn threads_may_share_an_index() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Index>();
    sent::<IndexWriter>();
}

#[test]
fn a_copy_is_brought_to_the_last_commit() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let copy = to.path().join("index");
    assert!(crate::copy::copy_index(from.path(), &copy).is_err());
    let mut writer = IndexWriter::open(from.path(), Analyzer::ENGLISH).unwrap();
    for (commit, text) in (1..).zip(["a river", "the river floods", "a bridge over the river"]) {
        let document = document(&format!("d{commit}"), "", text);
        writer.add(commit, &document, location(commit)).unwrap();
        writer.commit(commit as u32).unwrap();
        assert!(crate::copy::copy_index(from.path(), &copy).unwrap() > 0);
        assert_eq!(crate::copy::copy_index(from.path(), &copy).unwrap(), 0);
        let hits = |dir: &Path| Index::open(dir).unwrap().search("river", 9, |_| true).unwrap();
        assert_eq!(hits(&copy), hits(from.path()));
        assert_eq!(hits(&copy).len() as u64, commit);
    }
    writer.finish(3).unwrap();
    crate::copy::copy_index(from.path(), &copy).unwrap();
    let files = |dir: &Path| -> BTreeSet<(PathBuf, Vec<u8>)> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let files = entries.filter(|path| path.extension().is_none_or(|e| e != "lock"));
        files.map(|p| (p.file_name().unwrap().into(), fs::read(&p).unwrap())).collect()
    };
    let (source, target) = (files(from.path()), files(&copy));
    assert!(target.is_subset(&source), "what the commit names is the same");
    // A damaged copy is repaired, a damaged source refused.
    let victim = target.iter().find(|(name, _)| name.extension().is_some_and(|e| e == "store"));
    let name = &victim.unwrap().0;
    fs::write(copy.join(name), b"nothing").unwrap();
    assert!(crate::copy::copy_index(from.path(), &copy).unwrap() > 0);
    fs::write(from.path().join(name), b"nothing").unwrap();
    assert!(matches!(
        crate::copy::copy_index(from.path(), &copy),
        Err(RetrievalError::Damaged { .. })
    ));
}

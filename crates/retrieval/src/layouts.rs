//! Tests of an index in the layout that older versions wrote.

use std::fs;
use std::path::Path;

use tantivy::index::IndexSettings;

use crate::analyzer::Analyzer;
use crate::folder::Folder;
use crate::schema::{Fields, Layout};
use crate::tests::{answers, corpus, location};
use crate::writer::IndexWriter;

/// Begins an index as older versions wrote it, with the locations in the stored documents.
fn begin_older_index(dir: &Path) {
    let fields = Fields::new(Analyzer::ENGLISH, Layout::Stored);
    let (folder, settings) = (Folder { dir: dir.into() }, IndexSettings::default());
    tantivy::Index::create(folder, fields.schema, settings).unwrap();
}

#[test]
fn an_older_index_gives_the_same_hits_and_is_added_to_as_it_is() {
    let documents = corpus(300);
    let made = |begin: fn(&Path)| {
        let dir = tempfile::tempdir().unwrap();
        begin(dir.path());
        for (number, part) in (0..).zip(documents.chunks(100)) {
            let mut writer = IndexWriter::open(dir.path(), Analyzer::ENGLISH).unwrap();
            for (row, document) in (number * 100..).zip(part) {
                writer.add(row, document, location(row)).unwrap();
            }
            writer.finish(1).unwrap();
        }
        (answers(dir.path()).unwrap(), fs::read_to_string(dir.path().join("meta.json")).unwrap())
    };
    let ((older, older_list), (new, new_list)) = (made(begin_older_index), made(|_| {}));
    assert_eq!(older, new);
    assert!(older.iter().all(|(hits, documents)| {
        let ids = hits.iter().map(|hit| &hit.id);
        ids.eq(documents.iter().map(|document| &document.id)) && !hits.is_empty()
    }));
    assert!(older_list.contains("documents 300 crc32"), "{older_list}");
    assert!(new_list.contains("documents 300 layout 2 crc32"), "{new_list}");
}

//! Tests of documents and queries in scripts with and without blanks, and of indexes by older rules.

use std::fs;
use std::path::Path;

use hyperrag_core::{DocId, Document};
use tantivy::index::IndexSettings;
use tempfile::TempDir;

use crate::analyzer::{Analyzer, Rules};
use crate::folder::Folder;
use crate::index::Index;
use crate::open::recorded_analyzer;
use crate::schema::{Fields, Layout};
use crate::tests::location;
use crate::writer::IndexWriter;

fn add(dir: &Path, language: &str, first_row: u64, texts: &[&str]) {
    let mut writer = IndexWriter::open(dir, language.parse().unwrap()).unwrap();
    for (row, text) in (first_row..).zip(texts) {
        let id = DocId::new(&format!("d{row}")).unwrap();
        let document = Document { id, title: String::new(), text: (*text).to_owned() };
        writer.add(row, &document, location(row)).unwrap();
    }
    writer.finish(1).unwrap();
}

fn found(dir: &Path, query: &str) -> Vec<u64> {
    let hits = Index::open(dir).unwrap().search(query, 10, |_| true).unwrap();
    hits.into_iter().map(|hit| hit.row).collect()
}

/// Checks that each query finds its document first, in an index of the language and in an English one.
#[track_caller]
fn check(language: &str, texts: &[&str], queries: &[(&str, u64)]) {
    for language in [language, "english"] {
        let dir = tempfile::tempdir().unwrap();
        add(dir.path(), language, 0, texts);
        for (query, expected) in queries {
            let found = found(dir.path(), query);
            assert_eq!(found.first(), Some(expected), "{language}: {query} {found:?}");
        }
    }
}

#[test]
fn chinese_is_found() {
    let texts = [
        "蜜蜂在冬天聚集在一起取暖。",
        "今天天气很好，适合去公园散步。",
        "河水上涨的时候，桥会关闭。",
        "面团放在温暖的地方会发得更好。",
        "我买了一部iPhone手机，花了５０００元。",
        "他每天早上喝茶。",
    ];
    let queries =
        [("蜜蜂冬天", 0), ("天气", 1), ("桥关闭", 2), ("面团", 3), ("iphone 5000", 4), ("茶", 5)];
    check("chinese", &texts, &queries);
}

#[test]
fn japanese_is_found() {
    let texts = [
        "今日はいい天気です。",
        "ミツバチは冬に巣の中で集まって体を温める。",
        "川の水位が上がると、橋は通行止めになる。",
        "パン生地は温かい場所でよく膨らむ。",
        "図書館は月曜日に休みます。",
        "山の頂上から海が見えた。",
    ];
    let queries = [
        ("天気", 0),
        ("冬のミツバチ", 1),
        ("ﾐﾂﾊﾞﾁ", 1),
        ("ミツハ\u{3099}チ", 1),
        ("橋の通行止め", 2),
        ("パンの生地", 3),
        ("図書館の休み", 4),
        ("海", 5),
    ];
    check("japanese", &texts, &queries);
}

#[test]
fn korean_is_found_whatever_the_endings() {
    let texts = [
        "오늘은 날씨가 좋습니다.",
        "꿀벌은 겨울에 벌집 안에서 모여 몸을 따뜻하게 한다.",
        "강물이 불어나면 다리는 통행이 금지된다.",
        "빵 반죽은 따뜻한 곳에서 잘 부풀어 오른다.",
        "도서관은 월요일에 쉽니다.",
        "산꼭대기에서 바다가 보였다.",
    ];
    let queries = [
        ("날씨", 0),
        ("겨울 꿀벌", 1),
        ("다리를 통행", 2),
        ("빵반죽", 3),
        ("월요일의 도서관", 4),
        ("바다", 5),
        ("\u{1107}\u{1161}\u{1103}\u{1161}", 5),
    ];
    check("korean", &texts, &queries);
}

#[test]
fn thai_is_found() {
    let texts = [
        "วันนี้อากาศดีมาก",
        "ในฤดูหนาวผึ้งจะรวมตัวกันในรังเพื่อให้ความอบอุ่น",
        "เมื่อน้ำในแม่น้ำสูงขึ้น สะพานจะปิดไม่ให้รถผ่าน",
        "แป้งขนมปังขึ้นฟูได้ดีในที่อุ่น",
        "ห้องสมุดปิดทุกวันจันทร์",
        "จากยอดเขามองเห็นทะเล",
    ];
    let queries = [
        ("อากาศ", 0),
        ("ผึ้งในฤดูหนาว", 1),
        ("สะพานข้ามแม่น้ำ", 2),
        ("ขนมปัง", 3),
        ("ห้องสมุดวันจันทร์", 4),
        ("ทะเล", 5),
    ];
    check("thai", &texts, &queries);
}

#[test]
fn both_forms_of_an_accent_are_found_by_either() {
    let texts = ["Her résumé was short.", "His re\u{301}sume\u{301} was long.", "Bees have none."];
    let forms = ["résumé", "re\u{301}sume\u{301}", "RÉSUMÉ"];
    for language in ["english", "french", "none"] {
        let dir = tempfile::tempdir().unwrap();
        add(dir.path(), language, 0, &texts);
        for form in forms {
            assert_eq!(found(dir.path(), form), [0, 1], "{language}: {form}");
        }
    }
}

#[test]
fn long_identifiers_are_found() {
    let peptide = "MKWVTFISLLFLFSSAYSRGVFRRDAHKSEVAHRFKDLGEENFKALVLIAF".repeat(5);
    let digest = "3f786850e387550fdab836ed7e6dc881de23001b";
    let texts = [format!("commit {digest}"), format!("sequence {peptide}"), "none".to_owned()];
    let dir = tempfile::tempdir().unwrap();
    add(dir.path(), "english", 0, &texts.each_ref().map(String::as_str));
    assert_eq!(peptide.len(), 255);
    assert_eq!(found(dir.path(), digest), [0]);
    assert_eq!(found(dir.path(), &peptide), [1]);
    assert!(found(dir.path(), &format!("{peptide}K")).is_empty());
}

const OLDER: [&str; 3] = ["A river floods.", "蜜蜂在冬天聚集在一起取暖", "a re\u{301}sume\u{301}"];

/// Makes an index as older versions wrote it.
fn older_index(layout: Layout) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let fields = Fields::new(Analyzer::ENGLISH.by(Rules::First), layout);
    let folder = Folder { dir: dir.path().into() };
    tantivy::Index::create(folder, fields.schema, IndexSettings::default()).unwrap();
    add(dir.path(), "english", 0, &OLDER);
    dir
}

#[test]
fn an_index_keeps_its_rules_while_it_is_added_to() {
    for layout in [Layout::Stored, Layout::Columns] {
        let dir = older_index(layout);
        add(dir.path(), "english", 3, &["蜜蜂 floods", "蜜蜂在冬天聚集在一起取暖"]);
        for (query, expected) in [
            ("flooding", &[0, 3][..]),
            ("蜜蜂", &[3]),
            ("蜜蜂在冬天聚集在一起取暖", &[1, 4]),
            ("résumé", &[]),
            ("re\u{301}sume\u{301}", &[2]),
        ] {
            assert_eq!(found(dir.path(), query), expected, "{query}");
        }
        let list = fs::read_to_string(dir.path().join("meta.json")).unwrap();
        assert!(list.contains("hyperrag_english_1 shards") && !list.contains("hyperrag_english_2"));
    }
    let new = tempfile::tempdir().unwrap();
    add(new.path(), "english", 0, &OLDER);
    assert_eq!((found(new.path(), "蜜蜂"), found(new.path(), "résumé")), (vec![1], vec![2]));
    let list = fs::read_to_string(new.path().join("meta.json")).unwrap();
    assert!(list.contains("hyperrag_english_2 shards") && !list.contains("hyperrag_english_1"));
}

#[test]
fn the_rules_of_an_index_are_known_though_it_is_damaged() {
    let older = older_index(Layout::Columns);
    let rules = |dir: &Path| recorded_analyzer(dir, Analyzer::ENGLISH).map(|found| found.rules);
    assert_eq!(rules(older.path()), Some(Rules::First));
    assert_eq!(recorded_analyzer(older.path(), Analyzer::NONE), None, "it is of another language");
    let list = older.path().join("meta.json");
    let text = fs::read_to_string(&list).unwrap();
    for part in [&text[..text.len() - 200], &text[200..]] {
        fs::write(&list, part).unwrap();
        assert!(Index::open(older.path()).is_err());
        assert_eq!(rules(older.path()), Some(Rules::First), "{part}");
    }
    fs::remove_file(&list).unwrap();
    assert_eq!(rules(older.path()), None);
}

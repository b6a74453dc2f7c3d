//! The language of a store, whose rules decide how BM25 cuts words.

use std::fs;

use crate::golden_store::golden;
use crate::support::{MISMATCH, Scratch, USAGE, all_files, copy_folder, testdata};

const CORPUS: &str = r#"{"_id": "a", "text": "Die Flüsse führen Hochwasser."}
{"_id": "b", "text": "Der Garten liegt am Haus."}
"#;

fn found(scratch: &Scratch, word: &str) -> Vec<String> {
    let run = scratch.ok(&format!("query --store store TINY --format trec {word}")).stdout;
    run.lines().map(|line| line.split(' ').nth(2).unwrap().to_owned()).collect()
}

#[test]
fn words_are_cut_by_the_rules_of_the_stores_language() {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", CORPUS);
    scratch.ok("build corpus.jsonl --store store TINY --language german");
    let (stemmed, stopped) = (found(&scratch, "Fluss"), found(&scratch, "der"));
    assert_eq!((stemmed.as_slice(), stopped.len()), (&["a".to_owned()][..], 0));
    assert_eq!(
        scratch.ok("info --store store --json").json()[0]["fingerprint"]["language"],
        "german"
    );
    let other = scratch.run("build corpus.jsonl --store store TINY");
    assert_eq!(other.code, MISMATCH);
    other.says(&["language", "german", "english"]);
    // Later documents are cut like the first ones, and a lost index is made again unchanged.
    scratch.write("more.jsonl", "{\"_id\": \"c\", \"text\": \"Ein Fluss ohne Brücke\"}\n");
    scratch.ok("build more.jsonl --store store TINY --append");
    assert_eq!(found(&scratch, "Flüssen").len(), 2);
    fs::remove_dir_all(scratch.path("store/index")).unwrap();
    scratch.run("query --store store TINY Fluss").says(&["hyperrag repair"]);
    scratch.ok("repair --store store TINY");
    assert_eq!(found(&scratch, "Flüssen").len(), 2);
    scratch.write("gone", "a\n");
    scratch.ok("delete --store store --ids gone");
    scratch.ok("compact --store store");
    assert_eq!(found(&scratch, "Flüssen"), ["c"]);
}

#[test]
fn a_query_without_a_known_word_finds_what_is_near_and_says_so() {
    let scratch = Scratch::new();
    let more = "{\"_id\": \"c\", \"text\": \"Ein Fehler.\"}\n{\"_id\": \"d\", \"text\": \"Die Quelle.\"}\n";
    scratch.write("corpus.jsonl", format!("{CORPUS}{more}"));
    scratch.ok("build corpus.jsonl --store store TINY --language german");
    let line = "query --store store TINY --json";
    let found = scratch.ok(&format!("{line} Fehlerquelle"));
    found.says(&[
        "warning: no document has a word of query 1: hits are for near words: fehler, quelle",
    ]);
    assert_eq!(found.json()[0]["near_words"], serde_json::json!(["fehler", "quelle"]));
    assert_eq!(found.json()[0]["hits"].as_array().unwrap().len(), 2);
    let found = scratch.ok(&format!("{line} Quelle"));
    assert_eq!(found.json()[0]["near_words"], serde_json::json!([]));
    assert!(!found.stderr.contains("near words"), "{}", found.stderr);
    let found = scratch.ok(&format!("{line} Xylophonist"));
    found.says(&["query 1: no document has any of its words"]);
    assert_eq!(found.json()[0]["near_words"], serde_json::json!([]));
    let many = scratch.run_with_stdin(&format!("{line} -"), &"Fehlerquelle\n".repeat(12));
    many.says(&["2 more queries have hits for near words alone"]);
    let answer = "answer --store store TINY --max-tokens 2 --json Fehlerquelle";
    let answer = scratch.ok(answer);
    answer.says(&["no document has a word of query 1"]);
    assert_eq!(answer.json()[0]["near_words"], serde_json::json!(["fehler", "quelle"]));
}

#[test]
fn words_may_be_left_as_they_are() {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", CORPUS);
    scratch.ok("build corpus.jsonl --store store TINY --language none");
    assert_eq!((found(&scratch, "der"), found(&scratch, "Fluss").len()), (vec!["b".to_owned()], 0));
    let unknown = scratch.run("build corpus.jsonl --store other TINY --language klingon");
    assert_eq!(unknown.code, USAGE);
    unknown.says(&["klingon", "german"]);
}

/// Writes passages that say which language they are in.
fn write_passages(scratch: &Scratch, texts: &[&str]) {
    let rows = texts.iter().enumerate().map(|(row, text)| {
        format!("{}\n", serde_json::json!({"_id": format!("d{row}"), "text": text}))
    });
    scratch.write("corpus.jsonl", rows.collect::<String>());
}

const GERMAN: [&str; 3] = [
    "Im Winter sammeln sich die Bienen eines Stocks zu einer Kugel und wärmen sich gegenseitig.",
    "Wenn der Fluss über die Ufer tritt, wird die Brücke zwischen den beiden Dörfern gesperrt.",
    "Der Teig geht an einem warmen Ort besser auf, weil die Hefe dort schneller arbeitet.",
];

const CHINESE: [&str; 3] = [
    "蜜蜂在冬天聚集在一起取暖，整个蜂群围成一个球，外层的蜜蜂不断和里层的蜜蜂交换位置。",
    "河水上涨的时候，连接两个村庄的桥会关闭，居民必须绕道山谷才能到达市场和学校。",
    "面团放在温暖的地方会发得更好，因为酵母在那里工作得更快，面包也因此更加松软可口。",
];

#[test]
fn auto_takes_the_language_of_the_first_documents() {
    for (texts, language) in [(GERMAN, "german"), (CHINESE, "chinese")] {
        let scratch = Scratch::new();
        write_passages(&scratch, &texts);
        let build = "build corpus.jsonl --store store TINY --language auto";
        let built = scratch.ok(&format!("{build} --json"));
        built.says(&[&format!("language: {language}, by the first 3 documents")]);
        assert_eq!(built.json()[0]["language"], language);
        let info = scratch.ok("info --store store --json").json();
        assert_eq!(info[0]["fingerprint"]["language"], language);
        // The store has it from now on, whatever the documents that come.
        scratch.ok(build).says(&["up to date"]);
        write_passages(&scratch, &["The bees of a hive keep each other warm in the winter."]);
        scratch.ok(&format!("{build} --append --restart"));
    }
    let scratch = Scratch::new();
    write_passages(&scratch, &["12 34", "x"]);
    let build = "build corpus.jsonl --store store TINY --language auto";
    scratch.ok(build).says(&["language: none, by the first 2 documents"]);
}

#[test]
fn english_by_default_finds_other_scripts_and_says_that_it_does_not_fit() {
    for (texts, language, query) in [(GERMAN, "german", "Teig"), (CHINESE, "chinese", "蜜蜂冬天")]
    {
        let scratch = Scratch::new();
        write_passages(&scratch, &texts);
        let built = scratch.ok("build corpus.jsonl --store store TINY");
        built.says(&[&format!("warning: the first 3 documents look {language}, not english")]);
        built.says(&[&format!("`--language {language}`")]);
        assert!(!found(&scratch, query).is_empty(), "{query}");
        let scratch = Scratch::new();
        write_passages(&scratch, &texts);
        let built = scratch.ok("build corpus.jsonl --store store TINY --language english");
        assert!(!built.stderr.contains("warning"), "{}", built.stderr);
    }
}

#[test]
fn a_store_keeps_the_rules_by_which_its_words_were_cut() {
    let scratch = golden(2);
    let rules = || {
        let folders = fs::read_dir(scratch.path("store")).unwrap().map(|entry| entry.unwrap());
        let lists = folders.map(|folder| folder.path().join("meta.json"));
        let texts: Vec<_> = lists.flat_map(fs::read_to_string).collect();
        let [text] = &texts[..] else { panic!("one index: {}", texts.len()) };
        ["hyperrag_english_1", "hyperrag_english_2"].map(|id| text.contains(id))
    };
    let (former, present) = ([true, false], [false, true]);
    assert_eq!(rules(), former);
    let row = serde_json::json!({"_id": "winter", "text": CHINESE[0]});
    scratch.write("more.jsonl", format!("{row}\n"));
    scratch.ok("build more.jsonl --store store TINY --append --device cpu");
    assert_eq!((rules(), found(&scratch, "蜜蜂冬天").len()), (former, 0), "it answers as it did");
    // An index that is made again has them too: after damage, after a deletion, by a replica's.
    scratch.ok("replicate --store store --to copy");
    let damage_all = || {
        for file in all_files(&scratch.path("store/index")) {
            if file.extension().is_some_and(|kind| kind == "store") {
                fs::write(file, "nothing").unwrap();
            }
        }
    };
    damage_all();
    scratch.ok("repair --store store TINY --device cpu");
    assert_eq!(rules(), former);
    damage_all();
    scratch.ok("build more.jsonl --store store TINY --append --device cpu");
    assert_eq!(rules(), former);
    fs::remove_dir_all(scratch.path("store/index")).unwrap();
    scratch.ok("repair --store store TINY --device cpu");
    assert_eq!((rules(), found(&scratch, "蜜蜂冬天").len()), (former, 0));
    scratch.write("gone", "hive\n");
    scratch.ok("delete --store store --ids gone");
    scratch.ok("compact --store store");
    assert_eq!(rules(), former);
    // Where no index tells, the present rules count, and the user is told.
    fs::remove_dir_all(scratch.path("copy")).unwrap();
    for folder in
        all_files(&scratch.path("store")).iter().filter(|file| file.join("meta.json").exists())
    {
        fs::remove_dir_all(folder).unwrap();
    }
    let told = "nothing tells by which rules the former index cut words";
    let repaired = scratch.ok("repair --store store TINY --device cpu").stdout;
    assert!(repaired.contains(told), "{repaired}");
    assert_eq!((rules(), found(&scratch, "蜜蜂冬天")), (present, vec!["winter".to_owned()]));
    let lists = || {
        let all = all_files(&scratch.path("store")).into_iter();
        all.filter(|file| file.ends_with("meta.json")).collect::<Vec<_>>()
    };
    lists().iter().for_each(|list| fs::write(list, "{}").unwrap());
    let row = serde_json::json!({"_id": "spring", "text": CHINESE[1]});
    scratch.write("spring.jsonl", format!("{row}\n"));
    scratch.ok("build spring.jsonl --store store TINY --append --device cpu").says(&[told]);
    scratch.write("gone", "spring\n");
    scratch.ok("delete --store store --ids gone");
    lists().iter().for_each(|list| fs::write(list, "{}").unwrap());
    scratch.ok("compact --store store").says(&[told]);
    assert_eq!(lists().len(), 1);
}

#[test]
fn documents_that_an_older_index_cannot_find_are_told() {
    let scratch = Scratch::new();
    copy_folder(testdata("stores/v2").as_ref(), &scratch.path("store"));
    write_passages(&scratch, &GERMAN);
    let append = "build corpus.jsonl --store store TINY --append";
    let appended = scratch.ok(append);
    assert!(!appended.stderr.contains("older version"), "{}", appended.stderr);
    write_passages(&scratch, &CHINESE);
    let warning = ["warning: the first documents look chinese", "older version", "hyperrag repair"];
    scratch.ok(append).says(&warning);
    assert!(found(&scratch, "蜜蜂").is_empty());
    // The present rules find them.
    fs::remove_dir_all(scratch.path("store/index")).unwrap();
    scratch.ok("repair --store store TINY");
    assert!(!found(&scratch, "蜜蜂").is_empty());
}

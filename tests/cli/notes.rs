//! Notes of a store on its build, and commands that take the model from there.

use std::fs;

use hyperrag_model::testing::tiny::Tiny;
use serde_json::{Value, json};

use crate::support::{DAMAGED, DONE, FAILED, MISMATCH, Scratch, copy_folder, jsonl, testdata};

/// Builds the store `s` with a model and a profile that must be found again.
fn build(scratch: &Scratch) -> String {
    Tiny::new("qwen3", 0).unwrap().write_folder(&scratch.path("models/hive"), 1).unwrap();
    scratch
        .ok("build CORPUS --store s --model ./models/hive --profile plain --limit 20 --replica r");
    scratch.path("models/hive").canonicalize().unwrap().display().to_string()
}

fn notes(scratch: &Scratch, store: &str) -> Value {
    scratch.ok(&format!("info --store {store} --json")).json()[0]["notes"].clone()
}

#[test]
fn a_store_finds_its_model_again() {
    let scratch = Scratch::new();
    let model = build(&scratch);
    assert_eq!(notes(&scratch, "s"), json!({"model": model, "profile": "plain"}));
    let text = scratch.ok("info --store s").stdout;
    assert!(text.contains("made with --model") && text.contains(&model), "{text}");

    scratch.ok("query --store s bees");
    scratch.ok("answer --store s --max-tokens 2 bees");
    scratch.ok("bench --store s --queries QUERIES --depth 2");
    scratch.ok("verify --store s --recompute --sample 2");
    scratch.write("more.jsonl", jsonl(&[json!({"_id": "new", "text": "a hive of bees"})]));
    scratch.ok("build more.jsonl --store s --append");
    assert_eq!(notes(&scratch, "s")["model"], model);
    // A repair that computes.
    scratch.damage("s/shards/000001.kv", |bytes| bytes[8192] ^= 1);
    scratch.ok("repair --store s");
    scratch.ok("verify --store s");

    // A replica has the notes too, and so has its copy of a later state.
    assert_eq!(notes(&scratch, "r"), notes(&scratch, "s"));
    scratch.ok("query --store r bees");
}

#[test]
fn a_model_that_is_gone_or_another_is_named() {
    let scratch = Scratch::new();
    let model = build(&scratch);
    fs::rename(scratch.path("models/hive"), scratch.path("models/hives")).unwrap();
    let gone = scratch.ends(FAILED, "query --store s bees");
    gone.says(&[
        "the store was made with the model",
        &model,
        "no such file",
        "near it is",
        "hives",
        "if it is elsewhere now, name it with --model",
    ]);
    scratch.ok("query --store s --model models/hives bees");
    let other = scratch.ends(MISMATCH, "query --store s TINY bees");
    other.says(&["s: the store was made with", &format!("that was --model {model}")]);
    let rebuilt = scratch.ends(MISMATCH, "build CORPUS --store s TINY --profile plain --limit 20");
    rebuilt.says(&[&format!("that was --model {model}")]);
    // An append notes where the model is now.
    scratch.write("more.jsonl", jsonl(&[json!({"_id": "new", "text": "a hive of bees"})]));
    scratch.ok("build more.jsonl --store s --append --model models/hives");
    scratch.ok("query --store s bees");
}

#[test]
fn a_replica_without_the_last_notes_is_behind() {
    let scratch = Scratch::new();
    build(&scratch);
    fs::rename(scratch.path("models/hive"), scratch.path("models/hives")).unwrap();
    let state = || scratch.ok("info --store s --json").json()[0]["replicas"][0]["state"].clone();
    assert_eq!(state(), "up to date");
    // Nothing is new but the model's place.
    let append = "build CORPUS --store s --append --limit 20 --model models/hives --profile plain";
    scratch.ok(append).says(&["r: the replica is behind; bring it up to date with"]);
    assert_eq!(state(), "behind");
    assert_ne!(notes(&scratch, "r"), notes(&scratch, "s"));
    scratch.ok("replicate --store s --to r");
    assert_eq!((state(), notes(&scratch, "r")), (json!("up to date"), notes(&scratch, "s")));
    scratch.ok("query --store r bees");
    fs::rename(scratch.path("models/hives"), scratch.path("models/hive")).unwrap();
    let again = append.replace("models/hives", "models/hive");
    assert_eq!(scratch.ok(&format!("{again} --replica r")).stderr.matches("behind").count(), 0);
    assert_eq!((state(), notes(&scratch, "r")), (json!("up to date"), notes(&scratch, "s")));
}

#[test]
fn a_profile_of_a_file_is_found_again() {
    let scratch = Scratch::new();
    let own =
        "name = 'own'\nscorer = 'query-likelihood'\ndocument = '{title} {text}'\ninfix = ' : '\n";
    scratch.write("own.toml", format!("{own}query = '{{query}}'\n"));
    scratch.ok("build CORPUS --store s TINY --profile own.toml --limit 4");
    let profile = scratch.path("own.toml").canonicalize().unwrap().display().to_string();
    assert_eq!(notes(&scratch, "s")["profile"], profile);
    scratch.ok("query --store s bees");
    scratch.ok("query --store s TINY bees");
    let other = own.replace("{title} {text}", "{title}: {text}");
    scratch.write("own.toml", format!("{other}query = '{{query}}'\n"));
    let edited = scratch.ends(MISMATCH, "query --store s bees");
    edited.says(&["profile of this name was changed since; name that with --profile"]);
    fs::remove_file(scratch.path("own.toml")).unwrap();
    let gone = scratch.ends(FAILED, "query --store s bees");
    gone.says(&["the store was made with the profile", "own.toml", "name it with --profile"]);
}

#[test]
fn stores_without_notes_are_read_as_before() {
    let scratch = Scratch::new();
    copy_folder(testdata("stores/v2").as_ref(), &scratch.path("s"));
    assert_eq!(notes(&scratch, "s"), json!({}));
    scratch.ok("query --store s TINY bees");
    scratch.ends(FAILED, "query --store s bees").says(&["smollm2-135m", "model pull"]);
    let other = Tiny::new("qwen3", 0).unwrap().write_folder(&scratch.path("m"), 1);
    other.unwrap();
    scratch.ends(MISMATCH, "query --store s --model m bees").says(&["name that with --model"]);
    // An append notes what it is given, and changes nothing else.
    let before = scratch.contents("s");
    scratch.write("more.jsonl", jsonl(&[json!({"_id": "new", "text": "a hive of bees"})]));
    scratch.ok("build more.jsonl --store s --append TINY");
    assert_eq!(notes(&scratch, "s"), json!({"model": testdata("tiny.gguf"), "profile": "plain"}));
    scratch.ok("query --store s bees");
    let after = scratch.contents("s");
    assert!(before.iter().all(|(name, bytes)| after.get(name) == Some(bytes)));
}

#[test]
fn an_upgrade_keeps_notes_and_makes_them() {
    let scratch = Scratch::new();
    copy_folder(testdata("stores/v1").as_ref(), &scratch.path("s"));
    scratch.ok("upgrade --store s TINY");
    assert_eq!(notes(&scratch, "s")["model"], testdata("tiny.gguf"));
    scratch.ok("query --store s bees");
}

#[test]
fn damaged_notes_are_found_and_mended() {
    let scratch = Scratch::new();
    let model = build(&scratch);
    let damage = || scratch.damage("s/notes.json", |bytes| bytes[90] ^= 1);
    damage();
    let found = scratch.ends(DAMAGED, "verify --store s");
    found.says(&["1 damage was found"]);
    assert!(found.stdout.contains("notes.json"), "{}", found.stdout);
    // The replica's are read meanwhile.
    scratch.ends(DONE, "query --store s bees").says(&[
        "notes.json",
        "read from the replica",
        "hyperrag repair",
    ]);
    scratch.ok("info --store s").says(&["notes.json"]);
    let mended = scratch.ok("repair --store s").stdout;
    assert!(mended.contains("from the replica"), "{mended}");
    assert_eq!(notes(&scratch, "s")["model"], model);
    // Without a replica they are lost, and no block with them.
    scratch.ok("replicate --store s --forget r");
    damage();
    scratch.ends(FAILED, "query --store s bees").says(&["notes.json", "smollm2-135m"]);
    scratch.ok("query --store s --model models/hive bees");
    let mended = scratch.ok("repair --store s").stdout;
    assert!(mended.contains("removed") && mended.contains("--model"), "{mended}");
    assert_eq!(notes(&scratch, "s"), json!({}));
    scratch.ok("verify --store s");
    // A link is no file of a store.
    std::os::unix::fs::symlink(scratch.path("r/notes.json"), scratch.path("s/notes.json")).unwrap();
    scratch.ends(DAMAGED, "verify --store s");
}

#[test]
fn a_lost_manifest_is_made_again_with_the_noted_model() {
    let scratch = Scratch::new();
    build(&scratch);
    scratch.ok("replicate --store s --forget r");
    fs::remove_file(scratch.path("s/manifest.json")).unwrap();
    scratch.ok("repair --store s --accept-older");
    scratch.ok("query --store s bees");
}

#[test]
fn an_append_takes_the_noted_columns_where_the_input_has_them() {
    let scratch = Scratch::new();
    let row = |id: &str, text: &str| json!({"key": id, "heading": "Hives", "words": text});
    scratch.write("a.jsonl", jsonl(&[row("a", "bees in winter"), row("b", "bees in spring")]));
    let columns = "--id-column key --title-column heading --text-column words";
    scratch.ok(&format!("build a.jsonl --store s TINY {columns}"));
    let noted = json!({"id": "key", "title": "heading", "text": "words"});
    assert_eq!(notes(&scratch, "s")["columns"], noted);
    scratch.write("b.jsonl", jsonl(&[row("a", "bees in winter"), row("c", "bees in summer")]));
    let added = scratch.ok("build b.jsonl --store s --append --json").json();
    assert_eq!((&added[0]["documents"], &added[0]["unchanged"]), (&json!(3), &json!(1)));
    assert_eq!(notes(&scratch, "s")["columns"], noted);
    // An input with the usual names is read by these.
    let usual = json!({"_id": "d", "title": "Combs", "text": "wax of bees"});
    scratch.write("c.jsonl", jsonl(&[usual]));
    let added = scratch.ok("build c.jsonl --store s --append --json").json();
    assert_eq!(added[0]["documents"], 4);
    let found = scratch.ok("query --store s --json wax").json();
    assert_eq!(
        (&found[0]["hits"][0]["id"], &found[0]["hits"][0]["title"]),
        (&json!("d"), &json!("Combs"))
    );
}

#[test]
fn a_tokenizer_in_the_place_of_the_models_is_noted() {
    let scratch = Scratch::new();
    Tiny::new("llama", 0).unwrap().write_folder(&scratch.path("m"), 1).unwrap();
    let mut bytes = fs::read(testdata("tiny.gguf")).unwrap();
    let name = b"smollm";
    let at = bytes.windows(name.len()).position(|part| part == name).unwrap();
    bytes[at..at + name.len()].copy_from_slice(b"custom");
    scratch.write("x.gguf", bytes);
    let refused = scratch.fails_without_store("build CORPUS --store store --model x.gguf");
    refused.says(&["x.gguf: its tokenizer cannot be used", "custom", "--tokenizer"]);
    let missing = "build CORPUS --store store --model x.gguf --tokenizer none.json";
    scratch.fails_without_store(missing).says(&["none.json", "cannot be opened"]);
    for (store, tokenizer) in [("a", "m/tokenizer.json"), ("b", "m"), ("c", &testdata("tiny.gguf"))]
    {
        let line = format!(
            "build CORPUS --store {store} --model x.gguf --tokenizer {tokenizer} --limit 4"
        );
        scratch.ok(&line);
        scratch.ok(&format!("query --store {store} bees"));
        let noted = notes(&scratch, store)["tokenizer"].clone();
        let path = scratch.path(tokenizer).canonicalize().unwrap();
        assert_eq!(noted, json!(path), "{store}");
    }
    scratch.ok("query --store a --model x.gguf --tokenizer m bees");
    let other = scratch.ends(
        MISMATCH,
        &format!("query --store a --model x.gguf --tokenizer {} bees", testdata("tiny.gguf")),
    );
    other.says(&["tokenizer"]);
    let noted = scratch.path("m/tokenizer.json").canonicalize().unwrap();
    scratch.ends(FAILED, "query --store a --model x.gguf bees").says(&[
        "x.gguf: its tokenizer cannot be used",
        &format!("was made with the tokenizer {}", noted.display()),
        &format!("give it with --tokenizer {}", noted.display()),
    ]);
    // What is wrong with a tokenizer is said of its own file.
    scratch.write("empty.json", "{}");
    let (own, model) = (testdata("tiny.gguf"), "build CORPUS --store store --model");
    for tokenizer in ["x.gguf", "empty.json"] {
        let other = scratch.fails_without_store(&format!("{model} {own} --tokenizer {tokenizer}"));
        other.says(&[&format!("{tokenizer}: this tokenizer cannot be used")]);
    }
    fs::remove_file(scratch.path("m/tokenizer.json")).unwrap();
    scratch
        .ends(FAILED, "query --store a bees")
        .says(&["the tokenizer", "name it with --tokenizer"]);
}

//! Answers of the tiny model from passages: their words mean nothing, but everything around them is
//! checked.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{DEGRADED, FAILED, Outcome, Scratch, USAGE};

const BEES: &str = "bees";

fn built() -> Scratch {
    let scratch = Scratch::new();
    scratch.ok("build CORPUS --store store TINY");
    scratch
}

fn ids(answer: &Value) -> Vec<&str> {
    let passages = answer["passages"].as_array().unwrap();
    passages.iter().map(|passage| passage["id"].as_str().unwrap()).collect()
}

fn answer(scratch: &Scratch, options: &str) -> Value {
    let line = format!("answer --store store TINY --depth 8 --json {BEES} {options}");
    let mut answers = scratch.ok(&line).json();
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

/// Spells a character as in text for people.
fn spelt_out(c: char) -> String {
    match c {
        '\n' | '\t' => c.to_string(),
        c if c.is_control() => c.escape_unicode().to_string(),
        c => c.to_string(),
    }
}

#[test]
fn a_question_gets_an_answer_and_its_passages() {
    let scratch = built();
    let answered = answer(&scratch, "");
    assert_eq!((&answered["query_id"], &answered["query"]), (&json!("1"), &json!(BEES)));
    assert_eq!(answered["cited"], json!([]));
    let hits = scratch.ok(&format!("query --store store TINY --depth 8 -k 3 --json {BEES}")).json();
    for (passage, hit) in
        answered["passages"].as_array().unwrap().iter().zip(hits[0]["hits"].as_array().unwrap())
    {
        for key in ["rank", "id", "title", "score", "model_score", "retriever_score"] {
            assert_eq!(passage[key], hit[key], "{key}");
        }
        assert!(passage["tokens"].as_u64().unwrap() > 0 && passage["cut_tokens"] == 0);
    }
    assert_eq!(ids(&answered).len(), 3);
    let stats = &answered["stats"];
    assert!(stats["generate_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(
        (&stats["candidates"], &stats["device"]),
        (&hits[0]["stats"]["candidates"], &json!("cpu"))
    );
    // The text is that of JSON, with control characters spelt out, and the passages below.
    let text = scratch.ok(&format!("answer --store store TINY --depth 8 {BEES}")).stdout;
    let expected: String = answered["answer"].as_str().unwrap().chars().map(spelt_out).collect();
    let (given, sources) = text.split_once("\n\n[1] ").unwrap();
    assert_eq!(given, expected);
    assert!(sources.starts_with(ids(&answered)[0]) && sources.contains("\n[3] "), "{text}");
    assert_eq!(answer(&scratch, "--recompute")["answer"], answered["answer"]);
}

#[test]
fn passages_are_chosen_and_numbered_as_asked() {
    let scratch = built();
    let bm25 = "query --store store TINY --depth 8 --fuse zscore --fuse-weight 0 -k 2 --json";
    let bm25 = scratch.ok(&format!("{bm25} {BEES}")).json();
    let retrieved = answer(&scratch, "--no-rerank --passages 2");
    let hits = bm25[0]["hits"].as_array().unwrap();
    assert_eq!(
        ids(&retrieved),
        hits.iter().map(|hit| hit["id"].as_str().unwrap()).collect::<Vec<_>>()
    );
    assert!(retrieved["passages"][0].get("model_score").is_none());
    assert_eq!(retrieved["stats"]["candidates"], 0);
    let fused = answer(&scratch, "--fuse zscore --fuse-weight 0 --passages 2");
    assert_eq!((ids(&fused), &fused["answer"]), (ids(&retrieved), &retrieved["answer"]));
    let none = answer(&scratch, "--passages 0");
    assert_eq!((ids(&none).len(), &none["stats"]["candidates"]), (0, &json!(0)));
    let tokens = |answer: &Value| answer["prompt_tokens"].as_u64().unwrap();
    assert!(tokens(&none) < tokens(&retrieved));
    // With one word as instruction, the prompt is shorter; without passages it has nothing else.
    let shorter = answer(&scratch, "--passages 0 --instruction Answer");
    assert!(tokens(&shorter) < tokens(&none));
}

#[test]
fn a_prompt_that_is_too_long_is_cut_at_its_end() {
    let scratch = built();
    let whole = answer(&scratch, "--max-tokens 8");
    let free = 2048 - whole["prompt_tokens"].as_u64().unwrap();
    let cut = |max_tokens: u64| answer(&scratch, &format!("--max-tokens {max_tokens}"));
    let last = |answer: &Value, key: &str| {
        let passages = answer["passages"].as_array().unwrap();
        passages[passages.len() - 1][key].as_u64().unwrap()
    };
    let fits = cut(free);
    assert_eq!((last(&fits, "cut_tokens"), &fits["passages_left_out"]), (0, &json!(0)));
    let one_less = cut(free + 1);
    assert_eq!(last(&one_less, "cut_tokens"), 1);
    assert_eq!(last(&one_less, "tokens") + 1, last(&fits, "tokens"));
    let left_out = cut(free + last(&fits, "tokens"));
    assert_eq!((ids(&left_out).len(), &left_out["passages_left_out"]), (2, &json!(1)));
    assert!(ids(&fits).starts_with(&ids(&left_out)));
    let line = format!("answer --store store TINY --depth 8 --max-tokens {} {BEES}", free + 1);
    scratch.ok(&line).says(&["passage [3] was cut by 1 token:"]);
    let line = line.replace(&(free + 1).to_string(), "2040");
    scratch.ends(FAILED, &line).says(&["--max-tokens", "room for 2048"]);
}

/// Returns a text as a terminal gets it.
fn spelled(text: &str) -> String {
    let spelled = |c: char| match c.is_control() && c != '\n' {
        true => c.escape_unicode().to_string(),
        false => c.to_string(),
    };
    text.chars().map(spelled).collect()
}

#[test]
fn a_question_that_fails_does_not_end_a_batch() {
    let scratch = built();
    let long = "honey ".repeat(3000);
    let queries = format!("a\thow bees dance\nb\t \nc\t{long}\nd\twhat is bread\n");
    scratch.write("queries.tsv", queries);
    let line = "answer --store store TINY --depth 4 --queries queries.tsv --max-tokens 12";
    let outcome = scratch.ends(DEGRADED, &format!("{line} --json"));
    outcome.says(&["warning: query b: the query is empty", "warning: query c: "]);
    let mut answers = outcome.json();
    let names: Vec<&Value> = answers.iter().map(|answer| &answer["query_id"]).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
    let failed = |answer: &Value| answer.get("error").is_some();
    assert_eq!(answers.iter().map(failed).collect::<Vec<_>>(), [false, true, true, false]);
    answers.retain(|answer| !failed(answer));
    let text = scratch.ends(DEGRADED, line).stdout;
    for answer in &answers {
        let words = ["query", "answer"].map(|key| spelled(answer[key].as_str().unwrap()));
        assert!(text.contains(&format!("{}\n{}\n\n[1] ", words[0], words[1])), "{text}");
    }
    let stdin = scratch.run_with_stdin(
        "answer --store store TINY --depth 4 --max-tokens 12 --json -",
        "how bees dance\n\nwhat is bread\n",
    );
    assert_eq!(stdin.code, DEGRADED, "{}", stdin.stderr);
    let of = |answer: &Value| (answer["query"].clone(), answer["answer"].clone());
    let mut piped = stdin.json();
    assert_eq!(piped.remove(1), json!({"query_id": "2", "error": "query 2: the query is empty"}));
    assert_eq!(
        piped.iter().map(of).collect::<Vec<_>>(),
        answers.iter().map(of).collect::<Vec<_>>()
    );
    // `eval qa` reads what `answer` prints.
    scratch.write("answers", &outcome.stdout);
    let right = answers[0]["answer"].as_str().unwrap();
    scratch.write("gold", format!("{}\n", json!({"_id": "a", "answers": [right]})));
    let metrics = scratch.ok("eval qa --answers answers --gold gold --json").json().remove(0);
    assert_eq!(metrics["questions"], 1);
    assert_eq!(metrics["unanswered"], 0);
}

#[test]
fn the_generator_may_be_another_model() {
    let scratch = built();
    let mut file = std::fs::File::create(scratch.path("other.gguf")).unwrap();
    hyperrag_model::testing::tiny::write(1, &mut file).unwrap();
    let (own, other) = (answer(&scratch, ""), answer(&scratch, "--generator other.gguf"));
    assert_eq!(own["passages"], other["passages"]);
    assert_ne!(own["answer"], other["answer"]);
    let same = answer(&scratch, &format!("--generator {}", crate::support::testdata("tiny.gguf")));
    assert_eq!(same["answer"], own["answer"]);
    let line = format!("answer --store store TINY {BEES} --generator");
    scratch.ends(FAILED, &format!("{line} nowhere.gguf")).says(&["nowhere.gguf"]);
    scratch.write("wrong.gguf", "GGUF");
    scratch.ends(FAILED, &format!("{line} wrong.gguf")).says(&["wrong.gguf"]);
}

#[test]
fn a_seed_decides_the_answer() {
    let scratch = built();
    let drawn = |seed: u32| {
        let options = format!("--temperature 1.2 --top-p 0.95 --max-tokens 16 --seed {seed}");
        answer(&scratch, &options)["answer"].as_str().unwrap().to_owned()
    };
    assert_eq!(drawn(1), drawn(1));
    let answers: BTreeSet<String> = (1..6).map(drawn).collect();
    assert!(answers.len() > 1, "{answers:?}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let scratch = built();
    let usage = |options: &str| -> Outcome {
        let line = format!("answer --store store TINY {options}");
        scratch.ends(USAGE, &line)
    };
    usage("").says(&["TEXT"]);
    usage("bees --max-tokens 0").says(&["--max-tokens"]);
    for wrong in ["-1", "NaN", "inf", "x"] {
        usage(&format!("bees --temperature={wrong}")).says(&["not below 0"]);
    }
    usage("bees --top-p 2").says(&["from 0 to 1"]);
    scratch.ends(FAILED, "answer --store store TINY EMPTY").says(&["the query is empty"]);
    scratch.ends(FAILED, "answer --store nowhere TINY bees").says(&["nowhere"]);
}

#[test]
fn a_chat_template_of_the_users_takes_the_models_place() {
    let scratch = Scratch::new();
    hyperrag_model::testing::tiny::Tiny::new("llama", 0)
        .unwrap()
        .write_folder(&scratch.path("m"), 1)
        .unwrap();
    scratch.write("m/chat_template.jinja", "{% for");
    scratch.ok("build CORPUS --store s --model m --profile plain --limit 4");
    let answer = "answer --store s --max-tokens 4 --json bees";
    scratch.ends(FAILED, answer).says(&["m: its chat template cannot be used", "--chat-template"]);
    let turn = |text: &str| {
        scratch.write("own.jinja", text);
        let answered = scratch.ok(&format!("{answer} --chat-template own.jinja")).json();
        answered[0]["prompt_tokens"].as_u64().unwrap()
    };
    let short = turn("{% generation %}{{ messages[0].content }}{% endgeneration %}");
    let long =
        turn("\u{feff}{{ '%s: %s' % ('a turn of', messages[0].role) }}{{ messages[0].content }}");
    assert!(long > short, "{long} {short}");
    turn("{{ strftime_now('%d %b %Y') }} {{ 'a.b'.rsplit('.', 1)[1] }} {{ messages[0].content }}");
    for (text, words) in [
        ("{{ nothing() }}", "unknown"),
        ("no words", "does not print"),
        (&"x".repeat(1 << 17), "bytes"),
    ] {
        scratch.write("own.jinja", text);
        let refused = scratch.ends(FAILED, &format!("{answer} --chat-template own.jinja"));
        refused.says(&["own.jinja: the chat template", words]);
    }
    let missing = scratch.ends(FAILED, &format!("{answer} --chat-template none.jinja"));
    missing.says(&["none.jinja: the chat template cannot be opened"]);
    let generator = format!("{answer} --generator m --chat-template own.jinja");
    scratch.write("own.jinja", "{{ messages[0].content }}");
    scratch.ok(&generator);
}

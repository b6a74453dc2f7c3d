//! `plan`: the examples of its page, its checks of numbers and files, and traces over tiers.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{FAILED, Scratch, USAGE, testdata};

/// Returns the examples of the page whose output stands behind them: command lines and outputs.
fn examples() -> Vec<(String, String)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide/plan.md");
    let page = fs::read_to_string(page).unwrap();
    let blocks = page.split("\n```console\n$ hyperrag ").skip(1).filter_map(|rest| {
        let (line, rest) = rest.split_once("\n```\n")?;
        let output = rest.strip_prefix("\n```text\n")?.split_once("\n```")?.0;
        Some((line.to_owned(), output.to_owned()))
    });
    blocks.collect()
}

/// Writes the outputs of the examples to the page.
fn write_examples(made: &[(String, String)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide/plan.md");
    let mut page = fs::read_to_string(&path).unwrap();
    for ((line, output), (_, new)) in examples().iter().zip(made) {
        let block = |output: &str| format!("$ hyperrag {line}\n```\n\n```text\n{output}\n```");
        page = page.replace(&block(output), &block(new));
    }
    fs::write(path, page).unwrap();
}

/// Returns the figures of a plan.
#[track_caller]
fn planned(scratch: &Scratch, line: &str) -> Value {
    scratch.ok(&format!("{line} --json")).json().remove(0)
}

/// Checks a figure against one that was printed with few digits: to 1 %, or to half of its last digit.
#[track_caller]
fn about(found: &Value, expected: f64, half_digit: f64) {
    let found = found.as_f64().unwrap();
    let off = (found - expected).abs();
    assert!(off <= (0.01 * expected).max(half_digit), "{found} is not about {expected}");
}

#[test]
fn the_page_has_what_its_commands_print() {
    let scratch = Scratch::new();
    let print = |(line, _): &(String, String)| {
        (line.clone(), scratch.ok(line).stdout.trim_end().to_owned())
    };
    let made: Vec<_> = examples().iter().map(print).collect();
    assert_eq!(made.len(), 3);
    if std::env::var_os("WRITE_DOCS").is_some() {
        write_examples(&made);
    }
    assert_eq!(examples(), made, "WRITE_DOCS=1 writes docs/guide/plan.md anew");
}

#[test]
fn forty_terabytes_on_eight_a100_cost_what_the_design_says() {
    let scratch = Scratch::new();
    let line = examples().remove(0).0;
    let plan = planned(&scratch, &line);
    // The worked example of the design, with the digits that it has.
    about(&plan["load"]["chunks"], 8.5e6, 0.0);
    about(&plan["bytes"]["blocks"], 40e12, 0.0);
    about(&(plan["build"]["device_seconds"].as_f64().unwrap() / 3600.0).into(), 19.0, 0.5);
    about(&plan["build"]["dollars"], 50.0, 0.0);
    let recompute = &plan["recompute"];
    about(&recompute["device_seconds_a_query"], 0.89, 0.0);
    about(&recompute["dollars_a_query"], 6.4e-4, 0.0);
    about(&recompute["queries_per_second_max"], 9.0, 0.0);
    about(&recompute["dollars_a_month"], 15_009.0, 0.0);
    let reuse = &plan["reuse"];
    about(&reuse["device_seconds_a_query"], 0.065, 0.0);
    about(&reuse["dollars_a_query"], 4.6e-5, 0.0);
    about(&reuse["queries_per_second_max"], 124.0, 0.0);
    about(&reuse["bytes_per_second_at_max"], 59e9, 0.0);
    about(&reuse["devices"], 0.6, 0.05);
    let disk = &plan["storages"][0];
    about(&disk["rent_dollars_a_month"], 1200.0, 0.0);
    about(&disk["dollars_a_month"], 2290.0, 0.0);
    let times =
        recompute["dollars_a_month"].as_f64().unwrap() / disk["dollars_a_month"].as_f64().unwrap();
    about(&times.into(), 6.6, 0.0);
    about(&disk["queries_per_second_break_even"], 0.8, 0.05);
    assert_eq!((&plan["verdict"], &plan["storage"]), (&"reuse".into(), &"disk".into()));
    // The rate that is given is that of the operations, to 1 %.
    let line = line.replace("--tokens-per-second 31000", "--flops 312T --efficiency 0.4");
    let rates = planned(&scratch, &line)["hardware"].take();
    about(&rates["prefill_tokens_per_second"], 31_000.0, 0.0);
    about(&rates["query_tokens_per_second"], 31_000.0, 0.0);
}

#[test]
fn two_examples_advise_against_a_store() {
    let scratch = Scratch::new();
    let [_, (few, _), (fast, _)] = examples().try_into().unwrap();
    let few = planned(&scratch, &few);
    assert_eq!((&few["verdict"], &few["storage"]), (&"recompute".into(), &Value::Null));
    let disk = &few["storages"][0];
    assert_eq!((&disk["is_faster"], &disk["is_cheaper"]), (&true.into(), &false.into()));
    let fast = planned(&scratch, &fast);
    assert_eq!(fast["verdict"], "recompute");
    for storage in fast["storages"].as_array().unwrap() {
        assert_eq!(storage["is_faster"], false, "{storage}");
        assert_eq!(storage["bound_by"], "loading");
        assert_eq!(storage["reads_a_month_break_even"], Value::Null);
        let rate = storage["bytes_per_second"].as_f64().unwrap();
        assert!(rate < fast["break_even_bytes_per_second"].as_f64().unwrap(), "{storage}");
    }
    assert!(fast["reasons"][0].as_str().unwrap().contains("nvme is too slow"), "{fast}");
}

#[test]
fn a_model_is_a_name_a_file_or_its_sizes() {
    let scratch = Scratch::new();
    let rest = "--chunks 1000 --hardware two-cores --storage nvme";
    let named = planned(&scratch, &format!("plan --model smollm2-135m {rest}"));
    assert_eq!(named["bytes"]["token"], 23_040);
    assert_eq!(named["bytes"]["block"], 256 * 23_040 + 2304);
    assert_eq!(named["bytes"]["blocks"], 1000 * (256 * 23_040 + 2304_u64));
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "vocab_size": 49_152,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
    });
    fs::create_dir(scratch.path("m")).unwrap();
    scratch.write("m/config.json", config.to_string());
    let sizes = "--layers 30 --kv-heads 3 --head-dim 64 --hidden 576 --weights 106168320 \
                 --vocabulary 49152";
    for model in ["--model m/config.json", "--model m", sizes] {
        let plan = planned(&scratch, &format!("plan {model} {rest}"));
        for part in ["bytes", "build", "recompute", "reuse", "storages"] {
            assert_eq!(plan[part], named[part], "{model}: {part}");
        }
    }
    let tiny = planned(&scratch, &format!("plan TINY {rest}"));
    assert_eq!(tiny["model"]["layers"], 2);
    let documents = "plan --model tiny --documents 1k --tokens 300 --storage nvme";
    let load = &planned(&scratch, documents)["load"];
    // Two chunks of 150 tokens a document, a hundred documents a query.
    assert_eq!(
        (&load["chunks"], &load["chunk_tokens"], &load["depth"]),
        (&json!(2000), &json!(150), &json!(200))
    );
    let int4 = planned(&scratch, &format!("plan --model smollm2-135m --kv-dtype int4 {rest}"));
    assert_eq!(int4["bytes"]["token"], 6480);
}

#[test]
fn numbers_that_nothing_can_be_computed_with_are_usage_errors() {
    let scratch = Scratch::new();
    let rest = "plan --model gemma-2b --chunks 1M";
    for (line, said) in [
        ("plan --model gemma-2b", "--chunks"),
        ("plan --chunks 1M", "--model"),
        ("plan --chunks 1M --layers 3", "--kv-heads"),
        ("plan --chunks 1M --model gemma-2b --layers 3", "cannot be used with"),
        ("plan --model gemma-2b --chunks nan", "is no unit"),
        ("plan --model gemma-2b --chunks -1", "-1"),
        ("plan --model gemma-2b --chunks 0", "above 0"),
        ("plan --model gemma-2b --chunks 1e16", "can be planned for"),
        ("plan --model gemma-2b --chunks 0.5", "can be planned for"),
        ("plan --model gemma-2b --bytes 1MB", "can be planned for"),
        ("plan --model gemma-2b --bytes 1Q", "no unit"),
        ("plan --model gemma-2b --documents 9", "--tokens"),
        (&format!("{rest} --queries-per-second inf"), "is no unit"),
        (&format!("{rest} --queries-per-second 1e99"), "1e24"),
        (&format!("{rest} --depth 0"), "0"),
        (&format!("{rest} --efficiency 0"), "above 0"),
        (&format!("{rest} --tokens-per-second 9 --flops 9"), "cannot be used with"),
        (&format!("{rest} --hardware abacus"), "there are a100"),
        (&format!("{rest} --storage tape"), "give another one its price"),
        (&format!("{rest} --storage tape:price=x"), "price: give a number"),
        (&format!("{rest} --seed 3"), "--simulate"),
        (&format!("{rest} --simulate --storage ram:size=1GB"), "the last tier must have no size"),
        (
            &format!("{rest} --simulate --depth 1000 --distinct-queries 60000 --storage s3"),
            "can be drawn",
        ),
        (
            &format!("{rest} --simulate --depth 1000 --trace-queries 9999999 --storage s3"),
            "can be simulated",
        ),
        (&format!("{rest} --prices prices.toml"), "prices.toml: line "),
        (
            &format!("{rest} --prices low.toml"),
            "storage.x: bytes_per_second: give a number above 0",
        ),
    ] {
        scratch.write("prices.toml", "\n[storage.x]\nbytes_per_second = 'fast'\n");
        scratch.write("low.toml", "[storage.x]\ndollars_per_gb_month = 1\nbytes_per_second = 0\n");
        let outcome = scratch.ends(USAGE, line);
        outcome.says(&[said]);
        assert_eq!(outcome.stdout, "", "{line}");
    }
    scratch
        .ends(FAILED, &format!("{rest} --prices none.toml"))
        .says(&["none.toml: the price table"]);
    scratch.ends(FAILED, "plan --chunks 1 --model gpt-5").says(&["gpt-5", "gemma-2b"]);
    // The largest numbers that are taken give finite figures.
    let largest = "plan --layers 1024 --kv-heads 1024 --head-dim 4096 --hidden 65536 --weights 1e24 \
                   --chunks 1e15 --queries-per-second 1e24 --depth 1000000 --chunk-tokens 32768 \
                   --kv-dtype f32 --storage x:price=1e24,bandwidth=1e-24,request=1e24,latency=1e24 \
                   --dollars-per-hour 1e24 --flops 1e-24 --efficiency 1e-24";
    let plan = planned(&scratch, largest);
    assert!(plan["recompute"]["dollars_a_month"].as_f64().unwrap().is_finite(), "{plan}");
    scratch.ok(largest);
}

#[test]
fn prices_come_from_a_table_and_a_chart_is_drawn() {
    let scratch = Scratch::new();
    let built_in = scratch.ok("plan --print-prices").stdout;
    scratch.write("built-in.toml", &built_in);
    scratch.write(
        "own.toml",
        "date = '2027-03-01'\n[hardware.mine]\nflops = 1e12\nefficiency = 1\ndollars_per_hour = 2\n\
         [storage.nas]\ndollars_per_gb_month = 0.01\nbytes_per_second = 1e9\n",
    );
    let line = "plan --model gemma-2b --chunks 1M";
    let usual = planned(&scratch, line);
    let same = planned(&scratch, &format!("{line} --prices built-in.toml"));
    assert_eq!(usual["storages"], same["storages"]);
    let own = "--prices own.toml --hardware mine --storage nas --storage ram:price=1";
    let own = planned(&scratch, &format!("{line} {own} --chart chart.svg"));
    assert_eq!(own["hardware"]["dollars_per_hour"], 2.0);
    assert_eq!(own["storages"][0]["bytes_per_second"], 1e9);
    assert_eq!(own["storages"][1]["dollars_per_gb_month"], 1.0);
    assert!(own["prices"].as_str().unwrap().contains("2027-03-01"), "{own}");
    let chart = fs::read_to_string(scratch.path("chart.svg")).unwrap();
    for part in
        [">recompute</text>", ">nas</text>", ">ram</text>", "○ break-even", "dollars a month"]
    {
        assert!(chart.contains(part), "{part}");
    }
    assert!(!chart.contains("NaN"));
}

#[test]
fn a_trace_runs_over_caches_and_a_home() {
    let scratch = Scratch::new();
    let line =
        "plan --model smollm2-135m --chunks 5183 --hardware two-cores --simulate --storage s3";
    let caches = line.replace("--storage", "--storage ram:size=3.06GB --storage");
    let found = planned(&scratch, &caches)["simulation"].take();
    let [ram, s3] = &found["storages"].as_array().unwrap()[..] else { panic!("{found}") };
    // A tenth of the blocks, as of SciFact's lists.
    let rate = ram["hit_rate"].as_f64().unwrap();
    assert!((0.37..0.5).contains(&rate), "{found}");
    assert_eq!(s3["hit_rate"], 1.0);
    let shares = ram["share_of_reads"].as_f64().unwrap() + s3["share_of_reads"].as_f64().unwrap();
    assert!((shares - 1.0).abs() < 1e-9, "{found}");
    // Requests are paid for those reads alone that the cache does not answer.
    let all =
        planned(&scratch, line)["simulation"]["storages"][0]["request_dollars_a_month"].take();
    let paid = s3["request_dollars_a_month"].as_f64().unwrap() / all.as_f64().unwrap();
    assert!((paid - (1.0 - rate)).abs() < 1e-6, "{paid} of {found}");
    assert_eq!(planned(&scratch, &caches)["simulation"], found, "the seed gives the trace");
    assert_ne!(planned(&scratch, &format!("{caches} --seed 2"))["simulation"], found);
    // Lists of a real run.
    scratch.ok("build CORPUS --store store TINY");
    let run = scratch.ok("query --store store TINY --queries QUERIES --depth 9 --format trec");
    scratch.write("run", run.stdout);
    let run = format!("{line} --run run --depth 9");
    let found = planned(&scratch, &run)["simulation"].take();
    let queries = fs::read_to_string(testdata("queries.jsonl")).unwrap().lines().count();
    assert_eq!(found["distinct_queries"], queries);
    assert!(found["blocks"].as_u64().unwrap() > 9, "{found}");
    scratch.write("empty", "");
    scratch
        .ends(FAILED, &format!("{line} --run empty"))
        .says(&["empty: the run names no document"]);
}

/// Numbers of chunks of the table of scale.
const SCALE: [(&str, &str); 7] = [
    ("10k", "10k"),
    ("100k", "100k"),
    ("1 M", "1M"),
    ("10 M", "10M"),
    ("100 M", "100M"),
    ("1 G", "1G"),
    ("10 G", "10G"),
];

/// Returns a number in three digits with a unit of powers of 1000.
fn short(mut number: f64, units: &[&str]) -> String {
    let mut at = 0;
    while number >= 999.5 && at + 1 < units.len() {
        number /= 1000.0;
        at += 1;
    }
    let digits = match number {
        n if n >= 99.95 => format!("{n:.0}"),
        n if n >= 9.995 => format!("{n:.1}"),
        n => format!("{n:.2}"),
    };
    format!("{digits} {}", units[at]).trim_end().to_owned()
}

#[test]
fn the_table_of_scale_is_what_plan_computes() {
    const BYTES: [&str; 6] = ["B", "KB", "MB", "GB", "TB", "PB"];
    const COUNTS: [&str; 4] = ["", "k", "M", "G"];
    let scratch = Scratch::new();
    let row = |(name, chunks): (&str, &str)| {
        let line = format!("plan --model gemma-2b --chunks {chunks}");
        let (plan, int4) =
            (planned(&scratch, &line), planned(&scratch, &format!("{line} --kv-dtype int4")));
        let number = |value: &Value| value.as_f64().unwrap();
        let bytes = |plan: &Value, key: &str| short(number(&plan["bytes"][key]), &BYTES);
        let money = |dollars: &Value| format!("${}", short(number(dollars), &COUNTS));
        let rent = |at: usize| {
            let storage = &plan["storages"][at];
            let name = storage["name"].as_str().unwrap();
            assert_eq!(name, ["ram", "nvme", "s3"][at]);
            money(&storage["rent_dollars_a_month"])
        };
        let hours = short(number(&plan["build"]["device_seconds"]) / 3600.0, &COUNTS);
        let cells = [
            name.to_owned(),
            bytes(&plan, "blocks"),
            bytes(&int4, "blocks"),
            bytes(&plan, "tables"),
            bytes(&plan, "chunk_files"),
            bytes(&plan, "manifest"),
            hours,
            money(&plan["build"]["dollars"]),
            rent(2),
            rent(1),
        ];
        format!("| {} |", cells.join(" | "))
    };
    let made: Vec<String> = SCALE.into_iter().map(row).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/concept/scale.md");
    let page = fs::read_to_string(&path).unwrap();
    let is_row = |line: &&str| line.starts_with("| 1") && line.matches('|').count() == 11;
    let written: Vec<&str> = page.lines().filter(is_row).collect();
    if std::env::var_os("WRITE_DOCS").is_some() {
        fs::write(&path, page.replace(&written.join("\n"), &made.join("\n"))).unwrap();
    }
    let page = fs::read_to_string(&path).unwrap();
    let written: Vec<&str> = page.lines().filter(is_row).collect();
    assert_eq!(written, made, "WRITE_DOCS=1 writes docs/concept/scale.md anew");
}

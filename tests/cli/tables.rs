//! Tables of stdout: one that fits a terminal, tab-separated lines in a pipe, and a word where it takes
//! nothing.

use std::process::Command;

use crate::started;
use crate::support::{DONE, FAILED, Outcome, Scratch, jsonl, testdata};

/// Runs the words of `line` on a terminal of so many columns, and returns what appears on it. `before` is
/// said to the shell first.
fn on_terminal(scratch: &Scratch, columns: usize, before: &str, line: &str) -> String {
    let command = scratch.command(line);
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap());
    let words: Vec<String> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(quoted).collect();
    let shell = format!("stty rows 40 cols {columns}; {before} exec {} 2>stderr", words.join(" "));
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &shell, "/dev/null"]).current_dir(scratch.path(""));
    terminal.env("HYPERRAG_HOME", scratch.path("home")).env_remove("COLUMNS");
    let done = terminal.output().unwrap();
    let shown = String::from_utf8(done.stdout).unwrap().replace('\r', "");
    assert!(done.status.success(), "{line}: {shown}");
    shown
}

/// Columns that a line of these characters takes: two for each of Chinese.
fn columns(line: &str) -> usize {
    line.chars().map(|character| if character >= '\u{2e80}' { 2 } else { 1 }).sum()
}

fn bees() -> Scratch {
    let scratch = Scratch::new();
    let row = |id: &str, title: &str| {
        let text = format!("bees {}", "visit the flowers of the meadow ".repeat(9));
        serde_json::json!({"_id": id, "title": title, "text": text})
    };
    let long = "a-very-long-id-of-a-document-that-somebody-made-from-an-address";
    let rows = [row("p1", "蜜蜂在冬天聚集在一起取暖，夏天采花酿蜜"), row(long, "Bees in winter")];
    scratch.write("corpus.jsonl", jsonl(&rows));
    scratch.ok("build corpus.jsonl --store store TINY");
    scratch
}

#[test]
fn tables_fit_the_terminal() {
    let scratch = bees();
    let query = "query --store store TINY bees";
    for width in [60, 80, 132] {
        let shown = on_terminal(&scratch, width, "", query);
        let table = shown.lines().filter(|line| line.contains(['─', '═', '…']));
        let widths: Vec<usize> = table.map(columns).collect();
        assert!(widths.len() > 4 && widths.iter().all(|found| *found <= width), "{shown}");
        assert!(shown.contains("蜜蜂在冬"), "{shown}");
        assert!(shown.contains("2 candidates in "), "{shown}");
    }
    // The variable wins over the terminal.
    let shown = on_terminal(&scratch, 132, "COLUMNS=50", query);
    assert!(shown.lines().all(|line| columns(line) <= 80), "{shown}");
    assert!(shown.lines().any(|line| line.contains('─') && columns(line) <= 50), "{shown}");
    // A terminal that does not say how wide it is.
    let shown = on_terminal(&scratch, 0, "", query);
    assert!(shown.lines().all(|line| columns(line) <= 80), "{shown}");
    let list = on_terminal(&scratch, 50, "", "model list");
    assert!(list.lines().all(|line| columns(line) <= 50) && list.contains("size"), "{list}");
    let info = on_terminal(&scratch, 80, "", "info --store store");
    assert!(info.contains("\ndocuments                  2\n"), "{info}");
}

/// Writes judgements, three runs and the hits that `tune` reads.
fn write_runs(scratch: &Scratch) {
    let (mut qrels, mut hits) = (String::new(), String::new());
    let mut runs = [String::new(), String::new(), String::new()];
    for query in 0..24 {
        qrels += &format!("question-number-{query} 0 a 1\n");
        for (at, run) in runs.iter_mut().enumerate() {
            let first = if query % 3 < at { ["a", "b"] } else { ["b", "a"] };
            for (rank, document) in (1..).zip(first) {
                let score = 3 - rank;
                *run += &format!("question-number-{query} Q0 {document} {rank} {score} t\n");
            }
        }
        let odd = i32::from(query % 2 == 1);
        let hit = |id: &str, score: i32| serde_json::json!({"id": id, "model_score": score, "retriever_score": -score});
        let hits_of = [hit("a", odd), hit("b", 1 - odd)];
        let id = format!("question-number-{query}");
        hits += &format!("{}\n", serde_json::json!({"query_id": id, "hits": hits_of}));
    }
    scratch.write("qrels", qrels);
    scratch.write("hits", hits);
    for (name, text) in ["retriever", "reranked", "fused"].iter().zip(runs) {
        scratch.write(&format!("a-folder-of-runs-{name}.run"), text);
    }
}

#[test]
fn figures_and_descriptions_fit_the_terminal() {
    let scratch = bees();
    write_runs(&scratch);
    let [first, second, third] =
        ["retriever", "reranked", "fused"].map(|name| format!("a-folder-of-runs-{name}.run"));
    let eval = format!("eval --run {second} {third} --baseline {first} --qrels qrels");
    let bench = "bench --store store TINY --depth 2 --query-count 1";
    for width in [60, 80, 120] {
        for line in [
            eval.as_str(),
            &format!("{eval} --per-query"),
            &format!("eval --run {first} {second} {third} --qrels qrels"),
            "tune --hits hits --qrels qrels",
            "info --store store",
            "devices",
            "verify --store store",
            bench,
        ] {
            let shown = on_terminal(&scratch, width, "", line);
            for row in shown.lines() {
                // A path or a digest stays whole.
                let is_word = !row.trim().contains(' ');
                assert!(columns(row) <= width || is_word, "{width}: {line}: {row}\n{shown}");
            }
        }
        let shown = on_terminal(&scratch, width, "", &eval);
        for whole in ["p (Holm)", "reranked.run", "95 % interval", "worse", "+0.1"] {
            assert!(shown.contains(whole), "{width}: {whole} is not in {shown}");
        }
    }
}

#[test]
fn help_that_nobody_can_read_is_a_failure() {
    let scratch = Scratch::new();
    for line in ["--help", "--version", "-h", "help query", "query --help", "bench quality --help"]
    {
        assert_eq!(scratch.ok(line).stderr, "", "{line}");
        let output = started::after("exec >/dev/full", &scratch.command(line)).output().unwrap();
        let outcome = scratch.check(line, output);
        assert_eq!(outcome.code, FAILED, "{line}: {}", outcome.stderr);
        outcome.says(&["stdout: cannot be written: No space left"]);
    }
}

#[test]
fn a_pipe_gets_tab_separated_lines() {
    let scratch = bees();
    scratch.write("q.tsv", "a\tbees\nb\tmeadow\n");
    let batch = scratch.ok("query --store store TINY --queries q.tsv").stdout;
    let lines: Vec<Vec<&str>> = batch.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines[0], ["query", "score", "rank", "id", "title", "snippet"]);
    assert_eq!(lines.len(), 5, "{batch}");
    assert!(lines.iter().all(|fields| fields.len() == 6), "{batch}");
    assert_eq!(lines[1..].iter().map(|fields| fields[0]).collect::<String>(), "aabb");
    assert!(
        batch.contains("\t蜜蜂在冬天聚集在一起取暖，夏天采花酿蜜\t"),
        "ids and titles are whole"
    );
    let info = scratch.ok("info --store store").stdout;
    assert!(info.contains("\ndocuments\t2\n"), "{info}");
    assert!(info.lines().all(|line| line.matches('\t').count() == 1), "{info}");
    for (line, start) in [
        ("model list", "name\tsize\tstate\tdescription\nsmollm2-135m\t"),
        ("devices", "cpu\t"),
        ("build corpus.jsonl --store new TINY --dry-run", "documents\t2\nleft out\t"),
        ("model info TINY_PATH", "name\t"),
        (
            "bench --store store TINY --depth 2 --query-count 1",
            "2 documents, depth 2\treuse\trecompute\n",
        ),
    ] {
        let stdout = scratch.ok(&line.replace("TINY_PATH", &testdata("tiny.gguf"))).stdout;
        assert!(stdout.starts_with(start), "{line}: {stdout}");
        assert!(!stdout.contains('|'), "{line}: {stdout}");
    }
}

#[test]
fn an_output_that_takes_nothing_is_named() {
    let scratch = bees();
    write_runs(&scratch);
    let eval = "eval --run a-folder-of-runs-fused.run --qrels qrels";
    for line in [
        "info --store store",
        "query --store store TINY --json bees",
        "model list",
        eval,
        &format!("{eval} --json"),
        "tune --hits hits --qrels qrels",
        "devices",
        "verify --store store",
        "info --store store --print-config",
    ] {
        let command = scratch.command(line);
        let output = started::after("exec >/dev/full", &command).output().unwrap();
        let outcome = scratch.check(line, output);
        assert_eq!(outcome.code, FAILED, "{line}: {}", outcome.stderr);
        outcome.says(&["stdout: cannot be written: No space left"]);
    }
    // Messages that nobody takes are no reason to fail.
    let command = scratch.command("build corpus.jsonl --store quiet TINY");
    let output = started::after("exec 2>/dev/full", &command).output().unwrap();
    assert_eq!(Outcome::of(output).code, DONE);
    assert!(scratch.path("quiet").exists());
}

#[test]
fn a_file_that_grows_too_large_is_named() {
    let scratch = bees();
    let limited = |script: &str, line: &str| {
        let outcome = Outcome::of(scratch.soon_after(script, line));
        assert_eq!(outcome.code, FAILED, "{line}: {}", outcome.stderr);
        outcome
    };
    limited("ulimit -f 8", "build corpus.jsonl --store new TINY").says(&["new/", "File too large"]);
    let eval = "bench --store store TINY --depth 2 --query-count 1 --out figures.json";
    limited("ulimit -f 1", eval).says(&["figures.json: cannot be written: File too large"]);
}

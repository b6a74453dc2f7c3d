//! Runs and judgements drawn from seeds in, the measures of `ir_measures` against the crate's out.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use hyperrag_eval::metric::evaluate::{Evaluation, evaluate};
use hyperrag_eval::{Measure, Qrels, Run};
use serde::Deserialize;

#[path = "../../../tests/cli/seeded.rs"]
mod seeded;

use seeded::Seeded;

const PAIRS: u64 = 500;

const MEASURES: [&str; 51] = [
    "nDCG",
    "nDCG@3",
    "nDCG(judged_only=True)@3",
    "nDCG(gains={0:0,1:1,2:4})@10",
    "nDCG(gains={0:1,3:0})",
    "nDCG(dcg='exp-log2')@5",
    "NDCG@10",
    "AP",
    "AP@5",
    "AP(rel=2)",
    "AP(rel=3)@3",
    "AP(judged_only=True)",
    "MAP",
    "MAP@3",
    "RR",
    "RR@2",
    "RR(rel=2)",
    "RR(rel=2)@3",
    "RR(judged_only=True)",
    "MRR@10",
    "R@5",
    "R(rel=2)@3",
    "R(judged_only=True)@2",
    "P@5",
    "P@30",
    "P(rel=2)@3",
    "P(rel=2,judged_only=True)@5",
    "Success@2",
    "Success(rel=3)@4",
    "Judged",
    "Judged@3",
    "Judged@100",
    "Bpref",
    "Bpref(rel=2)",
    "Rprec",
    "Rprec(rel=2)",
    "SetP",
    "SetP(rel=2,judged_only=True)",
    "SetRelP",
    "SetR",
    "SetR(rel=2)",
    "SetF",
    "SetF(beta=2.0)",
    "SetF(rel=2,beta=0.5)",
    "SetAP",
    "infAP",
    "infAP(rel=2)",
    "RBP(rel=1)",
    "RBP(p=0.99,rel=2)",
    "ERR@3",
    "ERR@20",
];

/// Values by the reference for one pair, each list in the order of the measures.
#[derive(Deserialize)]
struct Reference {
    means: Vec<f64>,
    per_query: BTreeMap<String, Vec<f64>>,
}

/// Writes a run and its judgements.
fn write_pair(folder: &Path, seed: u64) {
    let mut random = Seeded(seed);
    let (lowest, highest) = ([0, 0, -1, -3][random.below(4)], [1, 3, 4][random.below(3)]);
    let (ids, names, scores) = (random.below(4), random.below(4), random.below(6));
    let apart = random.below(20) == 0;
    let ends = ["\n", "\n", "\r\n"][random.below(3)];
    let part = [" ", "\t", "  "][random.below(3)];
    let (mut qrels, mut run) = (Vec::new(), Vec::new());
    for query in 0..=random.below(6) {
        let highest = if random.below(7) == 0 { 0 } else { highest };
        let (judged, ranked) = (random.below(8) > 0, random.below(8) > 0);
        let id = name(ids, query);
        for document in 0..random.below(25) {
            let document = name(names, document);
            // The first document is judged, so that there are judgements.
            if qrels.is_empty() || (judged && random.below(3) > 0) {
                let span = (highest - lowest + 1) as usize;
                let grade = lowest + random.below(span) as i32;
                qrels.push([&id, "0", &document, &grade.to_string()].join(part));
            }
            if ranked && random.below(4) > 0 {
                let id = if apart { format!("x{id}") } else { id.clone() };
                let score = score(scores, &mut random);
                run.push([&id, "Q0", &document, "1", &score, "t"].join(part));
            }
        }
    }
    if qrels.is_empty() {
        qrels.push(["q", "0", "d", "1"].join(part));
    }
    // The order of lines must not matter.
    (1..run.len()).rev().for_each(|last| run.swap(last, random.below(last + 1)));
    let text = |lines: &[String]| lines.iter().fold(String::new(), |text, line| text + line + ends);
    fs::write(folder.join(format!("{seed}.qrels")), text(&qrels)).unwrap();
    fs::write(folder.join(format!("{seed}.run")), text(&run)).unwrap();
}

/// An id of some kind: letters, numbers, numbers beyond 64 bits, and signs of several lengths.
fn name(kind: usize, number: usize) -> String {
    match kind {
        0 => format!("d{number}"),
        1 => number.to_string(),
        2 => format!("3689348814741910323{number}"),
        _ => {
            let signs = ["é", "z", "Z", "日本", "\u{ffff}", "\u{1f41d}", "a%20b", "a"];
            format!("{}{}", signs[number % signs.len()], number / signs.len())
        }
    }
}

/// A score of some kind: few that differ, some that are equal in single precision only, numbers with
/// exponents, zeros of both signs, and such as single precision has no room for.
fn score(kind: usize, random: &mut Seeded) -> String {
    let mut score = String::new();
    let number = random.below(6);
    let _ = match kind {
        0 => write!(score, "{number}"),
        1 => write!(score, "{number}.{:09}", random.below(2)),
        2 => write!(score, "{:.3e}", (random.below(2000) as f64 - 1000.0) / 7.0),
        3 => write!(score, "{}", ["0", "-0.0", "1e-46", "-1e-50", "0.0", "1E-3"][number]),
        4 => write!(score, "{}", ["1e300", "1e299", "3e38", "-1e300", "2.5E+2", "-1e39"][number]),
        _ => write!(score, "{}", random.next() as f64 / 1e12),
    };
    score
}

fn reference(folder: &Path) -> BTreeMap<u64, Reference> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join("target/python/bin/python");
    assert!(python.exists(), "there is no {}: `make python` installs it", python.display());
    let mut command = Command::new(python);
    command.arg(root.join("scripts/measures.py")).arg(folder).args(MEASURES);
    let output = command.env("PYTHONUTF8", "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn measures_are_those_of_ir_measures() {
    let folder = tempfile::TempDir::new().unwrap();
    (0..PAIRS).for_each(|seed| write_pair(folder.path(), seed));
    let measures: Vec<Measure> = MEASURES.iter().map(|name| name.parse().unwrap()).collect();
    let (mut compared, mut differences) = (0, Vec::new());
    for (seed, reference) in reference(folder.path()) {
        let read = |kind: &str| fs::read(folder.path().join(format!("{seed}.{kind}"))).unwrap();
        let qrels = Qrels::parse(&read("qrels")[..], "qrels").unwrap();
        let run = Run::parse(&read("run")[..], "run").unwrap();
        let own: Evaluation = evaluate(&run, &qrels, &measures);
        assert!(own.per_query.keys().eq(reference.per_query.keys()), "{seed}");
        let mut check = |what: &str, measure: &str, own: f64, other: f64| {
            compared += 1;
            if (own - other).abs() > 1e-6 || !own.is_finite() {
                differences.push(format!("pair {seed}, {measure} of {what}: {own}, not {other}"));
            }
        };
        for (place, (name, measure)) in MEASURES.iter().zip(&measures).enumerate() {
            let key = measure.to_string();
            check("all", name, own.metrics[&key].mean, reference.means[place]);
            for (query, values) in &reference.per_query {
                check(query, name, own.per_query[query][&key], values[place]);
            }
        }
    }
    assert!(compared > 50_000, "{compared}");
    assert!(
        differences.is_empty(),
        "{} of {compared}: {:#?}",
        differences.len(),
        &differences[..differences.len().min(20)]
    );
}

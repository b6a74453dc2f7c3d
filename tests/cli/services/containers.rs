//! The containers of `deploy/job.yaml` and `deploy/merge.yaml` as processes: their `args`, their variables and nothing
//! else, eight at once, with a real bucket.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

use serde_json::Value;

use super::{BUCKET, Server, Services};
use crate::deploy::manifest;
use crate::partition::answers;
use crate::support::{Outcome, Scratch, ranked, testdata};

/// Workers of the job.
const WORKERS: u64 = 8;

/// Runs the one container of a manifest, with folders of `root` in the place of its volumes.
fn run(name: &str, root: &Path, bucket: &Server, more: &[(&str, String)]) -> Output {
    let container = manifest(name)["spec"]["template"]["spec"]["containers"][0].clone();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hyperrag"));
    command.env_clear().current_dir(root).stdin(Stdio::null());
    let mounts: Vec<_> = container["volumeMounts"].as_array().unwrap().iter().collect();
    let inside = |value: &Value| {
        let value = value.as_str().unwrap();
        let mounted =
            mounts.iter().any(|mount| value.starts_with(mount["mountPath"].as_str().unwrap()));
        match value {
            _ if mounted => root.join(value.trim_start_matches('/')).display().to_string(),
            "s3://BUCKET/PREFIX" => format!("s3://{BUCKET}/job"),
            value => value.to_owned(),
        }
    };
    command.args(container["args"].as_array().unwrap().iter().map(inside));
    for variable in container["env"].as_array().unwrap() {
        command.env(variable["name"].as_str().unwrap(), inside(&variable["value"]));
    }
    let secret = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"];
    let secret = bucket.environment().into_iter().filter(|(name, _)| secret.contains(name));
    command.envs(secret).envs(more.iter().map(|(name, value)| (*name, value)));
    command.output().unwrap()
}

#[test]
fn the_containers_of_the_job_build_a_store_in_a_bucket() {
    let Some(services) = Services::find() else { return };
    let bucket = services.weed();
    let scratch = Scratch::new();
    ["input", "models"].iter().for_each(|name| fs::create_dir(scratch.path(name)).unwrap());
    fs::copy(testdata("corpus.parquet"), scratch.path("input/corpus.parquet")).unwrap();
    scratch.ok("build CORPUS TINY --unit-rows 4 --store whole");
    // Three spans, not one.
    scratch.write("settings.toml", "[build]\nunit-rows = 4\n");
    let job = manifest("job.yaml");
    assert_eq!([&job["spec"]["completions"], &job["spec"]["parallelism"]], [WORKERS, WORKERS]);
    let worker = |index: u64| {
        let root = scratch.path("");
        let more = [
            ("JOB_COMPLETION_INDEX", index.to_string()),
            ("HYPERRAG_MODEL", testdata("tiny.gguf")),
            ("HYPERRAG_CONFIG", scratch.path("settings.toml").display().to_string()),
        ];
        Outcome::of(run("job.yaml", &root, &bucket, &more))
    };
    thread::scope(|scope| {
        let worker = &worker;
        let workers: Vec<_> = (0..WORKERS).map(|n| scope.spawn(move || worker(n))).collect();
        for worker in workers {
            let outcome = worker.join().unwrap();
            assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        }
    });
    let merged = Outcome::of(run("merge.yaml", &scratch.path(""), &bucket, &[]));
    assert_eq!(merged.code, 0, "{}", merged.stderr);
    let with_bucket = |line: &str| {
        let mut command = scratch.command(line);
        command.envs(bucket.environment());
        let outcome = scratch.check(line, command.output().unwrap());
        assert_eq!(outcome.code, 0, "{line}: {}", outcome.stderr);
        outcome
    };
    // Every byte of every block is that of the store of one build.
    with_bucket(&format!("verify --store whole --tier s3://{BUCKET}/job"));
    let query = "query TINY --json --queries QUERIES --depth 20 -k 20 --store";
    let found = with_bucket(&format!("{query} s3://{BUCKET}/job"));
    assert_eq!(ranked(&found), answers(&scratch, "whole"));
}

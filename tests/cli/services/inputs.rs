//! Builds from a bucket of SeaweedFS, compared byte by byte with builds from the same files.

use std::fs;
use std::process::Stdio;

use super::{BUCKET, Services};
use crate::buckets::{BUILD, written};
use crate::support::{DONE, FAILED, Outcome};

#[test]
fn a_bucket_gives_the_stores_of_its_files() {
    let Some(services) = Services::find() else { return };
    let server = services.weed();
    let scratch = written();
    scratch.ok(&format!("build in {BUILD} --store whole"));
    for name in ["a.parquet", "b.jsonl.gz", "c.tsv", "README.md"] {
        server.put(&format!("in/{name}"), &fs::read(scratch.path("in").join(name)).unwrap());
    }
    server.put("in/below/d.tsv", b"d\tit is not read\n");
    let start = |line: &str| {
        let mut command = scratch.command(line);
        command.envs(server.environment());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let run = |line: &str| {
        let output = start(line).wait_with_output().unwrap();
        scratch.check(line, output)
    };
    let url = format!("s3://{BUCKET}/in");
    let all = ["a.parquet", "b.jsonl.gz", "c.tsv"].map(|name| format!("{url}/{name}")).join(" ");
    for (n, inputs) in [format!("{url}/"), url.clone(), all].into_iter().enumerate() {
        let done = run(&format!("build {inputs} {BUILD} --store far{n}"));
        assert_eq!(done.code, DONE, "{}", done.stderr);
        assert!(scratch.contents(&format!("far{n}")) == scratch.contents("whole"), "{inputs}");
    }
    // Two workers, whose place is the bucket too.
    let place = format!("s3://{BUCKET}/many");
    let worker = |part| format!("build {url}/ {BUILD} --store {place} --partition {part}");
    for child in [start(&worker("1/2")), start(&worker("2/2"))] {
        let outcome = Outcome::of(child.wait_with_output().unwrap());
        assert_eq!(outcome.code, DONE, "{}", outcome.stderr);
    }
    assert_eq!(run(&format!("merge --store {place}")).code, DONE);
    assert_eq!(run(&format!("verify --store whole --tier {place}")).code, DONE);

    let refused = |inputs: &str, parts: &[&str]| {
        let outcome = run(&format!("build {inputs} {BUILD} --store none"));
        assert_eq!(outcome.code, FAILED, "{}", outcome.stderr);
        outcome.says(parts);
    };
    refused(&format!("{url}/none.tsv"), &["/in/none.tsv: there is no such object"]);
    refused("s3://no-such-bucket/in/a.tsv", &["no bucket of this name"]);
    server.put("in/c.tsv", b"c\tanother text\n");
    let outcome = run(&worker("1/1").replace("many", "other"));
    assert_eq!(outcome.code, DONE, "{}", outcome.stderr);
    server.put("in/c.tsv", b"c\tyet another text\n");
    let outcome = run(&worker("1/1").replace("many", "other"));
    assert_eq!(outcome.code, FAILED, "{}", outcome.stderr);
    outcome.says(&["from another version of the input", "/in/c.tsv has changed"]);
}

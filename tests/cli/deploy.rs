//! Manifests of `deploy/`: they fit the schemas of Kubernetes, and their parts belong together. What their containers
//! do is tested with a real bucket (`services/containers.rs`).

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::docs::root;
use crate::support::Scratch;

const MANIFESTS: [(&str, &str); 2] =
    [("job.yaml", "job/hyperrag-build"), ("merge.yaml", "job/hyperrag-merge")];

/// Versions of Kubernetes: the first that has all fields switched on, one between, and the last that is known.
const VERSIONS: [&str; 3] = ["1.29", "1.33", "1.37"];

fn path(name: &str) -> PathBuf {
    root().join("deploy").join(name)
}

/// Returns a program of the Python that tests use.
fn python(name: &str) -> Command {
    let program = root().join("target/python/bin").join(name);
    assert!(program.exists(), "there is no {}: `make python` installs it", program.display());
    Command::new(program)
}

/// Reads a manifest.
pub(crate) fn manifest(name: &str) -> Value {
    let mut command = python("python");
    command.args(["-c", "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin)))"]);
    let output = command.stdin(fs::File::open(path(name)).unwrap()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Checks manifests strictly, which refuses unknown fields. Returns a line for each, in order.
fn checked(version: &str, paths: &[PathBuf]) -> Vec<String> {
    let mut command = python("kubernetes-validate");
    let output = command.args(["--strict", "-k", version]).args(paths).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = said.lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), paths.len(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    lines
}

/// Tells whether a line of the check says that a resource fits. The exit code would not do: a resource whose kind has
/// no schema ends with 0 too.
fn fits(line: &str, resource: &str, version: &str) -> bool {
    line.ends_with(&format!(" passed for resource {resource} against version {version}"))
}

#[test]
fn manifests_fit_the_schemas_of_kubernetes() {
    for version in VERSIONS {
        let lines = checked(version, &MANIFESTS.map(|(name, _)| path(name)));
        for (line, (_, resource)) in lines.iter().zip(MANIFESTS) {
            assert!(fits(line, resource, version), "{line}");
        }
    }
}

#[test]
fn faults_in_manifests_are_found() {
    let scratch = Scratch::new();
    let (name, resource) = MANIFESTS[0];
    let text = fs::read_to_string(path(name)).unwrap();
    let faults = [
        ("backoffLimitPerIndex:", "backoffLimitPerIndx:", "backoffLimitPerIndx"),
        ("restartPolicy:", "restartpolicy:", "restartpolicy"),
        ("completions: 8", "completions: eight", "spec.completions"),
        ("values: [2, 5]", "values: [\"2\"]", "onExitCodes.values.0"),
        ("- --partition", "- 8", "args"),
        ("operator: In", "operatr: In", "'operator'"),
        ("kind: Job", "kind: Jbo", "Couldn't find schema"),
        ("apiVersion: batch/v1", "apiVersion: batch/v2", "Couldn't find schema"),
    ];
    let planted = (0..).zip(faults).map(|(n, (old, new, _))| {
        assert_eq!(text.matches(old).count(), 1, "{old}");
        let path = scratch.path(&format!("{n}.yaml"));
        fs::write(&path, text.replace(old, new)).unwrap();
        path
    });
    let paths: Vec<PathBuf> = planted.collect();
    for (line, (_, new, named)) in checked("1.37", &paths).iter().zip(faults) {
        assert!(!fits(line, resource, "1.37") && line.contains(named), "{new}: {line}");
    }
}

/// Returns the values of a field in a list of objects.
fn each<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    let list = list.as_array().unwrap().iter();
    list.map(|item| item[field].as_str().unwrap()).collect()
}

#[test]
fn parts_of_a_manifest_belong_together() {
    for (name, _) in MANIFESTS {
        let pod = manifest(name)["spec"]["template"]["spec"].clone();
        let container = &pod["containers"][0];
        let (volumes, mounts) = (each(&pod["volumes"], "name"), &container["volumeMounts"]);
        assert_eq!(each(mounts, "name"), volumes, "{name}");
        // A path lies in a volume.
        let mounts = each(mounts, "mountPath");
        let words = container["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
        let paths: Vec<_> = words.filter(|word| word.starts_with('/')).collect();
        assert!(!paths.is_empty(), "{name}");
        for path in paths {
            assert!(mounts.iter().any(|mount| path.starts_with(mount)), "{name}: {path}");
        }
    }
    // The server refuses what no schema tells.
    let job = manifest("job.yaml")["spec"].clone();
    assert_eq!(job["completionMode"], "Indexed");
    assert_eq!(job["template"]["spec"]["restartPolicy"], "Never");
    let policy = &job["podFailurePolicy"]["rules"][1]["onExitCodes"]["containerName"];
    assert_eq!(*policy, job["template"]["spec"]["containers"][0]["name"]);
    let place = |name: &str| {
        let container = manifest(name)["spec"]["template"]["spec"]["containers"][0].clone();
        let words: Vec<_> = container["args"].as_array().unwrap().clone();
        let at = words.iter().position(|word| word == "--store").unwrap();
        [container["image"].clone(), words[at + 1].clone(), container["envFrom"].clone()]
    };
    assert_eq!(place("job.yaml"), place("merge.yaml"));
}

//! A folder in which the program runs, and the results of a run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::started;

/// Exit codes, as `hyperrag --help` lists them.
pub(crate) const DONE: i32 = 0;
pub(crate) const FAILED: i32 = 1;
pub(crate) const USAGE: i32 = 2;
pub(crate) const DEGRADED: i32 = 3;
pub(crate) const DAMAGED: i32 = 4;
pub(crate) const MISMATCH: i32 = 5;
pub(crate) const INTERRUPTED: i32 = 130;

/// Returns the path of a file of `testdata/`.
pub(crate) fn testdata(name: &str) -> String {
    format!("{}/testdata/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Returns the passages, each a JSON object.
pub(crate) fn passages() -> Vec<Value> {
    let text = fs::read_to_string(testdata("passages.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Writes each row as a line of JSON.
pub(crate) fn jsonl(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

#[expect(clippy::print_stderr, reason = "the harness shows it beside a failure")]
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// Whether a line of stderr was printed during the run, not at its end.
pub(crate) fn is_on_the_way(line: &str) -> bool {
    ["warning: ", "fetching ", "computing in ", "columns: "]
        .iter()
        .any(|start| line.starts_with(start))
}

/// Shell command that limits a program to 4 GiB of address space.
pub(crate) const LITTLE_MEMORY: &str = "ulimit -v 4194304";

/// Time longer than any command takes that [`Scratch::soon_after`] runs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Words that start a program which ignores no signal to stop.
pub(crate) const HEEDING: [&str; 2] = ["env", "--default-signal=INT,TERM,HUP"];

/// The output of one run.
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("the program ended by itself"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Checks that stderr has all of `parts`.
    #[track_caller]
    pub(crate) fn says(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in: {}", self.stderr);
        }
    }

    /// Returns the value of each line of stdout.
    pub(crate) fn json(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// An empty folder with an empty home for models.
pub(crate) struct Scratch {
    folder: TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("home")).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Returns the program with the words of `line`, in this folder. `TINY`, `CORPUS` and `QUERIES`
    /// stand for the model and its options, and for files of `testdata/`.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hyperrag"));
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("HYPERRAG_") {
                command.env_remove(variable);
            }
        }
        for word in line.split_whitespace() {
            match word {
                "TINY" => command.arg("--model").arg(testdata("tiny.gguf")),
                "CORPUS" => command.arg(testdata("corpus.parquet")),
                "QUERIES" => command.arg(testdata("queries.jsonl")),
                "EMPTY" => command.arg(""),
                word => command.arg(word),
            };
        }
        command.current_dir(self.folder.path()).env("HYPERRAG_HOME", self.path("home"));
        command
    }

    /// Returns the program with the words of `line`, started by a shell that ran `script` before, such
    /// as `ulimit -n 64`.
    pub(crate) fn command_after(&self, script: &str, line: &str) -> Command {
        started::after(script, &self.command(line))
    }

    /// Runs the program after `script`. Kills it and fails if it does not end within a minute.
    #[track_caller]
    pub(crate) fn soon_after(&self, script: &str, line: &str) -> Output {
        let mut command = self.command_after(script, line);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (mut child, start) = (command.spawn().unwrap(), Instant::now());
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("{line}: it hangs");
            }
            sleep(Duration::from_millis(5));
        }
        child.wait_with_output().unwrap()
    }

    /// Starts the program without waiting for it. It heeds signals to stop, even if the tests were
    /// started to ignore them, as a shell does for background jobs.
    pub(crate) fn spawn(&self, line: &str) -> Child {
        let mut command = started::by(&HEEDING, &self.command(line));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Runs the program to its end, and checks what holds for every end.
    #[track_caller]
    pub(crate) fn run(&self, line: &str) -> Outcome {
        self.check(line, self.command(line).output().unwrap())
    }

    /// Runs the program with stdin to its end, and checks what holds for every end.
    #[track_caller]
    pub(crate) fn run_with_stdin(&self, line: &str, stdin: &str) -> Outcome {
        let mut command = assert_cmd::Command::from_std(self.command(line));
        self.check(line, command.write_stdin(stdin).output().unwrap())
    }

    /// Checks a finished run: a failure is one sentence, and no file is half-written.
    #[track_caller]
    pub(crate) fn check(&self, line: &str, output: Output) -> Outcome {
        let outcome = Outcome::of(output);
        let Outcome { code, stderr, .. } = &outcome;
        for word in ["panicked", "RUST_BACKTRACE", "backtrace", "Error {"] {
            assert!(!stderr.contains(word), "{line}: {stderr}");
        }
        let errors = stderr.lines().filter(|line| line.starts_with("error: ")).count();
        let said = stderr.lines().filter(|line| !is_on_the_way(line)).count();
        match *code {
            DONE | DEGRADED => assert_eq!(errors, 0, "{line}: {stderr}"),
            FAILED | DAMAGED | MISMATCH => {
                assert_eq!(said, 1, "{line}: {stderr}");
                assert_eq!(errors, 1, "{line}: {stderr}");
            }
            USAGE => assert_eq!(errors, 1, "{line}: {stderr}"),
            _ => assert_eq!(said, 1, "{line}: {stderr}"),
        }
        let half: Vec<_> = all_files(self.folder.path())
            .into_iter()
            .filter(|path| {
                path.extension().is_some_and(|e| e == "tmp") || path.ends_with("partial")
            })
            .collect();
        assert!(half.is_empty(), "{line}: {half:?}");
        outcome
    }

    /// Runs the program, which must end with `code`.
    #[track_caller]
    pub(crate) fn ends(&self, code: i32, line: &str) -> Outcome {
        let outcome = self.run(line);
        let Outcome { stdout, stderr, .. } = &outcome;
        assert_eq!(outcome.code, code, "{line}\nstdout: {stdout}\nstderr: {stderr}");
        outcome
    }

    #[track_caller]
    pub(crate) fn ok(&self, line: &str) -> Outcome {
        self.ends(DONE, line)
    }

    /// Runs the program, which must fail and make no store at `store`.
    #[track_caller]
    pub(crate) fn fails_without_store(&self, line: &str) -> Outcome {
        let outcome = self.ends(FAILED, line);
        assert!(!self.path("store").exists(), "{line}: a store was left");
        outcome
    }

    /// Returns names and bytes of the shards and chunk files of a store.
    pub(crate) fn contents(&self, store: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        contents(&self.path(store))
    }

    /// Returns every file of a store with its bytes, except locks, the list of replicas and the
    /// manifest's announcement, which differs between replicas.
    pub(crate) fn files(&self, store: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let root = self.path(store);
        let kept = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            path.is_file()
                && !name.ends_with("lock")
                && name != "replicas.json"
                && name != "generation"
        };
        let files = all_files(&root).into_iter().filter(kept);
        let name = |path: &PathBuf| path.strip_prefix(&root).unwrap().to_owned();
        files.map(|path| (name(&path), fs::read(&path).unwrap())).collect()
    }

    /// Changes the file `name` in place.
    pub(crate) fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path(name)).unwrap();
        change(&mut bytes);
        self.write(name, bytes);
    }
}

pub(crate) fn contents(store: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for folder in ["shards", "chunks"] {
        for path in all_files(&store.join(folder)) {
            found.insert(path.strip_prefix(store).unwrap().into(), fs::read(&path).unwrap());
        }
    }
    found
}

/// Lists all files and folders below `folder`.
pub(crate) fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(all_files(&path));
        }
        found.push(path);
    }
    found
}

/// Copies a folder with all below it.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    for path in all_files(from) {
        if path.is_file() {
            let to = to.join(path.strip_prefix(from).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(&path, to).unwrap();
        }
    }
}

/// Returns query, documents and the bits of their scores for every answer in `--json` that is no error.
pub(crate) fn ranked(outcome: &Outcome) -> Vec<(String, Vec<(String, u32)>)> {
    let hit = |hit: &Value| {
        let score = hit["model_score"].as_f64().unwrap() as f32;
        (hit["id"].as_str().unwrap().to_owned(), score.to_bits())
    };
    let answer = |answer: Value| {
        let hits = answer["hits"].as_array().unwrap().iter().map(hit).collect();
        (answer["query_id"].as_str().unwrap().to_owned(), hits)
    };
    let answers = outcome.json().into_iter().filter(|answer| answer.get("error").is_none());
    answers.map(answer).collect()
}

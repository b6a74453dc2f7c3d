//! An index that changes under an open reader, or that is another user's.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use hyperrag_kv::Document;
use hyperrag_retrieval::{Analyzer, IndexWriter, Location};
use hyperrag_store::Store;
use serde_json::Value;

use crate::seeded::Seeded;
use crate::support::{
    DAMAGED, DEGRADED, DONE, FAILED, Outcome, Scratch, all_files, passages, testdata,
};

const ASK: &str = "query - --store store TINY --json -k 20";
const QUERIES: [&str; 4] =
    ["bees in the cold months", "flat and heavy bread", "time and water", "the account"];

/// A store whose index has texts so long that they are not kept in memory.
fn built() -> Scratch {
    let scratch = Scratch::new();
    scratch.ok("build CORPUS --store store TINY --unit-rows 64");
    let store = Store::open(&scratch.path("store")).unwrap();
    let folder = scratch.path("store/index");
    fs::remove_dir_all(&folder).unwrap();
    let mut index = IndexWriter::open(&folder, Analyzer::ENGLISH).unwrap();
    let mut random = Seeded(3);
    let mut noise = || (0..3000).map(|_| format!(" {:x}", random.next() >> 16)).collect::<String>();
    for record in &store.manifest().shards {
        for indexed in store.chunks(record.shard).unwrap().documents {
            let shard = record.shard;
            let location =
                Location { shard, first_slot: indexed.first_slot, chunks: indexed.chunks };
            let text = indexed.document.text.clone() + &noise();
            index.add(indexed.row, &Document { text, ..indexed.document }, location).unwrap();
        }
    }
    index.finish(store.manifest().next_shard().0).unwrap();
    scratch
}

/// Someone who types queries.
struct Asking {
    program: Child,
    stdin: ChildStdin,
    said: Receiver<String>,
}

impl Asking {
    fn start(scratch: &Scratch) -> Self {
        fn tell(from: impl std::io::Read + Send + 'static, to: Sender<String>) {
            let lines = BufReader::new(from).lines().map_while(Result::ok);
            thread::spawn(move || lines.for_each(|line| drop(to.send(line))));
        }
        let mut command = scratch.command(ASK);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut program = command.spawn().unwrap();
        let (to, said) = channel();
        tell(program.stdout.take().unwrap(), to.clone());
        tell(program.stderr.take().unwrap(), to);
        let stdin = program.stdin.take().unwrap();
        Self { program, stdin, said }
    }

    /// What comes next: an answer in JSON, or a warning.
    fn next(&self) -> String {
        self.said.recv().expect("the program lives")
    }

    fn ask(&mut self, query: &str) -> String {
        writeln!(self.stdin, "{query}").unwrap();
        self.next()
    }

    fn end(mut self) -> i32 {
        drop(self.stdin);
        self.program.wait().unwrap().code().expect("the program ended by itself")
    }
}

/// Documents with their scores, and the failovers of an answer.
fn hits(answer: &str) -> (Value, u64) {
    let answer: Value = serde_json::from_str(answer).expect(answer);
    (answer["hits"].clone(), answer["stats"]["failovers"].as_u64().unwrap())
}

/// Changes a bit in each 4 KiB of stored texts and postings, and gives what undoes it.
fn flip(index: &Path) -> impl Fn() + use<> {
    let is_read = |path: &PathBuf| path.extension().is_some_and(|e| e == "store" || e == "idx");
    let files: Vec<_> = all_files(index).into_iter().filter(is_read).collect();
    let whole: Vec<_> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    for (path, whole) in files.iter().zip(&whole) {
        let file = File::options().write(true).open(path).unwrap();
        for at in (0..whole.len()).step_by(4096) {
            file.write_all_at(&[whole[at] ^ 2], at as u64).unwrap();
        }
    }
    move || {
        for (path, whole) in files.iter().zip(&whole) {
            File::options().write(true).open(path).unwrap().write_all_at(whole, 0).unwrap();
        }
    }
}

#[test]
fn an_index_that_changes_under_a_reader_gives_an_error_or_the_right_hits() {
    let scratch = built();
    let mut asking = Asking::start(&scratch);
    let expected = QUERIES.map(|query| hits(&asking.ask(query)));
    assert_eq!(asking.end(), DONE);

    let mut asking = Asking::start(&scratch);
    assert_eq!(hits(&asking.ask(QUERIES[0])), expected[0]);
    let undo = flip(&scratch.path("store/index"));
    for query in &QUERIES[1..] {
        let said = asking.ask(query);
        assert!(said.starts_with("warning: ") && said.contains("index"), "{said}");
        assert!(
            said.contains("are not those written") && said.contains("hyperrag repair"),
            "{said}"
        );
    }
    undo();
    assert_eq!(hits(&asking.ask(QUERIES[1])), expected[1]);
    let stored = |path: &PathBuf| path.extension().is_some_and(|e| e == "store");
    let stored = all_files(&scratch.path("store/index")).into_iter().find(stored).unwrap();
    let whole = fs::read(&stored).unwrap();
    File::options().write(true).open(&stored).unwrap().set_len(0).unwrap();
    let said = asking.ask(QUERIES[2]);
    assert!(said.contains(".store: it is cut short"), "{said}");
    File::options().write(true).open(&stored).unwrap().write_all_at(&whole, 0).unwrap();
    assert_eq!(hits(&asking.ask(QUERIES[2])), expected[2]);
    assert_eq!(asking.end(), DEGRADED);
}

#[test]
fn a_replica_answers_where_the_index_changes_under_a_reader() {
    let scratch = built();
    scratch.ok("replicate --store store --to copy");
    let mut asking = Asking::start(&scratch);
    let expected = QUERIES.map(|query| hits(&asking.ask(query)));
    assert_eq!(asking.end(), DONE);

    let mut asking = Asking::start(&scratch);
    assert_eq!(hits(&asking.ask(QUERIES[0])), expected[0]);
    drop(flip(&scratch.path("store/index")));
    writeln!(asking.stdin, "{}", QUERIES[1]).unwrap();
    let mut said = [asking.next(), asking.next()];
    said.sort();
    let [warning, answer] = &said;
    assert!(warning.contains("read from the replica"), "{warning}");
    assert_eq!(hits(answer), (expected[1].0.clone(), 1));
    assert_eq!(hits(&asking.ask(QUERIES[2])), expected[2]);
    assert_eq!(asking.end(), DONE);
    // A second copy that is damaged leaves none.
    drop(flip(&scratch.path("copy/index")));
    scratch
        .ends(DAMAGED, &format!("query --store store TINY {}", QUERIES[3].replace(' ', "-")))
        .says(&["are not those written", "hyperrag repair"]);
}

/// The program of `command`, started by a shell after `script`.
fn after(script: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{script} && exec \"$@\""), "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    command.get_envs().for_each(|(name, value)| match value {
        Some(value) => drop(shell.env(name, value)),
        None => drop(shell.env_remove(name)),
    });
    shell.current_dir(command.get_current_dir().unwrap());
    shell
}

#[test]
fn index_files_follow_the_umask() {
    for (umask, mode) in [("022", 0o644), ("027", 0o640)] {
        let scratch = Scratch::new();
        scratch.write("ids", passages()[0]["_id"].as_str().unwrap());
        for line in [
            "build CORPUS --store store TINY --limit 20 --unit-rows 5",
            "delete --store store --ids ids",
            "compact --store store",
            "replicate --store store --to copy",
        ] {
            let script = format!("umask {umask}");
            let outcome = Outcome::of(after(&script, &scratch.command(line)).output().unwrap());
            assert_eq!(outcome.code, DONE, "{}", outcome.stderr);
        }
        let mut files = all_files(&scratch.path("store"));
        files.extend(all_files(&scratch.path("copy")));
        let in_index =
            |path: &&PathBuf| path.is_file() && path.to_string_lossy().contains("/index");
        let mut count = 0;
        for path in files.iter().filter(in_index) {
            let found = fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{}: {found:o}", path.display());
            count += 1;
        }
        assert!(count > 16);
    }
}

#[test]
fn an_index_of_another_user_is_no_damage() {
    let scratch = Scratch::new();
    scratch.ok("build CORPUS --store store TINY --limit 20 --unit-rows 5");
    // Root may read everything: nobody must be able to start the program.
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let (program, model) = (scratch.path("hyperrag"), scratch.path("tiny.gguf"));
    fs::copy(env!("CARGO_BIN_EXE_hyperrag"), &program).unwrap();
    fs::copy(testdata("tiny.gguf"), &model).unwrap();
    fs::set_permissions(scratch.path(""), Permissions::from_mode(0o755)).unwrap();
    let run = |line: &str| {
        let line = line.replace("TINY", &format!("--model {}", model.display()));
        let mut command = Command::new(&program);
        command.args(line.split_whitespace()).current_dir(scratch.path(""));
        command.env("HYPERRAG_HOME", scratch.path("home"));
        if is_root {
            command.uid(65_534).gid(65_534);
        }
        scratch.check(&line, command.output().unwrap())
    };
    let query = "query --store store TINY bees";
    assert_eq!(run(query).code, DONE);
    for name in ["meta.json", ".managed.json"] {
        let path = scratch.path("store/index").join(name);
        // As older versions made it.
        fs::set_permissions(&path, Permissions::from_mode(if is_root { 0o600 } else { 0 }))
            .unwrap();
        for line in [query, "verify --store store", "verify --store store --deep"] {
            let refused = run(line);
            assert_eq!(refused.code, FAILED, "{line}: {}{}", refused.stdout, refused.stderr);
            refused.says(&[name, "no right to it", "Permission denied"]);
            assert!(!refused.stderr.contains("repair"), "{}", refused.stderr);
        }
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    }
    assert_eq!(run("verify --store store --deep").code, DONE);
}

#[test]
fn few_descriptors_are_enough_for_many_segments() {
    let scratch = Scratch::new();
    let line = "build CORPUS --store store TINY --unit-rows 1 --limit 60";
    let built = after("ulimit -n 64", &scratch.command(line)).output().unwrap();
    assert_eq!(scratch.check(line, built).code, DONE);
    for line in ["query --store store TINY bees", "verify --store store"] {
        let outcome = after("ulimit -n 64", &scratch.command(line)).output().unwrap();
        assert_eq!(scratch.check(line, outcome).code, DONE);
    }
}

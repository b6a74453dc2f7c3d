//! An index that changes under an open reader.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use hyperrag_core::Document;
use hyperrag_retrieval::{Analyzer, IndexWriter, Location};
use hyperrag_store::Store;
use serde_json::Value;

use crate::seeded::Seeded;
use crate::support::{DAMAGED, DEGRADED, DONE, Scratch, all_files};

const ASK: &str = "query - --store store TINY --json -k 20";
const QUERIES: [&str; 4] =
    ["bees in the cold months", "flat and heavy bread", "time and water", "the account"];

/// Builds a store whose index has texts too long to be kept in memory.
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

/// A user who types queries.
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

    /// Returns the next output: an answer in JSON, or a warning.
    fn next(&self) -> String {
        self.said.recv().expect("the program lives")
    }

    fn ask(&mut self, query: &str) -> String {
        writeln!(self.stdin, "{query}").unwrap();
        self.next()
    }

    /// Asks a query that fails, which gives a warning and a record. Returns the warning.
    fn fails(&mut self, query: &str) -> String {
        let mut said = [self.ask(query), self.next()];
        said.sort_by_key(|said| said.starts_with('{'));
        let [warning, record] = said;
        let record: Value = serde_json::from_str(&record).expect(&record);
        assert!(record["error"].as_str().is_some_and(|error| warning.contains(error)), "{record}");
        warning
    }

    fn end(mut self) -> i32 {
        drop(self.stdin);
        self.program.wait().unwrap().code().expect("the program ended by itself")
    }
}

/// Returns documents with their scores, and the failovers of an answer.
fn hits(answer: &str) -> (Value, u64) {
    let answer: Value = serde_json::from_str(answer).expect(answer);
    (answer["hits"].clone(), answer["stats"]["failovers"].as_u64().unwrap())
}

/// Changes a bit in each 4 KiB of stored texts and postings. Returns a function that undoes it.
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
        let said = asking.fails(query);
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
    let said = asking.fails(QUERIES[2]);
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
    // A damaged second copy leaves none.
    drop(flip(&scratch.path("copy/index")));
    scratch
        .ends(DAMAGED, &format!("query --store store TINY {}", QUERIES[3].replace(' ', "-")))
        .says(&["are not those written", "hyperrag repair"]);
}

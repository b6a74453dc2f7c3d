//! An index whose files change while a reader has it open.
//!
//! The reader is a process of its own, this program again, so that one that dies is counted.

use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hyperrag_core::{DocId, Document, ShardId, Slot};
use hyperrag_retrieval::{Analyzer, Hit, Index, IndexWriter, Location, RetrievalError};
use tempfile::TempDir;

use crate::Tally;
use crate::seeded::Seeded;
use crate::world::with_documents;

/// Variable that makes this program a reader of the index that it names.
const READER: &str = "TORTURE_INDEX";

/// Number of documents from which postings and stored texts are too large to be kept in memory.
const DOCUMENTS: u64 = 40_000;

const WORDS: usize = 40;
const PAGE: usize = 4096;
const QUERIES: u64 = 24;

/// Ways to change a file.
const FAULTS: [fn(&File, &[u8], &mut Seeded); 5] = [
    |file, whole, random| {
        let at = random.below(whole.len());
        file.write_all_at(&[whole[at] ^ 1 << random.below(8)], at as u64).unwrap();
    },
    |file, whole, random| {
        let at = random.below(whole.len());
        let bytes: Vec<u8> =
            (at..whole.len().min(at + PAGE)).map(|_| random.next() as u8).collect();
        file.write_all_at(&bytes, at as u64).unwrap();
    },
    |file, whole, random| {
        let at = random.below(whole.len()) / PAGE * PAGE;
        file.write_all_at(&vec![0; PAGE.min(whole.len() - at)], at as u64).unwrap();
    },
    |file, whole, random| file.set_len(random.below(whole.len()) as u64).unwrap(),
    |file, _, _| file.set_len(0).unwrap(),
];

/// Makes this process a reader if it was started as one.
pub(crate) fn read_if_asked() -> bool {
    let Some(dir) = env::var_os(READER) else { return false };
    read(Path::new(&dir));
    true
}

fn text(row: u64, words: usize) -> String {
    let mut random = Seeded(row ^ 0x7e87);
    (0..words).map(|_| format!("w{}", random.below(3000))).collect::<Vec<_>>().join(" ")
}

/// Builds the index if there is none, opens it, says so, and searches once it is told to.
#[expect(clippy::print_stdout, reason = "it is read by the process that started this one")]
fn read(dir: &Path) {
    if !dir.exists() {
        let mut writer = IndexWriter::open(dir, Analyzer::NONE).unwrap();
        for row in 0..DOCUMENTS {
            let id = DocId::new(&format!("d{row}")).unwrap();
            let document = Document { id, title: String::new(), text: text(row, WORDS) };
            let location = Location { shard: ShardId(0), first_slot: Slot(0), chunks: 1 };
            writer.add(row, &document, location).unwrap();
        }
        writer.finish(1).unwrap();
    }
    let index = Index::open(dir).unwrap();
    println!("open");
    io::stdin().lines().next();
    let read = |hits| with_documents(&index, hits);
    let say = |found: Result<Vec<Hit>, RetrievalError>| match found.and_then(read) {
        Ok(found) => println!("{found:?}"),
        Err(error) => println!("error: {error}"),
    };
    (0..QUERIES).for_each(|query| say(index.search(&text(query, 5), 10, |_| true)));
    say(index.sample(10, |_| true));
    let id = DocId::new("d7777").unwrap();
    say(index.get(&id, |_| true).map(Vec::from_iter));
}

/// Returns a reader's answers; `change` runs after it has opened the index. Returns `None` if the
/// reader died.
fn answers(dir: &Path, change: impl FnOnce()) -> Option<Vec<String>> {
    let mut reader = Command::new(env::current_exe().unwrap())
        .env(READER, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(reader.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("open"));
    change();
    // A reader that died is noticed by its output.
    let _ = reader.stdin.take().unwrap().write_all(b"ask\n");
    let answers: Vec<_> = lines.collect();
    let lived = reader.wait().unwrap().success();
    (lived && answers.len() as u64 == QUERIES + 2).then_some(answers)
}

/// Changes a file under an open reader. The reader must give the same hits and scores as before, or an
/// error that names the file.
pub(crate) fn changed_under_readers(seed: u64, trials: u64) -> Tally {
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("index");
    let expected = answers(&dir, || {}).unwrap();
    let mut files: Vec<PathBuf> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| fs::metadata(path).unwrap().len() > 0);
    files.sort();
    let is_read_again =
        |path: &&PathBuf| path.extension().is_some_and(|e| e == "idx" || e == "store");
    let read_again: Vec<PathBuf> = files.iter().filter(is_read_again).cloned().collect();
    let mut random = Seeded(seed ^ 0x1d3);
    let mut tally = Tally { trials, ..Tally::default() };
    for trial in 0..trials {
        // Most faults go to files that are read during a search.
        let among = if trial % 4 == 0 { &files } else { &read_again };
        let path = &among[random.below(among.len())];
        let name = path.file_name().unwrap().to_string_lossy();
        let whole = fs::read(path).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        let fault = random.below(FAULTS.len());
        let found = answers(&dir, || FAULTS[fault](&file, &whole, &mut random));
        file.write_all_at(&whole, 0).unwrap();
        let is_refused = |answer: &String| answer.starts_with("error: ");
        let is_right = |(answer, expected): (&String, &String)| match is_refused(answer) {
            true => answer.contains(&*name),
            false => answer == expected,
        };
        match found {
            Some(found) if !found.iter().zip(&expected).all(is_right) => tally.wrong += 1,
            Some(found) if found.iter().any(is_refused) => tally.detected += 1,
            Some(_) => tally.harmless += 1,
            None => tally.lost += 1,
        }
        if tally.wrong + tally.lost > tally.misses.len() as u64 {
            tally.misses.push(format!("Index, trial {trial}: fault {fault} in {name}."));
        }
    }
    tally
}

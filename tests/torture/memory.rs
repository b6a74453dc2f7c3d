//! Inputs that ask for more memory than a build may take: it refuses them, or manages with less.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;

use crate::Tally;
use crate::seeded::Seeded;
use crate::started::after;
use crate::store::testdata;

/// Address space of the program, in KiB: a program that takes more dies, not the machine.
const SPACE_KIB: u64 = 6 << 20;
/// Time after which a build counts as hanging.
const PATIENCE: Duration = Duration::from_secs(300);
/// Largest size of the tiny model's weights and of the program's own code, in bytes.
const PROGRAM_BYTES: u64 = 96 << 20;

const MIB: usize = 1 << 20;

/// Builds from hostile inputs, each in a process of its own whose memory is watched.
pub(crate) fn hostile(seed: u64, trials: u64) -> (Tally, String) {
    let mut random = Seeded(seed ^ 0x3e3e);
    let (mut tally, mut most) = (Tally { trials, ..Tally::default() }, 0);
    for trial in 0..trials {
        let folder = TempDir::new().unwrap();
        let kind = trial as usize % KINDS.len();
        let (name, write) = KINDS[kind];
        // From the second round on, every other build has a quarter of the memory.
        let memory = if trial as usize / KINDS.len() % 2 == 1 { 256_u64 } else { 1024 };
        let input = write(folder.path(), &mut random);
        let end = build(&folder, &input, memory);
        most = most.max(end.peak * 100 / (memory << 20));
        match end.verdict(memory << 20) {
            Ok(true) => tally.harmless += 1,
            Ok(false) => tally.detected += 1,
            Err(what) => {
                tally.wrong += 1;
                tally.misses.push(format!("{name}, trial {trial} with {memory} MiB: {what}"));
            }
        }
    }
    (tally, format!("Hostile inputs took at most {most} % of the memory that a build may take."))
}

/// End of a build.
struct End {
    code: Option<i32>,
    stderr: String,
    peak: u64,
    took: Duration,
}

impl End {
    /// Whether the input was accepted. If not, it was refused with a sentence. Fails for any other end.
    fn verdict(&self, memory: u64) -> Result<bool, String> {
        let Self { code, stderr, peak, took } = self;
        if *took > PATIENCE {
            return Err(format!("it hangs: {stderr}"));
        }
        if *peak > memory + PROGRAM_BYTES {
            return Err(format!("it took {} MiB", peak >> 20));
        }
        let sentence = stderr.lines().last().is_some_and(|line| line.starts_with("error: "));
        match code {
            Some(0) => Ok(true),
            Some(1) if sentence && !stderr.contains("panicked") => Ok(false),
            _ => Err(format!("it ended with {code:?}: {stderr}")),
        }
    }
}

fn build(folder: &TempDir, input: &str, memory: u64) -> End {
    let mut program = Command::new(env!("CARGO_BIN_EXE_hyperrag"));
    program.args(["build", input, "--store", "store"]).current_dir(folder.path());
    program.args(["--model", &testdata("tiny.gguf"), "--device", "cpu", "--threads", "2"]);
    program.args(["--limit", "12", "--dry-run", "--memory", &format!("{memory}M")]);
    let mut command = after(&format!("ulimit -v {SPACE_KIB}"), &program);
    command.stdout(Stdio::null());
    command.stderr(File::create(folder.path().join("stderr")).unwrap());
    let start = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut peak = 0;
    let code = loop {
        peak = peak.max(peak_of(&child).unwrap_or_default());
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
        }
        thread::sleep(Duration::from_millis(5));
    };
    let stderr = fs::read_to_string(folder.path().join("stderr")).unwrap();
    End { code, stderr, peak, took: start.elapsed() }
}

/// Returns the peak memory of a process, in bytes.
fn peak_of(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Writes an input to the folder and returns its name.
type Hostile = fn(&Path, &mut Seeded) -> String;

const KINDS: [(&str, Hostile); 10] = [
    ("one long string in all rows of a Parquet file", |folder, random| {
        let text = letters(MIB * (1 + random.below(8)), random);
        parquet(folder, vec![""; 200], vec![text.as_str(); 200])
    }),
    ("a long title that compresses well", |folder, random| {
        let title = "word ".repeat(MIB * (1 + random.below(13)) / 5);
        parquet(folder, vec![&title], vec!["text"])
    }),
    ("titles of a megabyte", |folder, random| {
        let row = |row: usize| {
            format!(r#"{{"_id":{row},"title":"{}","text":"a"}}"#, letters(MIB, random))
        };
        lines(folder, "c.jsonl", &(0..12).map(row).collect::<Vec<_>>())
    }),
    ("a long line of letters", |folder, random| {
        let text = letters(MIB * (1 + random.below(11)), random);
        lines(folder, "c.jsonl", &[format!(r#"{{"_id":1,"text":"{text}"}}"#)])
    }),
    ("a line without an end", |folder, random| {
        let file = File::create(folder.join("c.jsonl")).unwrap();
        file.set_len((1 + random.below(64)) as u64 * (1 << 30)).unwrap();
        "c.jsonl".to_owned()
    }),
    ("a line of tabs", |folder, random| {
        let tabs = "\t".repeat(MIB * (1 + random.below(14)));
        lines(folder, "c.tsv", &[tabs])
    }),
    ("an object of short keys", |folder, random| {
        let keys = (0..(1 + random.below(12)) * 100_000).map(|key| format!(r#""{key}":0,"#));
        lines(
            folder,
            "c.jsonl",
            &[format!(r#"{{{}"_id":1,"text":"a"}}"#, keys.collect::<String>())],
        )
    }),
    ("a line of escapes", |folder, random| {
        let text = r"\u00e9".repeat(MIB * (1 + random.below(10)) / 6);
        lines(folder, "c.jsonl", &[format!(r#"{{"_id":1,"text":"{text}"}}"#)])
    }),
    ("metadata that claim most of a file", |folder, random| {
        let length = (64 + random.below(900)) as u32 * MIB as u32;
        let mut file = File::create(folder.join("c.parquet")).unwrap();
        file.write_all(b"PAR1").unwrap();
        file.set_len(u64::from(length) + 4).unwrap();
        let mut file = File::options().append(true).open(folder.join("c.parquet")).unwrap();
        file.write_all(&[&length.to_le_bytes()[..], b"PAR1"].concat()).unwrap();
        "c.parquet".to_owned()
    }),
    ("a page that is larger than the memory", |folder, random| {
        let text = "word ".repeat(MIB * (40 + random.below(40)) / 5);
        parquet(folder, vec![""; 4], vec![&text; 4])
    }),
];

/// Returns letters that form no words.
fn letters(count: usize, random: &mut Seeded) -> String {
    (0..count).map(|_| char::from(b'a' + random.below(26) as u8)).collect()
}

fn lines(folder: &Path, name: &str, lines: &[String]) -> String {
    fs::write(folder.join(name), lines.join("\n")).unwrap();
    name.to_owned()
}

fn parquet(folder: &Path, titles: Vec<&str>, texts: Vec<&str>) -> String {
    let ids: Vec<String> = (0..texts.len()).map(|id| id.to_string()).collect();
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(StringArray::from(ids))),
        ("title", Arc::new(StringArray::from(titles))),
        ("text", Arc::new(StringArray::from(texts))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_page_size_limit(64 * MIB)
        .build();
    let file = File::create(folder.join("c.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    "c.parquet".to_owned()
}

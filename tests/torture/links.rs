//! Links, pipes, devices, folders and sockets in the place of a store's files.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use crate::Tally;
use crate::chains::{APPEND, COMPACT, DELETE, prepare};
use crate::seeded::Seeded;
use crate::sites::REPLICATE;
use crate::world::{QUERY, Tree, World, hits_of, write_tree};

/// Number of trials of a kind, if not all are run.
const SAMPLED: usize = 12;
const OTHER: &[u8] = b"another's";

const KINDS: [&str; 7] =
    ["link", "dangling link", "hard link", "pipe", "device without end", "folder", "socket"];

/// Names of a store's files and folders, also of those that exist only during a change.
const NAMES: [&str; 19] = [
    "manifest.json",
    "manifest.json.tmp",
    "generation",
    "generation.tmp",
    "lock",
    "replicas.json",
    "replicas.json.tmp",
    "retired-1.json",
    "journal-000003.log",
    "journal-000003.log.tmp",
    "shards",
    "shards/000000.kv",
    "shards/000000.kv.tmp",
    "shards/000003.kv.tmp",
    "chunks",
    "chunks/000000.parquet",
    "chunks/000000.parquet.tmp",
    "chunks/000003.parquet.tmp",
    "index",
];

/// Puts each kind in the place of each name, of the store and of a replica, and runs each command.
pub(crate) fn run(world: &World, seed: u64, full: bool) -> Vec<(String, Tally)> {
    let before = prepare(world);
    write_tree(&world.disk(), &before);
    let right = hits_of(&String::from_utf8_lossy(&world.run(&QUERY).stdout));
    assert!(world.run(&REPLICATE).status.success());
    let before = crate::world::read_tree(&world.disk());
    let verify = ["verify", "--store", "STORE", "--deep"];
    let repair = ["repair", "--store", "STORE", "--model", "MODEL", "--device", "cpu"];
    let lines: [&[&str]; 8] = [
        &QUERY,
        &["info", "--store", "STORE"],
        &verify,
        &repair,
        &DELETE,
        &COMPACT,
        &APPEND,
        &REPLICATE,
    ];
    let mut rows = Vec::new();
    for (number, kind) in KINDS.into_iter().enumerate() {
        let mut random = Seeded(seed ^ 0x11c0 ^ number as u64);
        let mut tally = Tally::default();
        let all = ["store", "replica"].iter().flat_map(|root| {
            let places = NAMES.iter().map(move |name| Path::new(root).join(name));
            places.flat_map(|place| lines.iter().map(move |line| (place.clone(), *line)))
        });
        let all: Vec<_> = all.collect();
        for trial in 0..if full { all.len() } else { SAMPLED } {
            let (place, line) = &all[if full { trial } else { random.below(all.len()) }];
            tally.trials += 1;
            match try_one(world, &before, place, kind, line, &right) {
                Ok(true) => tally.harmless += 1,
                Ok(false) => tally.detected += 1,
                Err(why) => {
                    tally.wrong += 1;
                    let (place, line) = (place.display(), line[0]);
                    tally.misses.push(format!("a {kind} at {place}, {line}: {why}"));
                }
            }
        }
        rows.push((format!("a {kind} in the place of a file"), tally));
    }
    rows
}

/// Whether the command did its work beside something that it must not follow or wait for. Fails if it
/// did harm.
fn try_one(
    world: &World,
    before: &Tree,
    place: &Path,
    kind: &str,
    line: &[&str],
    right: &str,
) -> Result<bool, String> {
    write_tree(&world.disk(), before);
    let other = world.disk().join("other");
    fs::write(&other, OTHER).unwrap();
    let path = world.disk().join(place);
    let kept = path.with_file_name("kept");
    // The folder itself is elsewhere then, as with a link that a user makes.
    let moved = path.is_dir();
    match moved {
        true => fs::rename(&path, &kept).unwrap(),
        false => drop(fs::remove_file(&path)),
    }
    let none = world.disk().join("none");
    let _socket = match kind {
        "link" => symlink(if moved { &kept } else { &other }, &path).map(|()| None),
        "dangling link" => symlink(&none, &path).map(|()| None),
        "hard link" if moved => return Ok(true),
        "hard link" => fs::hard_link(&other, &path).map(|()| None),
        "device without end" => symlink("/dev/zero", &path).map(|()| None),
        "folder" => fs::create_dir(&path).map(|()| None),
        "socket" => UnixListener::bind(&path).map(Some),
        _ => Command::new("mkfifo").arg(&path).status().map(|_| None),
    }
    .unwrap();
    let output = world.run_limited(line);
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !matches!(output.status.code(), Some(0 | 1 | 3 | 4)) || stderr.contains("panicked") {
        return Err(format!("{}: {stderr}", output.status));
    }
    if fs::read(&other).unwrap() != OTHER || none.exists() {
        return Err("what the link leads to was written".to_owned());
    }
    let answered = line == QUERY && matches!(output.status.code(), Some(0 | 3));
    if answered && hits_of(&stdout) != right {
        return Err(format!("answers {stdout}"));
    }
    Ok(output.status.success())
}

//! Every call that a command makes to the disk, failed one by one.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Output;

use crate::Tally;
use crate::disk::{BROKEN, Call, FULL, ReadError};
use crate::seeded::Seeded;
use crate::world::{
    BUILD, QUERY, Tree, UNITS, World, hits_of, is_temporary, read_tree, write_tree,
};

/// Faults and their names in the table.
const FAULTS: [(&str, ReadError); 9] = [
    ("ENOSPC at one write", ReadError { kinds: "cws", action: FULL, stays: false }),
    ("ENOSPC from one write on", ReadError { kinds: "cws", action: FULL, stays: true }),
    ("EIO at one write", ReadError { kinds: "cuw", action: BROKEN, stays: false }),
    ("a failing fsync", ReadError { kinds: "s", action: BROKEN, stays: false }),
    ("a short write", ReadError { kinds: "w", action: "short", stays: false }),
    ("EIO at one read", ReadError { kinds: "rot", action: BROKEN, stays: false }),
    ("EIO from one read on", ReadError { kinds: "rot", action: BROKEN, stays: true }),
    ("a short read", ReadError { kinds: "r", action: "short", stays: false }),
    (KILL, ReadError { kinds: "cuws", action: "kill", stays: false }),
];
const KILL: &str = "SIGKILL at one write, then resume";

/// A command, and the files from which it starts.
pub(crate) struct Job {
    pub(crate) name: &'static str,
    pub(crate) line: Vec<&'static str>,
    pub(crate) before: Tree,
}

impl Job {
    /// Number of units that are sealed before the command.
    pub(crate) fn units_before(&self) -> usize {
        self.before.keys().filter(|name| is_shard(name)).count().saturating_sub(1)
    }
}

/// Runs every command with every fault at every call, or at a sample of `calls_max` calls. Returns a
/// row of the table for each fault, and the numbers of calls.
pub(crate) fn run(
    world: &World,
    jobs: &[Job],
    seed: u64,
    calls_max: usize,
) -> Vec<(&'static str, Tally)> {
    let mut rows = Vec::new();
    for (number, (name, fault)) in FAULTS.into_iter().enumerate() {
        let mut random = Seeded(seed ^ 0x517e_5000 ^ number as u64);
        let mut tally = Tally::default();
        for job in jobs {
            try_calls(world, job, (name, fault), calls_max, &mut random, &mut tally);
        }
        rows.push((name, tally));
    }
    rows
}

fn try_calls(
    world: &World,
    job: &Job,
    (name, fault): (&str, ReadError),
    calls_max: usize,
    random: &mut Seeded,
    tally: &mut Tally,
) {
    write_tree(&world.disk(), &job.before);
    let (_, calls) = world.run_faulty(&job.line, Some((fault, usize::MAX)));
    let count = calls.iter().filter(|call| fault.kinds.contains(call.kind)).count();
    // Threads do not always make the same calls: all are tried until none is left.
    let all = calls_max >= count;
    let mut tried = 0;
    while all || tried < calls_max {
        tried += 1;
        let nth = if all { tried } else { 1 + random.below(count) };
        write_tree(&world.disk(), &job.before);
        let (output, calls) = world.run_faulty(&job.line, Some((fault, nth)));
        let Some(at) = calls.iter().find(|call| call.faulty) else {
            if all { break } else { continue }
        };
        tally.trials += 1;
        let place = format!(
            "{} {}",
            at.name,
            at.path.strip_prefix(world.disk()).unwrap_or(&at.path).display()
        );
        let judged =
            ended_well(&output, fault).and_then(|()| judge(world, job, &output, fault, at));
        match judged.and_then(|()| world.answers_or_refuses()).and_then(|()| again(world, job)) {
            Ok(()) if output.status.success() => tally.harmless += 1,
            Ok(()) => tally.detected += 1,
            Err(why) => {
                tally.wrong += 1;
                tally.misses.push(format!("{}: {name}, call {nth}, {place}: {why}", job.name));
            }
        }
    }
}

/// Checks that the program ended by itself with one sentence about the cause, or was killed as planned.
fn ended_well(output: &Output, fault: ReadError) -> Result<(), String> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    if fault.action == "kill" {
        return match output.status.signal() {
            Some(9) => Ok(()),
            _ => Err(format!("not killed: {output:?}")),
        };
    }
    let code = output.status.code().ok_or_else(|| format!("ended by a signal: {stderr}"))?;
    if !matches!(code, 0 | 1 | 3 | 4) || stderr.contains("panicked") {
        return Err(format!("ended with {code}: {stderr}"));
    }
    let errors = stderr.lines().filter(|line| line.starts_with("error: ")).count();
    if matches!(code, 1 | 4) && errors != 1 {
        return Err(format!("ended with {code}, and says: {stderr:?}"));
    }
    if code == 1 && fault.action == FULL && !stderr.contains("disk is full") {
        return Err(format!("does not say that the disk is full: {stderr}"));
    }
    Ok(())
}

/// Checks that the command did its work, or left everything as it was before.
fn judge(
    world: &World,
    job: &Job,
    output: &Output,
    fault: ReadError,
    at: &Call,
) -> Result<(), String> {
    let done = output.status.success();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let now = read_tree(&world.disk());
    match job.line[0] {
        "query" => {
            let answered = matches!(output.status.code(), Some(0 | 3));
            if answered && hits_of(&stdout) != world.answer || !answered && !stdout.is_empty() {
                return Err(format!("answers {stdout}"));
            }
            same_but_locks(&job.before, &now)
        }
        "verify" => {
            // Sizes and lists of names are only hints there; the bytes decide.
            let hint = matches!(&*at.name, "stat" | "list") || at.path.is_dir();
            if done && fault.action == BROKEN && !hint {
                return Err("says that all is well".to_owned());
            }
            same_but_locks(&job.before, &now)
        }
        _ => nothing_partial(&job.before, &now, fault).and_then(|()| is_right(world, job, done)),
    }
}

/// Checks that the state is the one before a command that writes, the one after it, or between both. If
/// `done`, it must be the one after.
pub(crate) fn is_right(world: &World, job: &Job, done: bool) -> Result<(), String> {
    let (store, replica) = (world.store(), world.replica());
    match job.line[0] {
        "build" => {
            let (before, units) = (job.units_before(), world.is_readable(&store)?);
            if units < before {
                return Err(format!("{units} units are left of {before}"));
            }
        }
        "repair" => {
            let now = read_tree(&world.disk());
            for (name, bytes) in &world.contents {
                let found = now.get(&Path::new("store").join(name));
                if found != Some(bytes) && found != job.before.get(&Path::new("store").join(name)) {
                    return Err(format!("{} is neither as before nor mended", name.display()));
                }
            }
        }
        _ => {
            world.is_whole(&store)?;
            // Without its manifest it is no store yet.
            if replica.join("manifest.json").exists() {
                world.is_readable(&replica)?;
            }
        }
    }
    match done {
        true if job.line[0] == "replicate" => world.is_whole(&replica),
        true => world.is_whole(&store),
        false => Ok(()),
    }
}

fn is_shard(name: &Path) -> bool {
    name.starts_with("store/shards") && name.extension().is_some_and(|e| e == "kv")
}

fn same_but_locks(before: &Tree, now: &Tree) -> Result<(), String> {
    let kept = |tree: &Tree| -> BTreeMap<_, _> {
        let no_lock = |name: &Path| !name.to_string_lossy().ends_with("lock");
        tree.clone().into_iter().filter(|(name, _)| no_lock(name)).collect()
    };
    match kept(before) == kept(now) {
        true => Ok(()),
        false => Err("it changed files".to_owned()),
    }
}

/// Checks that a program that ended by itself removed its temporary files, if the disk let it.
fn nothing_partial(before: &Tree, now: &Tree, fault: ReadError) -> Result<(), String> {
    if fault.action == "kill" || fault.kinds.contains('u') {
        return Ok(());
    }
    let partial = now.keys().find(|name| is_temporary(name) && !before.contains_key(*name));
    partial.map_or(Ok(()), |name| Err(format!("{} is left", name.display())))
}

/// Runs the command again, undisturbed: it completes the work.
pub(crate) fn again(world: &World, job: &Job) -> Result<(), String> {
    let build = job.line[0] == "build";
    let mut line = job.line.clone();
    if build {
        line.push("--json")
    }
    let units = world.is_readable(&world.store());
    let published = read_tree(&world.disk()).keys().filter(|name| is_shard(name)).count();
    let output = world.run(&line);
    if !output.status.success() {
        return Err(format!("run again: {}", String::from_utf8_lossy(&output.stderr)));
    }
    match job.line[0] {
        "query" | "verify" => Ok(()),
        "build" => {
            let stdout = String::from_utf8_lossy(&output.stdout);
            let units = units?;
            if !stdout.contains(&format!("\"shards_before\":{units},"))
                || published > (units + 1).min(UNITS)
            {
                return Err(format!("{units} units of {published} were kept: {stdout}"));
            }
            nothing_is_left(world)?;
            world.is_whole(&world.store())
        }
        "repair" => world.is_whole(&world.store()),
        _ => world.is_whole(&world.store()).and_then(|()| world.is_whole(&world.replica())),
    }
}

/// Checks that a finished build keeps no file of earlier tries and no journal.
fn nothing_is_left(world: &World) -> Result<(), String> {
    let tree = read_tree(&world.store());
    let left = tree.keys().find(|name| {
        is_temporary(name) && !name.starts_with("index")
            || name.to_str().is_some_and(|n| n.starts_with("journal-") || n.starts_with("retired-"))
    });
    left.map_or(Ok(()), |name| Err(format!("{} stays", name.display())))
}

/// Lists the commands, each with a store on which it has work.
pub(crate) fn jobs(world: &World) -> Vec<Job> {
    let (whole, replicated) = {
        let whole = read_tree(&world.disk());
        assert!(world.run(&REPLICATE).status.success());
        (whole, read_tree(&world.disk()))
    };
    write_tree(&world.disk(), &Tree::new());
    let begun = |calls: usize| {
        let (name, fault) = FAULTS[FAULTS.len() - 1];
        assert_eq!(name, KILL);
        write_tree(&world.disk(), &Tree::new());
        world.run_faulty(&BUILD, Some((fault, calls)));
        read_tree(&world.disk())
    };
    let damaged = |tree: &Tree, names: &[&str]| {
        let mut tree = tree.clone();
        for name in names {
            let bytes = tree.get_mut(Path::new(*name)).unwrap().as_mut().unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        tree
    };
    let job = |name, line: &[&'static str], before: &Tree| Job {
        name,
        line: line.to_vec(),
        before: before.clone(),
    };
    let verify = ["verify", "--store", "STORE", "--threads", "1"];
    let deep = [&verify[..], &["--deep"]].concat();
    let repair =
        ["repair", "--store", "STORE", "--model", "MODEL", "--device", "cpu", "--threads", "1"];
    let own = ["store/shards/000000.kv", "store/shards/000002.kv", "store/manifest.json"];
    let own = without_index(&damaged(&whole, &own));
    let copied = damaged(&replicated, &["store/shards/000001.kv", "store/chunks/000001.parquet"]);
    let manifest = damaged(&replicated, &["store/manifest.json"]);
    let mut behind = replicated.clone();
    behind.remove(Path::new("replica/manifest.json"));
    behind.remove(Path::new("replica/shards/000002.kv"));
    vec![
        job("build", &BUILD, &Tree::new()),
        job("build, begun", &BUILD, &begun(150)),
        job("query", &QUERY, &whole),
        job("query, damaged here", &QUERY, &damaged(&replicated, &["store/shards/000000.kv"])),
        job("verify", &verify, &whole),
        job("verify, deep", &deep, &whole),
        job("repair", &repair, &own),
        job("repair from a replica", &repair, &copied),
        job("repair of the manifest", &repair, &manifest),
        job("replicate", &REPLICATE, &whole),
        job("replicate, begun", &REPLICATE, &behind),
    ]
}

pub(crate) const REPLICATE: [&str; 5] = ["replicate", "--store", "STORE", "--to", "REPLICA"];

fn without_index(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    tree.retain(|name, _| !name.starts_with("store/index"));
    tree
}

//! Faults across commands. One command is killed at a call to the disk, the next one runs, and then the
//! power is lost. The second may have seen data that the first had not synced, and a loss of power
//! takes them away.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Output;

use hyperrag_store::Store;
use serde_json::{Value, json};

use crate::Tally;
use crate::disk::{Call, ReadError};
use crate::power::{lose, moment};
use crate::seeded::Seeded;
use crate::sites::REPLICATE;
use crate::world::{QUERY, Tree, World, read_tree, undamaged, write_tree};

const KILLED: ReadError = ReadError { kinds: "cuws", action: "kill", stays: false };
/// Number of losses of power after each kill.
const LOSSES: usize = 40;
/// Number of losses of power after each kill, if only some kills are tried.
const LOSSES_SAMPLED: usize = 8;
/// Interval, in losses of power, at which a query and the second command run again.
const LOOKED_AT: usize = 8;

pub(crate) const COMPACT: [&str; 3] = ["compact", "--store", "STORE"];
pub(crate) const DELETE: [&str; 5] = ["delete", "--store", "STORE", "--ids", "ids"];
pub(crate) const APPEND: [&str; 4] = ["build", "more.jsonl", "--append", "SETTINGS"];

/// Ids and texts of the documents that a reader finds.
type Documents = BTreeSet<(String, String)>;
/// Ids and scores of an answer.
type Answer = BTreeMap<String, u32>;

/// Two commands, one after the other.
struct Chain<'w> {
    name: String,
    world: &'w World,
    before: &'w Tree,
    lines: [Vec<&'static str>; 2],
    /// Documents that a reader may find, with the answer of a query then.
    states: BTreeMap<Documents, Answer>,
    /// Documents that may be there after the second command.
    ends: Vec<Documents>,
}

/// Kills the first of two commands, at every call that writes or at a sample, and loses the power at
/// moments of the second. Returns a row for each pair.
pub(crate) fn run(world: &World, seed: u64, full: bool) -> Vec<(String, Tally)> {
    let before = prepare(world);
    let restart = [&APPEND[..], &["--restart"]].concat();
    let pairs: [(&str, &[&'static str], &str, &[&'static str]); 9] = [
        ("compact", &COMPACT, "append", &APPEND),
        ("compact", &COMPACT, "delete", &DELETE),
        ("compact", &COMPACT, "compact", &COMPACT),
        ("compact", &COMPACT, "replicate", &REPLICATE),
        ("append", &APPEND, "append", &APPEND),
        ("append", &APPEND, "append --restart", &restart),
        ("delete", &DELETE, "append", &APPEND),
        ("delete", &DELETE, "compact", &COMPACT),
        ("replicate", &REPLICATE, "replicate", &REPLICATE),
    ];
    let mut rows = Vec::new();
    for (number, (first, a, second, b)) in pairs.into_iter().enumerate() {
        let name = format!("{first} killed, {second}, power lost");
        let chain = Chain::new(name, world, &before, [a.to_vec(), b.to_vec()]);
        let mut random = Seeded(seed ^ 0xc4a1_0000 ^ number as u64);
        let tally = chain.kills(full, &mut random);
        rows.push((chain.name, tally));
    }
    rows
}

/// Makes a store with two deleted documents, and the files that the commands need.
pub(crate) fn prepare(world: &World) -> Tree {
    write_tree(&world.disk(), &Tree::new());
    assert!(world.run(&crate::world::BUILD).status.success());
    let documents: Vec<_> = world.documents().collect();
    let ids = |places: &[usize]| -> String {
        places.iter().map(|place| format!("{}\n", documents[*place].id)).collect()
    };
    world.write("ids", &ids(&[0, 3]));
    assert!(world.run(&DELETE).status.success());
    world.write("ids", &ids(&[1, 5]));
    let more = (0..5).map(|row| {
        let of = documents[row];
        // The last one replaces a document.
        let id = if row == 4 { of.id.to_string() } else { format!("more-{row}") };
        format!("{}\n", json!({"_id": id, "title": of.title, "text": format!("honey {}", of.text)}))
    });
    world.write("more.jsonl", &more.collect::<String>());
    read_tree(&world.disk())
}

impl<'w> Chain<'w> {
    fn new(
        name: String,
        world: &'w World,
        before: &'w Tree,
        lines: [Vec<&'static str>; 2],
    ) -> Self {
        let (mut states, mut ends) = (BTreeMap::new(), Vec::new());
        // Neither, the first, the second, or both.
        for done in [[false, false], [true, false], [false, true], [true, true]] {
            write_tree(&world.disk(), before);
            for (line, _) in lines.iter().zip(done).filter(|(_, done)| *done) {
                let output = world.run(line);
                assert!(output.status.success(), "{name}: {output:?}");
            }
            let documents = found(&world.store()).unwrap();
            let answer = answer(&world.run(&QUERY)).unwrap();
            assert!(!answer.is_empty(), "{name}: nothing is found");
            states.insert(documents.clone(), answer);
            ends.extend(done[1].then_some(documents));
        }
        Self { name, world, before, lines, states, ends }
    }

    /// Kills the first command.
    fn kills(&self, full: bool, random: &mut Seeded) -> Tally {
        let (world, before, mut tally) = (self.world, self.before, Tally::default());
        write_tree(&world.disk(), before);
        let (_, calls) = world.run_faulty(&self.lines[0], Some((KILLED, usize::MAX)));
        let calls: Vec<_> =
            calls.into_iter().filter(|call| KILLED.kinds.contains(call.kind)).collect();
        let is_published =
            |call: &Call| call.name == "rename" && call.other.ends_with("manifest.json");
        let kills = match calls.iter().position(is_published) {
            _ if full => (1..=calls.len()).collect(),
            // The call after it, counted from 1: there is a new manifest, and it is not synced.
            Some(published) => vec![published + 2, 1 + random.below(calls.len())],
            None => vec![1 + random.below(calls.len())],
        };
        for nth in kills {
            write_tree(&world.disk(), before);
            let (_, calls) = world.run_faulty(&self.lines[0], Some((KILLED, nth)));
            let at = calls.iter().find(|call| call.faulty).map(Call::place);
            let Some(at) = at else { continue };
            let (output, then) = world.run_faulty(&self.lines[1], None);
            // Between other calls, a loss of power leaves the same as after the previous write.
            let changes = |call: &Call| KILLED.kinds.contains(call.kind);
            let written =
                |call: &Call| changes(call) && (call.done || call.faulty && !call.data.is_empty());
            let mut calls: Vec<Call> = calls.into_iter().filter(written).collect();
            let first = calls.len();
            calls.extend(then.into_iter().filter(|call| changes(call) && call.done));
            let place = format!("{}: killed at call {nth}, {at}", self.name);
            if !output.status.success() {
                tally.trials += 1;
                tally.wrong += 1;
                tally.misses.push(format!("{place}: then {output:?}"));
                continue;
            }
            self.losses(&calls, first, &place, full, random, &mut tally);
        }
        tally
    }

    /// Loses the power in the second command, whose calls begin at `first`.
    fn losses(
        &self,
        calls: &[Call],
        first: usize,
        killed: &str,
        full: bool,
        random: &mut Seeded,
        tally: &mut Tally,
    ) {
        for _ in 0..if full { LOSSES } else { LOSSES_SAMPLED } {
            let at = first + moment(&calls[first..], random);
            let done = at == calls.len();
            lose(self.world, self.before, &calls[..at], random);
            tally.trials += 1;
            let close = done || random.below(LOOKED_AT) == 0;
            match self.judge(done, close) {
                Ok(()) if done => tally.harmless += 1,
                Ok(()) => tally.detected += 1,
                Err(why) => {
                    tally.lost += 1;
                    let last = calls[..at].last().map(Call::place).unwrap_or_default();
                    tally.misses.push(format!("{killed}; power lost after {at}, {last}: {why}"));
                }
            }
        }
    }

    /// Checks that the rest is one of the right states, gives right answers, and can be continued.
    fn judge(&self, done: bool, close: bool) -> Result<(), String> {
        let (world, store) = (self.world, self.world.store());
        undamaged(&store, false)?;
        let documents = found(&store)?;
        let expected = self.states.get(&documents).ok_or("other documents")?;
        if done && !self.ends.contains(&documents) {
            return Err("what was done is undone".to_owned());
        }
        if !close {
            return Ok(());
        }
        let output = world.run(&QUERY);
        match output.status.code() {
            Some(4) if output.stdout.is_empty() => {}
            _ if answer(&output)? == *expected => {}
            _ => return Err(format!("a query then gives {output:?}")),
        }
        let output = world.run(&self.lines[1]);
        if !output.status.success() {
            return Err(format!("run again: {}", String::from_utf8_lossy(&output.stderr)));
        }
        undamaged(&store, true)?;
        let documents = found(&store)?;
        let right = self.ends.contains(&documents)
            && answer(&world.run(&QUERY))? == self.states[&documents];
        if !right {
            return Err("run again, it makes another store".to_owned());
        }
        match self.lines[1][..] == REPLICATE {
            true if found(&world.replica())? != documents => Err("another replica".to_owned()),
            true => undamaged(&world.replica(), true),
            false => Ok(()),
        }
    }
}

fn found(root: &Path) -> Result<Documents, String> {
    let store = Store::open(root).map_err(|error| error.to_string())?;
    let live = store.manifest().live_rows();
    let mut documents = Documents::new();
    for record in &store.manifest().shards {
        let contents = store.chunks(record.shard).map_err(|error| error.to_string())?;
        let counting = contents.documents.into_iter().filter(|indexed| live.contains(indexed.row));
        documents.extend(
            counting.map(|indexed| (indexed.document.id.to_string(), indexed.document.text)),
        );
    }
    Ok(documents)
}

fn answer(output: &Output) -> Result<Answer, String> {
    let wrong = || format!("no answer: {output:?}");
    let value: Value = serde_json::from_slice(&output.stdout).map_err(|_| wrong())?;
    let hit = |hit: &Value| {
        let score = hit["model_score"].as_f64()? as f32;
        Some((hit["id"].as_str()?.to_owned(), score.to_bits()))
    };
    value["hits"].as_array().and_then(|hits| hits.iter().map(hit).collect()).ok_or_else(wrong)
}

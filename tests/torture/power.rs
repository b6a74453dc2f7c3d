//! Losses of power: the writes of a command are replayed up to some moment, and a part of those not
//! synced by then is lost.
//!
//! The promise of fsync is kept: data of a file written before a finished fsync of the file, and names
//! made, changed or removed in a folder before a finished fsync of the folder. Each later write is
//! kept, dropped, or kept in some of its sectors, in any order. A file is as long as the kept writes
//! reach, with zeros in the gaps. Of later changes of names in a folder the first few are kept, as the
//! journals of ext4 and xfs do. Folders are independent of each other and of the files' data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::Tally;
use crate::disk::Call;
use crate::seeded::Seeded;
use crate::sites::{Job, again, is_right};
use crate::world::{Tree, World, write_tree};

/// Number of bytes that a disk writes whole or not at all.
const SECTOR: usize = 512;
/// Number of losses of power for one run of a command; threads make each run a little different.
const LOSSES_PER_RUN: u64 = 20;

/// Loses power `trials` times, under each of `jobs` in turn.
pub(crate) fn losses(world: &World, jobs: &[Job], seed: u64, trials: u64) -> Tally {
    let mut random = Seeded(seed ^ 0x00ff_00ff);
    let mut tally = Tally::default();
    let writing = |job: &&Job| !matches!(job.line[0], "query" | "verify");
    for job in jobs.iter().filter(writing).cycle() {
        write_tree(&world.disk(), &job.before);
        let (output, calls) = world.run_faulty(&job.line, None);
        assert!(output.status.success(), "{}: {output:?}", job.name);
        let changes: Vec<Call> = calls.into_iter().filter(|call| call.done).collect();
        for _ in 0..LOSSES_PER_RUN {
            if tally.trials == trials {
                return tally;
            }
            tally.trials += 1;
            let moment = moment(&changes, &mut random);
            let (done, rest) = (moment == changes.len(), &changes[..moment]);
            lose(world, &job.before, rest, &mut random);
            let judged = is_right(world, job, done).and_then(|()| keeps_sealed(world, job, rest));
            let judged = judged.and_then(|()| world.answers_or_refuses());
            match judged.and_then(|()| again(world, job)) {
                Ok(()) if done => tally.harmless += 1,
                Ok(()) => tally.detected += 1,
                Err(why) => {
                    tally.wrong += 1;
                    let last = rest.last().map(Call::place).unwrap_or_default();
                    tally.misses.push(format!(
                        "{}: power lost after call {moment} of {}, {last}: {why}",
                        job.name,
                        changes.len()
                    ));
                }
            }
        }
    }
    tally
}

/// Chooses a moment of a command: any, its end, or just before a sync, when most is at stake. Syncs of
/// a journal, the only file that grows, are chosen often.
pub(crate) fn moment(calls: &[Call], random: &mut Seeded) -> usize {
    let syncs: Vec<usize> = (0..calls.len()).filter(|at| calls[*at].name == "sync").collect();
    let of_journal = |at: &usize| calls[*at].path.to_string_lossy().contains("/journal-");
    let of_journals: Vec<usize> = syncs.iter().copied().filter(of_journal).collect();
    match random.below(8) {
        0 => calls.len(),
        1..3 => random.below(calls.len()),
        3..5 if !of_journals.is_empty() => of_journals[random.below(of_journals.len())],
        _ => syncs[random.below(syncs.len())],
    }
}

/// Checks that everything is there that the journal called sealed before the loss of power.
fn keeps_sealed(world: &World, job: &Job, calls: &[Call]) -> Result<(), String> {
    if job.line[0] != "build" {
        return Ok(());
    }
    // A journal with an unfinished last line is rewritten under a temporary name: no line is added.
    let in_journal = |call: &&Call| {
        let name = call.path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("journal-") && name.ends_with(".log")
    };
    let is_line_end = |call: &Call| call.name == "write" && call.data.ends_with(b"\n");
    let calls = || calls.iter().filter(in_journal);
    let lines = calls().filter(|call| is_line_end(call)).count();
    let last = calls().rfind(|call| matches!(&*call.name, "write" | "sync"));
    let sealed = job.units_before() + lines - usize::from(last.is_some_and(is_line_end));
    let units = world.is_readable(&world.store())?;
    match units >= sealed {
        true => Ok(()),
        false => Err(format!("{units} units of {sealed} that were sealed are left")),
    }
}

/// A change of a file's data.
enum Change<'a> {
    Write(usize, &'a [u8]),
    Length(usize),
}

/// The changes of a file; those before `synced` are kept.
#[derive(Default)]
struct File<'a> {
    changes: Vec<Change<'a>>,
    synced: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Node {
    File(usize),
    Folder(usize),
}

/// Names that change together.
type Names = Vec<(PathBuf, Option<Node>)>;

/// The changes of a folder; those before `synced` are kept.
#[derive(Default)]
struct Folder {
    changes: Vec<Names>,
    synced: usize,
}

/// The state of a disk after its calls.
#[derive(Default)]
struct Replay<'a> {
    files: Vec<File<'a>>,
    folders: Vec<Folder>,
    live: BTreeMap<PathBuf, Node>,
}

/// Writes the rest of `before` and `calls` after a loss of power to the disk.
pub(crate) fn lose(world: &World, before: &Tree, calls: &[Call], random: &mut Seeded) {
    let disk = world.disk();
    write_tree(&disk, &after_loss(&disk, before, calls, random));
}

/// Returns the rest of `before` and `calls` below `root` after a loss of power.
fn after_loss(root: &Path, before: &Tree, calls: &[Call], random: &mut Seeded) -> Tree {
    let mut replay = Replay::default();
    replay.folders.push(Folder::default());
    replay.live.insert(root.to_owned(), Node::Folder(0));
    for (name, bytes) in before {
        let node = match bytes {
            Some(bytes) => replay.new_file(Some(bytes)),
            None => replay.new_folder(),
        };
        replay.name(&root.join(name), Some(node));
    }
    replay.folders.iter_mut().for_each(|folder| folder.synced = folder.changes.len());
    replay.files.iter_mut().for_each(|file| file.synced = file.changes.len());
    calls.iter().for_each(|call| replay.apply(call));
    let mut tree = Tree::new();
    replay.collect(0, Path::new(""), random, &mut tree);
    tree
}

impl<'a> Replay<'a> {
    fn new_file(&mut self, bytes: Option<&'a [u8]>) -> Node {
        let changes = bytes.map(|bytes| Change::Write(0, bytes)).into_iter().collect();
        self.files.push(File { changes, synced: 0 });
        Node::File(self.files.len() - 1)
    }

    fn new_folder(&mut self) -> Node {
        self.folders.push(Folder::default());
        Node::Folder(self.folders.len() - 1)
    }

    fn folder_of(&mut self, path: &Path) -> &mut Folder {
        let Some(Node::Folder(folder)) = self.live.get(path.parent().unwrap()) else {
            panic!("{}: no such folder was made", path.display());
        };
        &mut self.folders[*folder]
    }

    /// Gives a name to a node, or removes the name.
    fn name(&mut self, path: &Path, node: Option<Node>) {
        let name = PathBuf::from(path.file_name().unwrap());
        self.folder_of(path).changes.push(vec![(name, node)]);
        match node {
            Some(node) => self.live.insert(path.to_owned(), node),
            None => self.live.remove(path),
        };
    }

    fn apply(&mut self, call: &'a Call) {
        let file = |replay: &mut Self| match replay.live.get(&call.path) {
            Some(Node::File(file)) => Some(*file),
            _ => None, // It has no name any more.
        };
        match &*call.name {
            "create" => {
                let node = self.new_file(None);
                self.name(&call.path, Some(node));
            }
            "mkdir" => {
                let node = self.new_folder();
                self.name(&call.path, Some(node));
            }
            "unlink" => self.name(&call.path, None),
            "link" => {
                let node = self.live[&call.path];
                self.name(&call.other, Some(node));
            }
            "rename" => {
                let node = self.live[&call.path];
                assert_eq!(call.path.parent(), call.other.parent(), "renamed in its folder");
                self.name(&call.path, None);
                self.name(&call.other, Some(node));
                let changes = &mut self.folder_of(&call.path).changes;
                let (to, from) = (changes.pop().unwrap(), changes.pop().unwrap());
                changes.push([from, to].concat());
            }
            "exchange" => {
                let [a, b] = [&call.path, &call.other];
                assert_eq!(a.parent(), b.parent(), "exchanged in their folder");
                let name = |path: &Path| PathBuf::from(path.file_name().unwrap());
                let changes = vec![(name(a), Some(self.live[b])), (name(b), Some(self.live[a]))];
                self.folder_of(a).changes.push(changes);
                let exchanged = |path: PathBuf| match (path.strip_prefix(a), path.strip_prefix(b)) {
                    (Ok(below), _) => b.join(below),
                    (_, Ok(below)) => a.join(below),
                    _ => path,
                };
                let live = std::mem::take(&mut self.live);
                self.live = live.into_iter().map(|(path, node)| (exchanged(path), node)).collect();
            }
            "write" | "truncate" | "empty" => {
                let Some(file) = file(self) else { return };
                self.files[file].changes.push(match call.name == "write" {
                    true => Change::Write(call.offset as usize, &call.data),
                    false => Change::Length(call.offset as usize),
                });
            }
            "sync" => match self.live.get(&call.path) {
                Some(Node::File(file)) => {
                    self.files[*file].synced = self.files[*file].changes.len();
                }
                Some(Node::Folder(folder)) => {
                    self.folders[*folder].synced = self.folders[*folder].changes.len();
                }
                None => {}
            },
            _ => {}
        }
    }

    /// Collects the rest of a folder and of all folders below it.
    fn collect(&self, folder: usize, place: &Path, random: &mut Seeded, tree: &mut Tree) {
        let Folder { changes, synced } = &self.folders[folder];
        let kept = synced + random.below(changes.len() - synced + 1);
        let mut names: BTreeMap<&PathBuf, Node> = BTreeMap::new();
        for (name, node) in changes[..kept].iter().flatten() {
            match node {
                Some(node) => names.insert(name, *node),
                None => names.remove(name),
            };
        }
        for (name, node) in names {
            let path = place.join(name);
            match node {
                Node::File(file) => {
                    tree.insert(path, Some(self.files[file].after_loss(random)));
                }
                Node::Folder(folder) => {
                    tree.insert(path.clone(), None);
                    self.collect(folder, &path, random, tree);
                }
            }
        }
    }
}

impl File<'_> {
    fn after_loss(&self, random: &mut Seeded) -> Vec<u8> {
        let mut bytes = Vec::new();
        for change in &self.changes[..self.synced] {
            change.apply(&mut bytes, |_| true);
        }
        // All of the rest, nothing of it, or anything between.
        let mode = random.below(5);
        for change in &self.changes[self.synced..] {
            match (mode, random.below(4)) {
                (0, _) | (2.., 0) => {}
                (1, _) | (2.., 1) => change.apply(&mut bytes, |_| true),
                _ => change.apply(&mut bytes, |_| random.below(2) == 0),
            }
        }
        bytes
    }
}

impl Change<'_> {
    /// Applies the change to a file's bytes. Of a write, only the sectors that `kept` selects are
    /// applied.
    fn apply(&self, bytes: &mut Vec<u8>, mut kept: impl FnMut(usize) -> bool) {
        match *self {
            Self::Length(length) => bytes.resize(length, 0),
            Self::Write(offset, data) => {
                let mut at = 0;
                while at < data.len() {
                    let sector = (offset + at) / SECTOR;
                    let end = data.len().min((sector + 1) * SECTOR - offset);
                    if kept(sector) {
                        bytes.resize(bytes.len().max(offset + end), 0);
                        bytes[offset + at..offset + end].copy_from_slice(&data[at..end]);
                    }
                    at = end;
                }
            }
        }
    }
}

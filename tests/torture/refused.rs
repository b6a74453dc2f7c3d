//! Files that the user may not read, and descriptors that run out. A refusal by the system is an error
//! with its cause, never damage, and never repaired.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use crate::Tally;
use crate::chains::{APPEND, COMPACT, DELETE, prepare};
use crate::seeded::Seeded;
use crate::sites::REPLICATE;
use crate::world::{QUERY, Tree, World, hits_of, read_tree, write_tree};

/// Number of trials of a kind, if not all are run.
const SAMPLED: usize = 20;
/// Numbers of descriptors with which commands are run: from too few for anything to more than enough.
const DESCRIPTORS: [u32; 16] = [5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 18, 20, 24, 28, 32, 64];

const VERIFY: [&str; 3] = ["verify", "--store", "STORE"];
const DEEP: [&str; 4] = ["verify", "--store", "STORE", "--deep"];
const REPAIR: [&str; 7] = ["repair", "--store", "STORE", "--model", "MODEL", "--device", "cpu"];
const LINES: [&[&str]; 9] = [
    &QUERY,
    &["info", "--store", "STORE"],
    &VERIFY,
    &DEEP,
    &REPAIR,
    &DELETE,
    &COMPACT,
    &APPEND,
    &REPLICATE,
];

/// Takes the rights to each file and folder of a store and a replica from the user who runs each
/// command, then runs each command with few descriptors. Returns a row for each.
pub(crate) fn run(world: &World, seed: u64, full: bool) -> [(&'static str, Tally); 2] {
    let replicated = replicated(world);
    let right = hits_of(&String::from_utf8_lossy(&world.run(&QUERY).stdout));
    let trial = Trial { world, before: &replicated, right: &right };
    world.open_to_all();
    let places = replicated.keys().filter(|place| place.components().count() > 1);
    let closed: Vec<_> = places.flat_map(|place| LINES.map(|line| (place, line))).collect();
    let few: Vec<_> = DESCRIPTORS.iter().flat_map(|few| LINES.map(|line| (few, line))).collect();
    [
        (
            "a file or folder that the user may not open",
            tally(&closed, seed, full, |(place, line)| trial.closed(place, line)),
        ),
        ("few descriptors", tally(&few, seed, full, |(few, line)| trial.few(**few, line))),
    ]
}

/// Makes a store with deleted documents and a replica.
fn replicated(world: &World) -> Tree {
    let before = prepare(world);
    write_tree(&world.disk(), &before);
    assert!(world.run(&REPLICATE).status.success());
    read_tree(&world.disk())
}

fn tally<T>(all: &[T], seed: u64, full: bool, one: impl Fn(&T) -> Result<bool, String>) -> Tally {
    let (mut random, mut tally) = (Seeded(seed ^ 0x4ef5_5ed0), Tally::default());
    for trial in 0..if full { all.len() } else { SAMPLED } {
        tally.trials += 1;
        match one(&all[if full { trial } else { random.below(all.len()) }]) {
            Ok(true) => tally.harmless += 1,
            Ok(false) => tally.detected += 1,
            Err(why) => {
                tally.wrong += 1;
                tally.misses.push(why);
            }
        }
    }
    tally
}

struct Trial<'w> {
    world: &'w World,
    before: &'w Tree,
    /// The right answer before anything is changed.
    right: &'w str,
}

impl Trial<'_> {
    /// Runs a command without the right to `place`. Returns whether it did its work.
    fn closed(&self, place: &Path, line: &[&str]) -> Result<bool, String> {
        write_tree(&self.world.disk(), self.before);
        self.world.give_to_user();
        let path = self.world.disk().join(place);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        set_mode(&path, 0);
        let output = self.world.run_as_user(line);
        // A command may have replaced it meanwhile.
        if path.exists() {
            set_mode(&path, mode);
        }
        let judged = self.judge(line, &output, "Permission denied");
        judged.map_err(|why| format!("{} closed, {}: {why}", place.display(), line[0]))
    }

    /// Runs a command with `descriptors` descriptors. Returns whether it did its work.
    fn few(&self, descriptors: u32, line: &[&str]) -> Result<bool, String> {
        write_tree(&self.world.disk(), self.before);
        let output = self.world.run_after(&format!("ulimit -n {descriptors}"), line);
        // With even fewer no program can be loaded.
        if matches!(output.status.code(), Some(126 | 127)) {
            return Ok(false);
        }
        let judged = self.judge(line, &output, "Too many open files");
        judged.map_err(|why| format!("{descriptors} descriptors, {}: {why}", line[0]))
    }

    /// Whether a command did its work. If not, it must name `cause` and leave a whole store.
    fn judge(&self, line: &[&str], output: &Output, cause: &str) -> Result<bool, String> {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        let code = output.status.code();
        if !matches!(code, Some(0 | 1 | 3)) || stderr.contains("panicked") {
            return Err(format!("{}: {stderr}", output.status));
        }
        let answered = line == QUERY && code != Some(1);
        if answered && hits_of(&stdout) != self.right {
            return Err(format!("answers {stdout}"));
        }
        let blames = |word: &str| stderr.contains(word) || stdout.contains(word);
        let blamed = blames("damage") || blames("repair");
        if code == Some(1) && (blamed || !stderr.contains(cause)) {
            return Err(format!("refuses with {stderr}{stdout}"));
        }
        let whole = self.world.run(&DEEP);
        if !whole.status.success() {
            return Err(format!("leaves {}{}", text(&whole.stdout), text(&whole.stderr)));
        }
        Ok(code == Some(0))
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

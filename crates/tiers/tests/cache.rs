//! The cache on a drive beside others: starts, budgets, foreign files, other processes, full and read-only drives.

#![expect(clippy::print_stdout, reason = "it says what was not run")]

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyperrag_core::{
    Answer, Blob, BlobKey, FactValue, FetchSink, Piece, ShardId, Slot, Tier, TierError,
};
use hyperrag_tiers::CacheTier;

const MIB: u64 = 1 << 20;

fn blob(n: u32, bytes: u64) -> Blob {
    let mut table = [0x5a; 16];
    table[0] = (n % 256) as u8;
    Blob { key: BlobKey { table, slot: Slot(n) }, shard: ShardId(0), offset: 0, bytes }
}

fn bytes_of(blob: &Blob) -> Bytes {
    vec![blob.key.slot.0 as u8; usize::try_from(blob.bytes).unwrap()].into()
}

fn put(tier: &CacheTier, blob: &Blob) -> Result<(), TierError> {
    tier.put(blob, &bytes_of(blob))
}

struct Gathered(Mutex<Vec<Answer>>);

impl FetchSink for Gathered {
    fn deliver(&self, n: usize, answer: Answer) {
        let mut answers = self.0.lock().unwrap();
        assert_eq!(answers.len(), n);
        answers.push(answer);
    }
}

/// Reads a block, and checks its bytes. Returns whether it is there.
fn read(tier: &CacheTier, blob: &Blob) -> bool {
    let frames = 0..blob.frames(tier.shape().frame_bytes);
    let pieces: Vec<Piece> = frames.map(|frame| Piece { blob: *blob, frame }).collect();
    let sink = Arc::new(Gathered(Mutex::default()));
    tier.fetch(&pieces, Duration::ZERO, Arc::clone(&sink) as Arc<dyn FetchSink>);
    let answers = std::mem::take(&mut *sink.0.lock().unwrap());
    let pieces: Option<Vec<Bytes>> = answers.into_iter().map(Result::unwrap).collect();
    pieces.inspect(|pieces| assert!(pieces.concat() == bytes_of(blob), "{}", blob.key)).is_some()
}

/// Returns the paths in a folder and below, and what `du` says of it.
fn used(folder: &Path) -> (Vec<PathBuf>, u64) {
    let mut found = (Vec::new(), fs::metadata(folder).unwrap().blocks() * 512);
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let (below, bytes) = used(&path);
            found.0.extend(below);
            found.1 += bytes;
        } else {
            found.1 += fs::symlink_metadata(&path).unwrap().blocks() * 512;
            found.0.push(path);
        }
    }
    found
}

fn held_blocks(tier: &CacheTier) -> usize {
    let facts = tier.probe().unwrap();
    let held = facts.iter().find(|fact| fact.name == "held_blocks").unwrap();
    let FactValue::Number(number) = held.value else { panic!("{held:?}") };
    number as usize
}

#[test]
fn the_drive_never_holds_more_than_the_budget_and_every_file_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let budget = 8 * MIB;
    let tier = CacheTier::new(folder.path(), budget).unwrap();
    for n in 0..600 {
        put(&tier, &blob(n, 1 + u64::from(n) * 7919 % 100_000)).unwrap();
        if n % 20 == 0 {
            let (files, bytes) = used(folder.path());
            assert!(bytes <= budget && tier.held_bytes() <= budget, "{bytes}");
            assert_eq!(files.len(), held_blocks(&tier) + 1, "blocks and the marker");
        }
    }
    let kept = held_blocks(&tier);
    assert!(kept > 50 && tier.held_bytes() > budget * 8 / 10, "{kept} blocks");
    assert_eq!(tier.counts().evicted, 600 - kept as u64);
    drop(tier);

    let again = CacheTier::new(folder.path(), budget).unwrap();
    assert_eq!(held_blocks(&again), kept);
    let there = (0..600).filter(|n| read(&again, &blob(*n, 1 + u64::from(*n) * 7919 % 100_000)));
    assert_eq!(there.count(), kept);
    drop(again);

    // A smaller budget makes room at the start.
    let smaller = CacheTier::new(folder.path(), budget / 2).unwrap();
    let (files, bytes) = used(folder.path());
    assert!(bytes <= budget / 2 && files.len() > 10, "{} files of {bytes} bytes", files.len());
    assert_eq!(files.len(), held_blocks(&smaller) + 1);
}

#[test]
fn blocks_put_by_threads_keep_to_the_budget_too() {
    let folder = tempfile::tempdir().unwrap();
    let tier = CacheTier::new(folder.path(), 8 * MIB).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let tier = &tier;
            scope.spawn(move || {
                for n in 0..200 {
                    let blob = blob((n * 7 + thread) % 300, 60_000);
                    put(tier, &blob).unwrap();
                    read(tier, &blob);
                }
            });
        }
    });
    let (files, bytes) = used(folder.path());
    assert!(bytes <= 8 * MIB, "{bytes}");
    assert_eq!(files.len(), held_blocks(&tier) + 1);
}

#[test]
fn a_block_larger_than_the_budget_is_refused_and_drives_nothing_out() {
    let folder = tempfile::tempdir().unwrap();
    let tier = CacheTier::new(folder.path(), 4 * MIB).unwrap();
    put(&tier, &blob(1, 1000)).unwrap();
    let refused = put(&tier, &blob(2, 3 * MIB));
    assert!(matches!(refused, Err(TierError::Full(_))), "{refused:?}");
    assert!(read(&tier, &blob(1, 1000)) && !read(&tier, &blob(2, 3 * MIB)));
    assert_eq!(used(folder.path()).0.len(), 2);
    let small = CacheTier::new(folder.path(), MIB).err();
    assert!(matches!(small, Some(TierError::Refused(_))), "{small:?}");
}

#[test]
fn a_folder_of_others_is_refused_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("ab")).unwrap();
    let theirs = path(&format!("ab/{}.1", "ab".repeat(16)));
    fs::write(&theirs, "theirs").unwrap();
    let refused = CacheTier::new(folder.path(), 4 * MIB).err();
    assert!(matches!(&refused, Some(TierError::Refused(why)) if why.contains("ab")), "{refused:?}");
    assert_eq!(used(folder.path()).0, [theirs]);
    let refused = CacheTier::new(&path("ab").join("file/in/no/folder"), 4 * MIB);
    assert!(refused.is_ok(), "folders are made");
    fs::write(path("file"), "bytes").unwrap();
    assert!(CacheTier::new(&path("file"), 4 * MIB).is_err());
    assert_eq!(fs::read(path("file")).unwrap(), b"bytes");
    // An empty file system has one folder of its own.
    fs::create_dir_all(path("drive/lost+found")).unwrap();
    CacheTier::new(&path("drive"), 4 * MIB).unwrap();
}

#[test]
fn files_of_other_names_are_left_alone_and_those_of_dead_writers_removed() {
    let folder = tempfile::tempdir().unwrap();
    let tier = CacheTier::new(folder.path(), 4 * MIB).unwrap();
    put(&tier, &blob(0xab, 100)).unwrap();
    let name = blob(0xab, 100).key.to_string();
    let path = |name: &str| folder.path().join("ab").join(name);
    let foreign = ["notes.txt", &format!("{name}.bak"), &format!("{name}.tmp"), &name[1..]];
    let elsewhere = format!("cd{}", &name[2..]);
    let (dead, living) = (format!("{name}.tmp-1-2"), format!("{name}.tmp-1-3"));
    for name in foreign.iter().copied().chain([&*elsewhere, &dead, &living]) {
        fs::write(path(name), "bytes").unwrap();
    }
    fs::create_dir(path("folder")).unwrap();
    let lock = File::open(path(&living)).unwrap();
    lock.try_lock().unwrap();
    drop(tier);

    let tier = CacheTier::new(folder.path(), 4 * MIB).unwrap();
    assert_eq!(held_blocks(&tier), 1);
    assert!(!path(&dead).exists() && path(&living).exists() && path("folder").exists());
    for name in foreign.iter().copied().chain([&*elsewhere]) {
        assert_eq!(fs::read(path(name)).unwrap(), b"bytes", "{name}");
    }
}

#[test]
fn a_file_of_another_length_is_absent_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let tier = CacheTier::new(folder.path(), 8 * MIB).unwrap();
    let block = blob(7, 2 * MIB);
    let path = folder.path().join("07").join(block.key.to_string());
    for length in [0, 1, 2 * MIB - 1, 2 * MIB + 1] {
        put(&tier, &block).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        assert_eq!(tier.holds(&[block]).unwrap(), [false]);
        assert!(!read(&tier, &block), "{length}");
        assert!(!path.exists());
        assert_eq!(held_blocks(&tier), 0);
    }
    put(&tier, &block).unwrap();
    assert!(read(&tier, &block));
}

#[test]
fn two_processes_in_one_folder_do_each_other_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = [0, 1].map(|_| CacheTier::new(folder.path(), 6 * MIB).unwrap());
    put(&one, &blob(1, 1000)).unwrap();
    assert!(read(&other, &blob(1, 1000)), "found though another wrote it");
    // One drives out what the other has in its list.
    for n in 2..200 {
        put(&one, &blob(n, 100_000)).unwrap();
        put(&other, &blob(1000 + n, 100_000)).unwrap();
        read(&other, &blob(n, 100_000));
    }
    for tier in [&one, &other] {
        let there = (2..200).filter(|n| read(tier, &blob(*n, 100_000))).count();
        let both = there + (2..200).filter(|n| read(tier, &blob(1000 + n, 100_000))).count();
        assert!(both > 20, "{both}");
    }
    assert!(used(folder.path()).1 <= 12 * MIB);
    // The folder is emptied while both run.
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap()
        }
    }
    assert!(!read(&one, &blob(199, 100_000)));
    put(&one, &blob(199, 100_000)).unwrap();
    assert!(read(&other, &blob(199, 100_000)));
}

#[test]
fn no_link_leads_out_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let tier = CacheTier::new(folder.path(), 4 * MIB).unwrap();
    let block = blob(9, 5);
    symlink(outside.path(), folder.path().join("09")).unwrap();
    let theirs = outside.path().join(block.key.to_string());
    fs::write(&theirs, "their").unwrap();
    assert!(!read(&tier, &block));
    let refused = put(&tier, &block);
    assert!(matches!(refused, Err(TierError::Refused(_))), "{refused:?}");
    let tier = CacheTier::new(folder.path(), 4 * MIB).unwrap();
    assert_eq!(held_blocks(&tier), 0);
    assert_eq!(fs::read(theirs).unwrap(), b"their");
    // A link in the place of a file is not followed, and makes room for the file.
    fs::write(outside.path().join("file"), [10; 5]).unwrap();
    fs::create_dir(folder.path().join("0a")).unwrap();
    let block = blob(10, 5);
    symlink(outside.path().join("file"), folder.path().join("0a").join(block.key.to_string()))
        .unwrap();
    assert!(!read(&tier, &block));
    put(&tier, &block).unwrap();
    assert!(read(&tier, &block));
    assert_eq!(used(outside.path()).0.len(), 2);
}

/// Runs a test of this file on a small file system of its own. Returns `None` where this user may not make one.
fn on_a_small_drive(test: &str, folder: &Path) -> Option<bool> {
    let script = "mount -t tmpfs -o size=12m tmpfs \"$1\" && shift && exec \"$@\"";
    let mount = |what: &[&str]| {
        let mut run = Command::new("unshare");
        run.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
        run.arg(folder).args(what).env("SMALL_DRIVE", folder);
        run.output().ok().map(|output| {
            let texts = [output.stdout, output.stderr].concat();
            (output.status.success(), String::from_utf8_lossy(&texts).into_owned())
        })
    };
    let possible = mount(&["true"]).is_some_and(|(succeeded, _)| succeeded);
    if !possible {
        println!("not run: this user can mount no file system");
        return None;
    }
    let this = std::env::current_exe().unwrap();
    let (succeeded, said) = mount(&[this.to_str().unwrap(), "--ignored", "--exact", test])?;
    assert!(said.contains("1 passed"), "{said}");
    Some(succeeded)
}

#[test]
fn a_full_drive_makes_room_and_is_no_end() {
    let folder = tempfile::tempdir().unwrap();
    assert_ne!(on_a_small_drive("within_a_full_drive", folder.path()), Some(false));
}

#[test]
#[ignore = "needs a drive of 12 MiB, which `a_full_drive_makes_room_and_is_no_end` makes"]
fn within_a_full_drive() {
    let folder = PathBuf::from(std::env::var_os("SMALL_DRIVE").unwrap());
    let tier = CacheTier::new(&folder.join("cache"), 100 * MIB).unwrap();
    // The budget has room for all of them, the drive for a tenth.
    for n in 0..100 {
        put(&tier, &blob(n, MIB)).unwrap();
        assert!(read(&tier, &blob(n, MIB)), "{n}");
    }
    assert!(held_blocks(&tier) > 4 && tier.counts().evicted > 80, "{:?}", tier.counts());
    assert_eq!(used(&folder).0.len(), held_blocks(&tier) + 1);
    // Others take the rest: no room is left to make.
    let other = fs::write(folder.join("other"), vec![0; 20 << 20]);
    assert!(other.is_err());
    let refused = put(&tier, &blob(200, 11 * MIB));
    assert!(matches!(refused, Err(TierError::Full(_))), "{refused:?}");
    assert_eq!(used(&folder).0.len(), held_blocks(&tier) + 2, "nothing half-written is left");
    fs::remove_file(folder.join("other")).unwrap();
    put(&tier, &blob(201, 5 * MIB)).unwrap();
    assert!(read(&tier, &blob(201, 5 * MIB)));
}

#[test]
fn a_drive_that_cannot_be_written_to_is_read_and_refuses() {
    let folder = tempfile::tempdir().unwrap();
    assert_ne!(on_a_small_drive("within_a_read_only_drive", folder.path()), Some(false));
}

#[test]
#[ignore = "needs a drive of its own, which `a_drive_that_cannot_be_written_to_is_read_and_refuses` makes"]
fn within_a_read_only_drive() {
    let folder = PathBuf::from(std::env::var_os("SMALL_DRIVE").unwrap());
    put(&CacheTier::new(&folder, 8 * MIB).unwrap(), &blob(1, 1000)).unwrap();
    let mut mount = Command::new("mount");
    assert!(mount.args(["-o", "remount,ro"]).arg(&folder).status().unwrap().success());
    let tier = CacheTier::new(&folder, 8 * MIB).unwrap();
    assert!(read(&tier, &blob(1, 1000)));
    for n in [1, 2] {
        let refused = put(&tier, &blob(n, 1000));
        assert!(
            matches!(&refused, Err(TierError::Refused(why)) if why.contains(' ')),
            "{refused:?}"
        );
    }
    let refused = CacheTier::new(&folder.join("new"), 8 * MIB).err();
    assert!(matches!(refused, Some(TierError::Refused(_))), "{refused:?}");
}

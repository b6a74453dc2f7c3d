//! Cases on whole files by name. In: a place that holds files. Out: a panic where a promise of [`FileTier`] is
//! broken.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use hyperrag_core::{FileTier, Swapped};

use super::harness::{FileCase, mixed, name_cases};

pub(super) fn cases() -> Vec<FileCase> {
    name_cases![FileCase:
        a_file_that_was_put_is_there,
        files_of_many_lengths,
        a_file_is_replaced,
        a_file_is_copied_to_the_end,
        an_absent_file,
        a_file_that_is_too_long_is_not_copied,
        a_small_file_is_read,
        names_with_folders_dots_and_dashes,
        names_that_lead_elsewhere_are_refused,
        a_folder_is_no_file,
        a_small_file_is_made_once,
        a_small_file_is_changed_if_it_is_the_one_that_was_read,
        a_swap_of_an_absent_file_fails,
        one_of_many_makers_wins,
        counting_by_swaps_loses_nothing,
        a_reader_sees_the_old_or_the_new_file,
        a_missing_source_is_an_error,
        a_name_of_the_place_without_secrets,
    ]
}

/// Returns a name that no other case has used on any place.
fn new_name(end: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = u64::try_from(now.as_nanos() & u128::from(u64::MAX)).unwrap();
    format!("contract/{:016x}{end}", mixed(now ^ (next << 48)))
}

fn bytes_of(length: usize, seed: u64) -> Vec<u8> {
    (0..length as u64).map(|n| mixed(seed.wrapping_add(n)).to_le_bytes()[0]).collect()
}

/// Stores bytes under a name, through a file of the test.
fn put(place: &dyn FileTier, name: &str, bytes: &[u8]) {
    let mut source = SourceFile::new();
    source.file.write_all(bytes).unwrap();
    place.put_file(name, &source.path).unwrap();
}

/// A file of the test, which is removed at its end.
struct SourceFile {
    path: std::path::PathBuf,
    file: File,
}

impl SourceFile {
    fn new() -> Self {
        let name = new_name("").replace('/', "-");
        let path = std::env::temp_dir().join(format!("hyperrag-{name}"));
        let made = File::options().read(true).write(true).create_new(true).open(&path);
        Self { file: made.unwrap(), path }
    }
}

impl Drop for SourceFile {
    fn drop(&mut self) {
        // Best effort: it lies in the folder of temporary files.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Returns the length that `get_file` says and the bytes that it copied.
fn get(place: &dyn FileTier, name: &str) -> Option<Vec<u8>> {
    let mut target = SourceFile::new();
    let length = place.get_file(name, 1 << 30, &mut target.file).unwrap()?;
    let mut bytes = Vec::new();
    target.file.seek(SeekFrom::Start(0)).unwrap();
    target.file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, length);
    Some(bytes)
}

fn small(place: &dyn FileTier, name: &str) -> Option<Vec<u8>> {
    place.read_small(name, 1 << 20).unwrap().map(|bytes| bytes.to_vec())
}

fn a_file_that_was_put_is_there(place: &dyn FileTier) {
    let (name, bytes) = (new_name(".kv"), bytes_of(100_000, 1));
    put(place, &name, &bytes);
    assert_eq!(place.file_bytes(&name).unwrap(), Some(100_000));
    assert!(get(place, &name).unwrap() == bytes);
}

fn files_of_many_lengths(place: &dyn FileTier) {
    for length in [0, 1, 4095, 4096, 65_537, 12_000_001] {
        let (name, bytes) = (new_name(""), bytes_of(length, 2));
        put(place, &name, &bytes);
        assert_eq!(place.file_bytes(&name).unwrap(), Some(length as u64));
        assert!(get(place, &name).unwrap() == bytes, "{length} bytes");
    }
}

fn a_file_is_replaced(place: &dyn FileTier) {
    let name = new_name(".json");
    for length in [1000, 10, 0, 5000] {
        let bytes = bytes_of(length, length as u64);
        put(place, &name, &bytes);
        assert!(get(place, &name).unwrap() == bytes, "{length} bytes");
    }
}

fn a_file_is_copied_to_the_end(place: &dyn FileTier) {
    let name = new_name("");
    put(place, &name, b"world");
    let mut target = SourceFile::new();
    target.file.write_all(b"hello ").unwrap();
    target.file.seek(SeekFrom::Start(0)).unwrap();
    assert_eq!(place.get_file(&name, 5, &mut target.file).unwrap(), Some(5));
    assert_eq!(std::fs::read(&target.path).unwrap(), b"hello world");
}

fn an_absent_file(place: &dyn FileTier) {
    for name in [new_name(""), new_name("/in/no/folder")] {
        assert_eq!(place.file_bytes(&name).unwrap(), None);
        assert_eq!(get(place, &name), None);
        assert_eq!(small(place, &name), None);
    }
}

fn a_file_that_is_too_long_is_not_copied(place: &dyn FileTier) {
    let name = new_name("");
    put(place, &name, &bytes_of(1001, 3));
    let mut target = SourceFile::new();
    assert!(place.get_file(&name, 1000, &mut target.file).is_err());
    assert_eq!(std::fs::read(&target.path).unwrap(), b"");
    assert!(place.read_small(&name, 1000).is_err());
    assert_eq!(place.get_file(&name, 1001, &mut target.file).unwrap(), Some(1001));
    assert!(place.read_small(&name, 1001).unwrap().is_some());
}

fn a_small_file_is_read(place: &dyn FileTier) {
    for length in [0, 1, 1000] {
        let (name, bytes) = (new_name(".json"), bytes_of(length, 4));
        put(place, &name, &bytes);
        assert_eq!(small(place, &name), Some(bytes));
    }
}

fn names_with_folders_dots_and_dashes(place: &dyn FileTier) {
    for end in ["/a/b/c", ".d/e-f_g.h", "/000001.0123456789abcdef.kv", "-A_z.9", "/.hidden"] {
        let name = new_name(end);
        put(place, &name, end.as_bytes());
        assert_eq!(small(place, &name).unwrap(), end.as_bytes(), "{name}");
    }
}

fn names_that_lead_elsewhere_are_refused(place: &dyn FileTier) {
    let source = SourceFile::new();
    for name in [
        "",
        "/",
        "/etc/name",
        "..",
        "../name",
        "a/../../name",
        "a/./b",
        "a//b",
        "a/",
        "a b",
        "a\n",
        "ä",
        "a~b",
    ] {
        assert!(place.put_file(name, &source.path).is_err(), "{name:?}");
        assert!(place.file_bytes(name).is_err(), "{name:?}");
        assert!(place.read_small(name, 10).is_err(), "{name:?}");
        assert!(place.swap_small(name, None, b"new").is_err(), "{name:?}");
        let mut target = SourceFile::new();
        assert!(place.get_file(name, 10, &mut target.file).is_err(), "{name:?}");
    }
}

/// A folder of a file system is an error or absent, never an empty file.
fn a_folder_is_no_file(place: &dyn FileTier) {
    let name = new_name("");
    put(place, &format!("{name}/in"), b"bytes");
    assert!(!matches!(place.read_small(&name, 10), Ok(Some(_))));
    assert!(!matches!(place.file_bytes(&name), Ok(Some(_))));
}

fn a_small_file_is_made_once(place: &dyn FileTier) {
    let name = new_name("/span.0");
    assert_eq!(place.swap_small(&name, None, b"first").unwrap(), Swapped::Done);
    assert_eq!(place.swap_small(&name, None, b"second").unwrap(), Swapped::Changed);
    assert_eq!(small(place, &name).unwrap(), b"first");
}

fn a_small_file_is_changed_if_it_is_the_one_that_was_read(place: &dyn FileTier) {
    let name = new_name("");
    assert_eq!(place.swap_small(&name, None, b"").unwrap(), Swapped::Done);
    assert_eq!(place.swap_small(&name, Some(b"other"), b"one").unwrap(), Swapped::Changed);
    assert_eq!(place.swap_small(&name, Some(b""), b"one").unwrap(), Swapped::Done);
    assert_eq!(place.swap_small(&name, Some(b""), b"two").unwrap(), Swapped::Changed);
    assert_eq!(place.swap_small(&name, Some(b"one"), b"two").unwrap(), Swapped::Done);
    assert_eq!(small(place, &name).unwrap(), b"two");
}

fn a_swap_of_an_absent_file_fails(place: &dyn FileTier) {
    let name = new_name("");
    assert_eq!(place.swap_small(&name, Some(b"old"), b"new").unwrap(), Swapped::Changed);
    assert_eq!(small(place, &name), None);
}

fn one_of_many_makers_wins(place: &dyn FileTier) {
    for round in 0..5 {
        let name = new_name("");
        let won: Vec<String> = thread::scope(|scope| {
            let making = (0..8).map(|n| {
                let (name, mine) = (&name, format!("maker {n} of round {round}"));
                scope.spawn(move || {
                    let swapped = place.swap_small(name, None, mine.as_bytes()).unwrap();
                    (swapped == Swapped::Done).then_some(mine)
                })
            });
            let making: Vec<_> = making.collect();
            making.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(won.len(), 1, "{won:?}");
        assert_eq!(small(place, &name).unwrap(), won[0].as_bytes());
    }
}

fn counting_by_swaps_loses_nothing(place: &dyn FileTier) {
    const THREADS: usize = 4;
    const COUNTS: usize = 10;
    let name = new_name("");
    assert_eq!(place.swap_small(&name, None, b"0").unwrap(), Swapped::Done);
    let count = || {
        let old = small(place, &name).unwrap();
        let next = std::str::from_utf8(&old).unwrap().parse::<usize>().unwrap() + 1;
        place.swap_small(&name, Some(&old), next.to_string().as_bytes()).unwrap()
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                (0..COUNTS).for_each(|_| while count() == Swapped::Changed {});
            });
        }
    });
    assert_eq!(small(place, &name).unwrap(), (THREADS * COUNTS).to_string().as_bytes());
}

fn a_reader_sees_the_old_or_the_new_file(place: &dyn FileTier) {
    let name = new_name("");
    let versions = [bytes_of(300_000, 5), bytes_of(200_000, 6)];
    put(place, &name, &versions[0]);
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            for _ in 0..20 {
                let found = small(place, &name).unwrap();
                assert!(versions.contains(&found), "{} bytes of neither", found.len());
            }
        });
        for n in 0..10 {
            put(place, &name, &versions[(n + 1) % 2]);
        }
        reading.join().unwrap();
    });
}

fn a_missing_source_is_an_error(place: &dyn FileTier) {
    let name = new_name("");
    let missing = std::env::temp_dir().join("hyperrag-no-such-file");
    assert!(place.put_file(&name, &missing).is_err());
    assert_eq!(place.file_bytes(&name).unwrap(), None);
}

fn a_name_of_the_place_without_secrets(place: &dyn FileTier) {
    let name = place.name().to_lowercase();
    assert!(!name.is_empty());
    for secret in ["@", "password", "secret", "token"] {
        assert!(!name.contains(secret), "{name:?}");
    }
}

//! Changed bytes for a parser, for the installed toolchain: a short version of the long loop of `make
//! fuzz`.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use crate::seeded::Seeded;

/// Texts on which parsers stumble.
const WORDS: [&str; 7] = ["null", "[]", "{}", "\"\"", "\u{e9}", "18446744073709551615", "{{"];

/// Changes `seed`, which `target` must accept, in `rounds` ways. None may make it panic. Returns the
/// number of accepted changes. The variable FUZZ_SEEDS names a folder for the seeds of a fuzzer.
pub(crate) fn changes_are_no_panic(
    name: &str,
    seed: &[u8],
    rounds: u64,
    target: impl Fn(&[u8]) -> bool,
) -> u64 {
    if let Some(folder) = std::env::var_os("FUZZ_SEEDS") {
        let folder = PathBuf::from(folder).join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{}-bytes", seed.len())), seed).unwrap();
    }
    assert!(target(seed), "{name}: the seed is taken");
    let (mut random, mut taken) = (Seeded(seed.len() as u64), 0);
    for round in 0..rounds {
        let hostile = changed(seed, &mut random);
        let ended = catch_unwind(AssertUnwindSafe(|| target(&hostile)));
        assert!(ended.is_ok(), "{name}, round {round}: {}", hostile.escape_ascii());
        taken += u64::from(ended.unwrap_or(false));
    }
    taken
}

/// Returns `bytes` with one to four changes: a flip, another byte, a run of one byte, a cut, an
/// insertion, a number or a word of JSON, a repeated piece.
fn changed(bytes: &[u8], random: &mut Seeded) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    for _ in 0..1 + random.below(4) {
        let length = changed.len();
        if length == 0 {
            break;
        }
        let (at, run) = (random.below(length), 1 + random.below(40));
        let end = (at + run).min(length);
        match random.below(8) {
            0 => changed[at] ^= 1 << random.below(8),
            1 => changed[at] = random.next() as u8,
            2 => changed[at..end].fill([0, 0xff, b'9', b'"', b'\t', b'\n'][random.below(6)]),
            3 => changed.truncate(at),
            4 => {
                let piece: Vec<u8> = (0..run).map(|_| random.next() as u8).collect();
                changed.splice(at..at, piece);
            }
            5 => drop(changed.splice(at..end, *b"-1e999")),
            6 => drop(changed.splice(at..at, WORDS[random.below(WORDS.len())].bytes())),
            _ => {
                let piece = changed[at..end].to_vec();
                let to = random.below(length);
                changed.splice(to..to, piece);
            }
        }
    }
    changed
}

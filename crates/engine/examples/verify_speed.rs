//! Times `verify` against a bare loop of positioned reads and CRC over the same files with the same
//! threads, in turn: `verify_speed STORE [THREADS [ROUNDS]]`. Prints bytes a second and their ratio.

use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use hyperrag_engine::ByteProgress;
use hyperrag_engine::maintain::verify::{VerifySettings, verify};
use rayon::prelude::*;

const READ_BYTES: usize = 256 << 10;

/// Reads all of a file and gives its length.
fn sum(path: &Path, buffer: &mut [u8]) -> Result<u64, std::io::Error> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut offset = 0;
    while offset < length {
        let part = &mut buffer[..(length - offset).min(READ_BYTES as u64) as usize];
        file.read_exact_at(part, offset)?;
        std::hint::black_box(crc32fast::hash(part));
        offset += part.len() as u64;
    }
    Ok(length)
}

fn files(store: &Path) -> Result<Vec<PathBuf>, std::io::Error> {
    let mut files = Vec::new();
    for folder in ["shards", "chunks"] {
        for entry in fs::read_dir(store.join(folder))? {
            files.push(entry?.path());
        }
    }
    files.sort();
    Ok(files)
}

#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let store = PathBuf::from(arguments.next().ok_or("name a store")?);
    let threads = arguments.next().map_or(Ok(0), |text| text.parse())?;
    let rounds = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let files = files(&store)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let bare = || -> Result<f64, Box<dyn Error>> {
        let start = Instant::now();
        let lengths: Result<Vec<u64>, std::io::Error> = pool.install(|| {
            let files = files.par_iter();
            files.map_init(|| vec![0; READ_BYTES], |buffer, path| sum(path, buffer)).collect()
        });
        Ok(lengths?.iter().sum::<u64>() as f64 / start.elapsed().as_secs_f64())
    };
    let verified = || -> Result<f64, Box<dyn Error>> {
        let settings = VerifySettings { deep: false, threads };
        let report = verify(&store, settings, &ByteProgress::default())?;
        Ok(report.bytes as f64 / report.seconds)
    };
    bare()?; // Into the page cache, as far as it goes.
    let (mut bares, mut verifieds) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        bares.push(bare()?);
        verifieds.push(verified()?);
        println!(
            "round {round}: bare {:.2} GB/s, verify {:.2} GB/s",
            bares[bares.len() - 1] / 1e9,
            verifieds[verifieds.len() - 1] / 1e9
        );
    }
    let best = |rates: &[f64]| rates.iter().copied().fold(0.0, f64::max);
    let (bare, verified) = (best(&bares), best(&verifieds));
    println!(
        "best of {rounds}: bare {:.2} GB/s, verify {:.2} GB/s, {:.0} %",
        bare / 1e9,
        verified / 1e9,
        100.0 * verified / bare
    );
    Ok(())
}

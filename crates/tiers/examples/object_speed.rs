//! Speed of an object store for blocks of 6 MB. In: a URL, and AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
//! AWS_SESSION_TOKEN, AWS_ENDPOINT_URL, AWS_REGION. Out: MB/s, CPU seconds of this process, time to the first
//! frame, for 1, 4 and 16 blocks at one time. It stores a shard of 94 MB first.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use hyperrag_core::{Answer, Blob, BlobKey, FetchSink, FileTier, Piece, ShardId, Slot, Tier};
use hyperrag_tiers::{ObjectLogin, ObjectOptions, ObjectTier};

/// A block of SmolLM2 in bf16, in bytes.
const BLOCK: u64 = 5_898_240;
const BLOCKS: u64 = 16;
/// Times that all blocks are read.
const PASSES: u32 = 5;

struct Arrivals {
    block: usize,
    to: Sender<(usize, usize, Answer)>,
}

impl FetchSink for Arrivals {
    fn deliver(&self, n: usize, answer: Answer) {
        let _ = self.to.send((self.block, n, answer));
    }
}

fn options(url: String) -> ObjectOptions {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut options = ObjectOptions::new(url);
    options.endpoint = variable("AWS_ENDPOINT_URL");
    options.region = variable("AWS_REGION");
    options.allow_http = true;
    let keys = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
    if let (Some(access_key), Some(secret_key)) = keys {
        let session_token = variable("AWS_SESSION_TOKEN");
        options.login = ObjectLogin::Keys { access_key, secret_key, session_token };
    }
    options
}

/// CPU time of this process so far, in seconds, as Linux counts it: in hundredths.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

#[expect(clippy::print_stdout, reason = "the output of the example")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("usage: object_speed s3://BUCKET/PREFIX")?;
    let tier = ObjectTier::open(&options(url))?;
    let key = |slot| BlobKey { table: [7; 16], slot: Slot(slot) };
    let blobs: Vec<Blob> = (0..BLOCKS)
        .map(|n| Blob { key: key(n as u32), shard: ShardId(0), offset: n * BLOCK, bytes: BLOCK })
        .collect();
    let mut shard = tempfile::NamedTempFile::new()?;
    for n in 0..BLOCKS * BLOCK / 8 {
        shard.write_all(&n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes())?;
    }
    let name = format!("shards/000000.{}.kv", blobs[0].key.table_name());
    let start = Instant::now();
    tier.put_file(&name, shard.path())?;
    let megabytes = (BLOCKS * BLOCK) as f64 / 1e6;
    println!("put            {:7.0} MB/s", megabytes / start.elapsed().as_secs_f64());
    let start = Instant::now();
    tier.get_file(&name, BLOCKS * BLOCK, &mut File::create("/dev/null")?)?;
    println!("get            {:7.0} MB/s", megabytes / start.elapsed().as_secs_f64());
    for at_once in [1, 4, 16] {
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let mut first = Vec::new();
        for group in (0..PASSES).flat_map(|_| blobs.chunks(at_once)) {
            first.extend(read(&tier, group)?);
        }
        first.sort_unstable();
        println!(
            "{at_once:2} at one time {:7.0} MB/s {:6.3} CPU s  first frame after {:.1} ms (median)",
            f64::from(PASSES) * megabytes / start.elapsed().as_secs_f64(),
            cpu_seconds() - cpu,
            first[first.len() / 2].as_secs_f64() * 1e3
        );
    }
    Ok(())
}

/// Reads blocks at one time. Returns the time to the first frame of each.
fn read(tier: &ObjectTier, blobs: &[Blob]) -> Result<Vec<Duration>, Box<dyn std::error::Error>> {
    let frame_bytes = tier.shape().frame_bytes;
    let (to, arrivals) = channel();
    let start = Instant::now();
    let mut fetches = Vec::new();
    for (block, blob) in blobs.iter().enumerate() {
        let frames = blob.frames(frame_bytes);
        let pieces: Vec<Piece> = (0..frames).map(|frame| Piece { blob: *blob, frame }).collect();
        let sink = Arc::new(Arrivals { block, to: to.clone() });
        let fetch = tier.fetch(&pieces, Duration::from_secs(30), sink);
        fetch.allow(pieces.len());
        fetches.push(fetch);
    }
    let wanted = blobs.len() * blobs[0].frames(frame_bytes) as usize;
    let mut first = vec![Duration::ZERO; blobs.len()];
    for (block, n, answer) in arrivals.iter().take(wanted) {
        answer?.ok_or("the shard is gone")?;
        if n == 0 {
            first[block] = start.elapsed();
        }
    }
    Ok(first)
}

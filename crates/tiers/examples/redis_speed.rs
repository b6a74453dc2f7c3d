//! Prints how fast blocks of 6 MB come from one server, beside the bare connection of the client library: MB/s,
//! and MB/s for each core of this process. `redis_speed HOST:PORT [BLOCKS]` writes its blocks first; without an
//! address it starts the server of `HYPERRAG_SERVICES`.

use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyperrag_core::{Answer, Blob, BlobKey, FetchSink, Piece, ShardId, Slot, Tier};
use hyperrag_tiers::{RedisOptions, RedisTier};

const BYTES: u64 = 5_898_240;
const ROUNDS: usize = 5;

/// Sink that counts: bytes that came, and pieces that are missing.
struct Count {
    left: Mutex<(usize, usize)>,
    done: Condvar,
}

impl FetchSink for Count {
    fn deliver(&self, n: usize, answer: Answer) {
        let mut left = self.left.lock().unwrap();
        left.0 += answer
            .unwrap_or_else(|error| panic!("piece {n}: {error}"))
            .map_or(0, |bytes| bytes.len());
        left.1 -= 1;
        if left.1 == 0 {
            self.done.notify_all();
        }
    }
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start() -> io::Result<(Server, String)> {
    let services = std::env::var("HYPERRAG_SERVICES").map_err(io::Error::other)?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let server = Command::new(format!("{services}/bin/redis-server"))
        .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"])
        .stdout(Stdio::null())
        .spawn()?;
    let address = format!("127.0.0.1:{port}");
    while std::net::TcpStream::connect(&address).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok((Server(server), address))
}

/// CPU time of this process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // User and system time, in ticks of 10 ms.
    let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

fn measure(name: &str, mut round: impl FnMut() -> usize) {
    let (start, before) = (Instant::now(), cpu());
    let bytes: usize = (0..ROUNDS).map(|_| round()).sum();
    let (time, cpu) = (start.elapsed(), cpu() - before);
    let megabytes = bytes as f64 / 1e6;
    let (rate, of_core) = (megabytes / time.as_secs_f64(), megabytes / cpu.as_secs_f64());
    write(&format!("{name:20} {rate:6.0} MB/s, {of_core:6.0} MB/s a core"));
}

fn write(line: &str) {
    use io::Write;
    writeln!(io::stdout(), "{line}").expect("stdout takes a line");
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (server, address) = match arguments.next() {
        Some(address) => (None, address),
        None => start().map(|(server, address)| (Some(server), address))?,
    };
    let count: u32 = arguments.next().map_or(Ok(50), |count| count.parse())?;
    let tier =
        RedisTier::open(RedisOptions { nodes: vec![address.clone()], ..RedisOptions::default() })?;
    let blobs: Vec<_> = (0..count)
        .map(|slot| {
            let key = BlobKey { table: *b"speed of a place", slot: Slot(slot) };
            Blob { key, shard: ShardId(0), offset: 0, bytes: BYTES }
        })
        .collect();
    let bytes = Bytes::from(vec![7; BYTES as usize]);
    let start = Instant::now();
    for blob in &blobs {
        tier.put(blob, &bytes)?;
    }
    let written = f64::from(count) * BYTES as f64 / 1e6 / start.elapsed().as_secs_f64();
    write(&format!("{:20} {written:6.0} MB/s", "writing"));

    let frames = blobs[0].frames(tier.shape().frame_bytes);
    let pieces: Vec<_> = blobs
        .iter()
        .flat_map(|blob| (0..frames).map(|frame| Piece { blob: *blob, frame }))
        .collect();
    measure("tier", || {
        let left = Mutex::new((0, pieces.len()));
        let count = Arc::new(Count { left, done: Condvar::new() });
        let request = tier.fetch(&pieces, Duration::from_secs(5), count.clone());
        let left = count.left.lock().expect("no sink panics");
        let left = count.done.wait_while(left, |left| left.1 > 0).expect("no sink panics");
        drop(request);
        left.0
    });

    let client = redis::Client::open(format!("redis://{address}/"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut connection =
        runtime.block_on(client.get_multiplexed_async_connection_with_config(&config))?;
    measure("bare connection", || {
        runtime.block_on(async {
            let mut bytes = 0;
            for blob in &blobs {
                for frame in 0..frames {
                    let key = format!("hr1:{{{}}}", blob.key);
                    let field: Vec<u8> = redis::cmd("HGET")
                        .arg(key)
                        .arg(frame)
                        .query_async(&mut connection)
                        .await
                        .expect("a field");
                    bytes += field.len();
                }
            }
            bytes
        })
    });
    for blob in &blobs {
        let key = format!("hr1:{{{}}}", blob.key);
        runtime.block_on(redis::cmd("UNLINK").arg(key).query_async::<()>(&mut connection))?;
    }
    drop(server);
    Ok(())
}

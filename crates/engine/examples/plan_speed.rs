//! Times a query whose blocks come over a link, with every block loaded, every block computed, and the planner's
//! division of them. In: a store, the number of candidates (32), and latencies in milliseconds (0.5,20,200). Out: a table of bandwidths and latencies of the
//! link, the first query of a session and a later one, and of bandwidths that change tenfold half-way.
//!
//! The link is the throttled tier over the store's own folder, which should be in the page cache. Loading and the
//! planner take turns, for `ROUNDS` rounds (1), and for more where those are short; medians are printed. A score
//! that differs ends the program with an error.

#![expect(clippy::print_stdout, reason = "the figures are its output")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hyperrag_engine::open::OpenSession;
use hyperrag_engine::search::session::{BlockPolicy, RankedHit, Session};
use hyperrag_engine::{Engine, ModelRequest, Query};
use hyperrag_model::{DeviceChoice, DtypeChoice};
use hyperrag_store::{TierChoice, Tiered};
use hyperrag_tiers::{FolderTier, Throttled};

type Outcome<T> = Result<T, Box<dyn Error>>;
type Link = Arc<Throttled<FolderTier>>;

/// Bandwidths of the link in bytes a second, beside the one at which loading takes as long as computing.
const BANDWIDTHS: [f64; 6] = [10e6, 40e6, 100e6, 400e6, 2e9, 10e9];
/// Latencies of the link in seconds.
const LATENCIES: [f64; 3] = [5e-4, 0.02, 0.2];
/// Shortest time of all rounds of a row, in seconds.
const ROW_SECONDS: f64 = 9.0;
/// Latency where the bandwidth changes.
const LATENCY_OF_CHANGES: f64 = 0.02;

/// A store behind a link.
struct Far<'a> {
    engine: &'a Engine,
    store: Tiered,
    link: Link,
    query: Query,
    depth: usize,
}

/// Seconds of a query: all loaded, all computed, the planner's first query and a later one.
struct Seconds {
    load: f64,
    recompute: f64,
    first: f64,
    later: f64,
}

impl Seconds {
    fn better(&self) -> f64 {
        self.load.min(self.recompute)
    }

    fn print(&self, cells: &[String]) {
        let ratio = |seconds: f64| format!("{:.2}", seconds / self.better());
        let seconds = [self.load, self.recompute, self.first, self.later];
        let mut cells = cells.to_vec();
        cells.extend(seconds.map(|seconds| format!("{seconds:.2} s")));
        cells.extend([ratio(self.first), ratio(self.later)]);
        println!("| {} |", cells.join(" | "));
    }
}

impl<'a> Far<'a> {
    fn open(engine: &'a Engine, root: &Path, latency: f64, depth: usize) -> Outcome<Self> {
        let link = Throttled::new(Arc::new(FolderTier::new(root)), 0);
        let link: Link = Arc::new(link.with_latency(Duration::from_secs_f64(latency)));
        let tier = Arc::clone(&link) as _;
        let patience = Duration::from_secs(600);
        let store = Tiered::open(root)?.with_tiers(vec![TierChoice::Tier { tier, patience }]);
        let text = "Which passage tells what bees do in winter?".to_owned();
        Ok(Self { engine, store, link, query: Query { id: "q".to_owned(), text }, depth })
    }

    fn session(&self) -> Outcome<OpenSession<'_>> {
        let loaded = &self.engine.loaded;
        Ok(Session::open(&self.store, &loaded.model, &loaded.tokenizer, &loaded.profile)?)
    }

    /// Times a query over the link. Its rate becomes `change.1` after `change.0` seconds.
    fn time(
        &self,
        session: &OpenSession<'_>,
        policy: BlockPolicy,
        rate: f64,
        change: Option<(f64, f64)>,
    ) -> Outcome<(f64, Vec<RankedHit>)> {
        self.link.set_rate(rate as u64);
        let changer = change.map(|(after, rate)| {
            let link = Arc::clone(&self.link);
            thread::spawn(move || {
                thread::sleep(Duration::from_secs_f64(after));
                link.set_rate(rate as u64);
            })
        });
        let start = Instant::now();
        let found = session.search(&self.query, self.depth, policy)?;
        let seconds = start.elapsed().as_secs_f64();
        changer.map(thread::JoinHandle::join);
        Ok((seconds, found.hits))
    }

    /// Times the planner and loading in turns, beside computing all, which does not depend on the link.
    fn compare(
        &self,
        rate: f64,
        change: Option<(f64, f64)>,
        computed: &(f64, Vec<RankedHit>),
        rounds: usize,
    ) -> Outcome<Seconds> {
        let mut seconds: [Vec<f64>; 3] = Default::default();
        let start = Instant::now();
        let mut round = 0;
        while round < rounds || start.elapsed().as_secs_f64() < ROW_SECONDS {
            round += 1;
            let session = self.session()?;
            let ways = [BlockPolicy::Load, BlockPolicy::Auto, BlockPolicy::Auto];
            for (way, seconds) in ways.into_iter().zip(&mut seconds) {
                let (took, found) = self.time(&session, way, rate, change)?;
                seconds.push(took);
                if found != computed.1 {
                    return Err("scores differ".into());
                }
            }
        }
        let [load, first, later] = seconds.map(median);
        Ok(Seconds { load, recompute: computed.0, first, later })
    }
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn rate(bytes: f64) -> String {
    match bytes >= 1e9 {
        true => format!("{:.0} GB/s", bytes / 1e9),
        false => format!("{:.0} MB/s", bytes / 1e6),
    }
}

fn head(first: &str) {
    println!(
        "| {first} | latency | all loaded | all computed | first query | later | over the better | later |"
    );
    println!("|---|---|---|---|---|---|---|---|");
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let root = arguments.next().ok_or("usage: plan_speed STORE [CANDIDATES [LATENCIES]]")?;
    let depth = arguments.next().map_or(Ok(32), |depth| depth.parse())?;
    let latencies = arguments.next().map_or(Ok(LATENCIES.to_vec()), |list| {
        list.split(',').map(|millis| Ok(1e-3 * millis.parse::<f64>()?)).collect::<Outcome<Vec<_>>>()
    })?;
    let rounds = std::env::var("ROUNDS").map_or(Ok(1), |rounds| rounds.parse())?;
    let root = Path::new(&root);
    let request = ModelRequest {
        model: None,
        tokenizer: None,
        profile: None,
        notes: None,
        device: DeviceChoice::Cpu,
        dtype: DtypeChoice::Auto,
        threads: 0,
        warn: |_| (),
    };
    let engine = Engine::open(root, &request)?;
    let near = Far::open(&engine, root, 0.0, depth)?;
    let session = near.session()?;
    near.time(&session, BlockPolicy::Load, 0.0, None)?;
    let mut computed = near.time(&session, BlockPolicy::Recompute, 0.0, None)?;
    let computing = computed.0;
    let bytes: u64 = near.store.tier_work().iter().map(|work| work.bytes).sum();
    let crossing = bytes as f64 / computing;
    println!(
        "{depth} blocks, {:.0} MB, computed in {computing:.2} s: as long as loading them at {}.\n",
        bytes as f64 / 1e6,
        rate(crossing)
    );
    let mut bandwidths = BANDWIDTHS.to_vec();
    bandwidths.push(crossing);
    bandwidths.sort_by(f64::total_cmp);
    head("bandwidth");
    for latency in latencies {
        let far = Far::open(&engine, root, latency, depth)?;
        computed = far.time(&far.session()?, BlockPolicy::Recompute, 0.0, None)?;
        for bandwidth in &bandwidths {
            let cells = [rate(*bandwidth), format!("{:.1} ms", 1e3 * latency)];
            far.compare(*bandwidth, None, &computed, rounds)?.print(&cells);
        }
    }
    println!();
    head("bandwidth that changes half-way");
    let far = Far::open(&engine, root, LATENCY_OF_CHANGES, depth)?;
    computed = far.time(&far.session()?, BlockPolicy::Recompute, 0.0, None)?;
    for bandwidth in bandwidths {
        let half = 0.5 * computing.min(LATENCY_OF_CHANGES + bytes as f64 / bandwidth);
        for factor in [0.1, 10.0] {
            let changed = factor * bandwidth;
            let cells = [
                format!("{} to {}", rate(bandwidth), rate(changed)),
                format!("{:.1} ms", 1e3 * LATENCY_OF_CHANGES),
            ];
            far.compare(bandwidth, Some((half, changed)), &computed, rounds)?.print(&cells);
        }
    }
    Ok(())
}

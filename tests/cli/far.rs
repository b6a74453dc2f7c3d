//! The planner over links that are fast, slow, or become slow: the same hits, and a division that fits.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyperrag_core::Tier;
use hyperrag_engine::search::session::{BlockPolicy, SearchResult, Session};
use hyperrag_engine::{Engine, ModelRequest, Query};
use hyperrag_model::{DeviceChoice, DtypeChoice};
use hyperrag_rerank::PlanWork;
use hyperrag_store::{TierChoice, Tiered};
use hyperrag_tiers::{FolderTier, Throttled};

use crate::support::{Scratch, jsonl, passages};

/// Candidates of a query: all passages.
const DEPTH: usize = 160;

/// A store of all passages, with its model.
struct Built {
    scratch: Scratch,
    engine: Engine,
    query: Query,
}

impl Built {
    fn new() -> Self {
        let scratch = Scratch::new();
        scratch.write("corpus.jsonl", jsonl(&passages()));
        scratch.ok("build corpus.jsonl --store store TINY --unit-rows 16");
        let request = ModelRequest {
            model: None,
            tokenizer: None,
            profile: None,
            notes: None,
            device: DeviceChoice::Cpu,
            dtype: DtypeChoice::Auto,
            threads: 2,
            warn: |warning| panic!("{}", warning.what),
        };
        let engine = Engine::open(&scratch.path("store"), &request).unwrap();
        assert_eq!(engine.default_policy(), BlockPolicy::Auto);
        let text = "the bees of a town that is on a river and has bread".to_owned();
        Self { scratch, engine, query: Query { id: "q".to_owned(), text } }
    }

    /// Opens the store with these tiers and nothing else.
    fn behind(&self, tiers: Vec<Arc<dyn Tier>>) -> Tiered {
        let patience = Duration::from_secs(60);
        let choices = tiers.into_iter().map(|tier| TierChoice::Tier { tier, patience });
        Tiered::open(&self.scratch.path("store")).unwrap().with_tiers(choices.collect())
    }

    /// Asks the query some times in one session.
    fn ask(&self, store: &Tiered, policy: BlockPolicy, times: usize) -> (SearchResult, PlanWork) {
        let loaded = &self.engine.loaded;
        let session =
            Session::open(store, &loaded.model, &loaded.tokenizer, &loaded.profile).unwrap();
        let results = (0..times).map(|_| session.search(&self.query, DEPTH, policy).unwrap());
        let result = results.last().unwrap();
        assert!(result.damages.is_empty(), "{:?}", result.damages);
        (result, session.plan_work())
    }

    /// Returns a link to the store's own folder.
    fn link(&self, rate: u64) -> Arc<Throttled<FolderTier>> {
        link(&self.scratch.path("store"), rate)
    }
}

fn link(folder: &Path, rate: u64) -> Arc<Throttled<FolderTier>> {
    Arc::new(Throttled::new(Arc::new(FolderTier::new(folder)), rate))
}

#[test]
fn a_link_as_fast_as_memory_is_read_as_it_comes_and_a_slow_one_shares_with_the_model() {
    let built = Built::new();
    let link = built.link(0);
    let store = built.behind(vec![Arc::clone(&link) as _]);
    let (expected, _) = built.ask(&store, BlockPolicy::Load, 1);
    let read = expected.stats.blocks_read;
    assert!(read > 50, "{read}");

    let (fast, plan) = built.ask(&store, BlockPolicy::Auto, 3);
    assert_eq!(fast.hits, expected.hits);
    assert_eq!(fast.stats.blocks_read + fast.stats.blocks_computed, read);
    let shares = plan.tiers.iter().map(|share| (share.place, share.loaded + share.computed));
    assert_eq!(shares.collect::<Vec<_>>(), [(0, 3 * read)]);

    // Eight seconds for all of it, which the model computes in less.
    link.set_rate(expected.stats.bytes_read / 8);
    let (slow, plan) = built.ask(&store, BlockPolicy::Auto, 1);
    assert_eq!(slow.hits, expected.hits);
    let [share] = plan.tiers[..] else { panic!("{plan:?}") };
    assert_eq!(
        (share.loaded, share.computed),
        (slow.stats.blocks_read, slow.stats.blocks_computed)
    );
    assert!(share.computed > 0 && share.loaded + share.computed == read, "{share:?}");
    assert!(plan.prefill_tokens_per_second.is_some());
}

#[test]
fn what_comes_at_first_contact_is_not_asked_for_again() {
    let built = Built::new();
    let store = built.behind(vec![built.link(0)]);
    let (found, plan) = built.ask(&store, BlockPolicy::Auto, 1);
    let sent: u64 = store.tier_work().iter().map(|work| work.bytes).sum();
    assert_eq!((found.stats.blocks_computed, plan.tiers.len()), (0, 1), "{plan:?}");
    assert!(sent < 2 * found.stats.bytes_read, "{sent} of {}", found.stats.bytes_read);
}

#[test]
fn a_block_that_a_place_does_not_have_is_planned_at_the_next() {
    let built = Built::new();
    let (expected, _) = built.ask(&built.behind(vec![built.link(0)]), BlockPolicy::Load, 1);
    let empty = built.scratch.path("empty");
    std::fs::create_dir(&empty).unwrap();
    let rate = expected.stats.bytes_read / 2;
    let store = built.behind(vec![link(&empty, 0), built.link(rate)]);
    let (found, plan) = built.ask(&store, BlockPolicy::Auto, 1);
    assert_eq!(found.hits, expected.hits);
    let of = |place| plan.tiers.iter().find(move |share| share.place == place);
    assert_eq!(of(0).map_or(0, |share| share.loaded), 0, "{plan:?}");
    let second = of(1).expect("the second place has all");
    assert!(second.loaded > 0, "{plan:?}");
    assert_eq!(second.loaded, found.stats.blocks_read);
    assert!(store.place_name(1).contains("store"), "{}", store.place_name(1));
}

#[test]
fn a_link_that_becomes_slow_between_queries_is_noticed() {
    let built = Built::new();
    let link = built.link(0);
    let store = built.behind(vec![Arc::clone(&link) as _]);
    let (expected, _) = built.ask(&store, BlockPolicy::Load, 1);
    let loaded = &built.engine.loaded;
    let session = Session::open(&store, &loaded.model, &loaded.tokenizer, &loaded.profile).unwrap();
    let ask = || session.search(&built.query, DEPTH, BlockPolicy::Auto).unwrap();
    (0..2).for_each(|_| assert_eq!(ask().hits, expected.hits));
    link.set_rate(expected.stats.bytes_read / 8);
    // The first may be read as it comes, slowly; it teaches the planner.
    let results = [ask(), ask()];
    results.iter().for_each(|result| assert_eq!(result.hits, expected.hits));
    let [share] = session.plan_work().tiers[..] else { panic!("one place") };
    assert!(results[1].stats.blocks_computed > 0, "{share:?}");
    let bytes = share.speed.unwrap().bytes_per_second;
    assert!(bytes < expected.stats.bytes_read as f64, "{bytes}");
}

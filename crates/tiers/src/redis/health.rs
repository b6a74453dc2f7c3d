//! Test of a place: versions, policy, copies, room, and warnings of settings that lose blocks.
//!
//! In: answers to `INFO`. Out: facts. It changes nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hyperrag_core::{FactValue, TierError, TierFact, TierRole};
use redis::Value;

use super::engine::Engine;
use super::node::{Link, Node};

/// Backlog below which a replica that was cut off for a moment copies all anew.
const BACKLOG_MIN: f64 = (256u64 << 20) as f64;

/// Answers of a node to `INFO`, and the time that one took.
struct Report {
    info: HashMap<String, String>,
    latency: Duration,
}

impl Report {
    fn text(&self, name: &str) -> &str {
        self.info.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> f64 {
        self.text(name).parse().unwrap_or(0.0)
    }

    fn is_master(&self) -> bool {
        self.text("role") == "master"
    }

    fn version(&self) -> String {
        match self.text("valkey_version") {
            "" => format!("Redis {}", self.text("redis_version")),
            version => format!("Valkey {version}"),
        }
    }

    /// Bytes that may still be written: below the set limit, else below the machine's memory.
    fn free_bytes(&self) -> f64 {
        let limit = match self.number("maxmemory") {
            0.0 => self.number("total_system_memory"),
            limit => limit,
        };
        (limit - self.number("used_memory")).max(0.0)
    }
}

impl Engine {
    /// Asks every node what it is.
    ///
    /// # Errors
    /// [`TierError`] if no node tells who holds what, or a master does not answer.
    pub(super) async fn probe(self: Arc<Self>) -> Result<Vec<TierFact>, TierError> {
        // A map from before might name nodes that are gone. An error leaves it.
        let refreshed = self.refresh().await;
        let map = match self.map().await {
            Ok(map) => map,
            Err(error) => return Err(refreshed.err().unwrap_or(error)),
        };
        let mut seen = BTreeSet::new();
        let all = map.groups.iter().flatten().filter(|node| seen.insert(node.address.clone()));
        let reports = join_all(all.map(|node| self.report(node))).await;
        let masters: BTreeSet<_> =
            map.groups.iter().filter_map(|nodes| nodes.first()).map(|node| &node.address).collect();
        let (mut masters_well, mut replicas_well, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        for (node, report) in reports {
            match report {
                Ok(report) if report.is_master() => masters_well.push(report),
                Ok(report) => replicas_well.push(report),
                Err(error) if masters.contains(&node.address) => return Err(error),
                Err(error) => lost.push(format!("{} {error}", node.address)),
            }
        }
        let mut facts = self.facts(&masters_well, &replicas_well);
        facts.push(text("mode", if map.clustered { "cluster" } else { "single" }));
        facts.push(number("nodes_lost", lost.len() as f64));
        let of_copies = (map.groups.iter().map(Vec::len).min().unwrap_or(1) - 1) as f64;
        facts.push(number("copies_least", of_copies));
        let mut warnings = self.warnings(&masters_well, &replicas_well, of_copies);
        warnings.extend(lost);
        facts.extend(warnings.iter().map(|warning| text("warning", warning)));
        Ok(facts)
    }

    async fn report(&self, node: &Arc<Node>) -> (Arc<Node>, Result<Report, TierError>) {
        let start = Instant::now();
        let pinged = node.ping(&self.dial, self.options.timeout).await;
        let latency = start.elapsed();
        let asked = match pinged {
            Ok(()) => {
                node.ask(
                    &self.dial,
                    Link::Control,
                    &[redis::cmd("INFO")],
                    false,
                    self.options.timeout,
                )
                .await
            }
            Err(fault) => Err(fault),
        };
        let report = asked.map_err(super::fault::Fault::into_error).map(|spoken| {
            let text = match spoken.values.first() {
                Some(Value::BulkString(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
                Some(Value::VerbatimString { text, .. }) => text.clone(),
                _ => String::new(),
            };
            let lines = text.lines().filter_map(|line| line.trim().split_once(':'));
            let info = lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            Report { info, latency }
        });
        (node.clone(), report)
    }

    fn facts(&self, masters: &[Report], replicas: &[Report]) -> Vec<TierFact> {
        let all = || masters.iter().chain(replicas);
        let each = |of: fn(&Report) -> String| {
            let values: BTreeSet<_> = all().map(of).collect();
            values.into_iter().collect::<Vec<_>>().join(", ")
        };
        let up = replicas.iter().filter(|report| report.text("master_link_status") == "up").count();
        let sum = |of: fn(&Report) -> f64| masters.iter().map(of).sum::<f64>();
        let latency = all().map(|report| report.latency).max().unwrap_or_default();
        let backlog = masters
            .iter()
            .map(|report| report.number("repl_backlog_size"))
            .fold(f64::INFINITY, f64::min);
        vec![
            text("version", &each(Report::version)),
            text("policy", &each(|report| report.text("maxmemory_policy").to_owned())),
            number("masters", masters.len() as f64),
            number("replicas", replicas.len() as f64),
            number("replicas_up", up as f64),
            number("memory_max_bytes", sum(|report| report.number("maxmemory"))),
            number("memory_used_bytes", sum(|report| report.number("used_memory"))),
            number("memory_free_bytes", sum(Report::free_bytes)),
            number("backlog_bytes", if backlog.is_finite() { backlog } else { 0.0 }),
            number("connect_ms", latency.as_secs_f64() * 1e3),
        ]
    }

    fn warnings(&self, masters: &[Report], replicas: &[Report], of_copies: f64) -> Vec<String> {
        let mut warnings = Vec::new();
        let policies: BTreeSet<_> =
            masters.iter().map(|report| report.text("maxmemory_policy")).collect();
        for policy in policies {
            match self.options.role {
                TierRole::Home if policy != "noeviction" => warnings.push(format!(
                    "maxmemory-policy is {policy}: blocks are dropped when memory is short; set noeviction, or \
                     use the place with role=cache"
                )),
                TierRole::Cache if !policy.starts_with("allkeys-") => warnings.push(format!(
                    "maxmemory-policy is {policy}: a full cache takes nothing new; set allkeys-lfu or another \
                     allkeys policy"
                )),
                _ => {}
            }
        }
        if self.options.role == TierRole::Cache
            && masters.iter().any(|report| report.number("maxmemory") == 0.0)
        {
            warnings.push(
                "maxmemory is not set: the cache grows until the machine has no memory".to_owned(),
            );
        }
        let down =
            replicas.iter().filter(|report| report.text("master_link_status") != "up").count();
        if down > 0 {
            warnings.push(format!("{down} replicas have no link to their master"));
        }
        if f64::from(self.options.copies) > of_copies {
            warnings.push(format!(
                "copies={} is more than the {of_copies} replicas of a master: writing will fail",
                self.options.copies
            ));
        }
        let short = |report: &Report| report.number("repl_backlog_size") < BACKLOG_MIN;
        if !replicas.is_empty() && masters.iter().any(short) {
            warnings.push(
                "repl-backlog-size is below 256mb: a replica that falls behind copies everything anew".to_owned(),
            );
        }
        warnings
    }
}

fn text(name: &'static str, value: &str) -> TierFact {
    TierFact { name, value: FactValue::Text(value.to_owned()) }
}

fn number(name: &'static str, value: f64) -> TierFact {
    TierFact { name, value: FactValue::Number(value) }
}

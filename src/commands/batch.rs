//! What `query` and `answer` share: a session as the command line wants it, and batches.

use std::collections::HashSet;

use anyhow::Result;
use hyperrag_engine::{PipelineError, Session};
use hyperrag_kv::Failover;
use hyperrag_rerank::{Aggregate, Damage, Fusion, OnDamage, Ranking, RerankError};
use hyperrag_store::Replicated;
use indicatif::ProgressBar;

use super::{LoadedModel, OpenSession, warn_of_damages, warn_of_failovers};
use crate::cli::{self, RankingArgs};
use crate::exit::Status;
use crate::queries::Batch;
use crate::report;

/// A session on `store` that ranks as `args` say.
pub(super) fn session<'a>(
    store: &'a Replicated,
    loaded: &'a LoadedModel,
    args: &RankingArgs,
) -> Result<OpenSession<'a>> {
    let LoadedModel { tokenizer, profile, model, .. } = loaded;
    let session = Session::open(store, model, tokenizer, profile)?;
    Ok(session.with_on_damage(on_damage(args)).with_ranking(ranking(args)))
}

fn on_damage(args: &RankingArgs) -> OnDamage {
    match args.on_damage {
        cli::OnDamage::Recompute => OnDamage::Recompute,
        cli::OnDamage::Fail => OnDamage::Fail,
        cli::OnDamage::Skip => OnDamage::Skip,
    }
}

fn ranking(args: &RankingArgs) -> Ranking {
    let fusion = match args.fuse {
        cli::Fuse::None => Fusion::None,
        cli::Fuse::Zscore => Fusion::ZScore { weight: args.fuse_weight },
        cli::Fuse::Rrf => Fusion::ReciprocalRank,
    };
    Ranking { aggregate: aggregate(args.aggregate), fusion }
}

pub(super) fn aggregate(named: cli::Aggregate) -> Aggregate {
    match named {
        cli::Aggregate::Max => Aggregate::Max,
        cli::Aggregate::Mean => Aggregate::Mean,
        cli::Aggregate::First => Aggregate::First,
    }
}

/// What has been said of replicas, which is said once.
#[derive(Default)]
pub(super) struct Said(HashSet<String>);

impl Said {
    /// Says it, unless it was said before.
    pub(super) fn once(&mut self, text: &str) {
        if self.0.insert(text.to_owned()) {
            report::warn(text);
        }
    }

    /// Speaks of damages and failovers, and gives the status that a query with them has.
    pub(super) fn warn(&mut self, damages: &[Damage], failovers: &[Failover]) -> Status {
        warn_of_damages(damages);
        warn_of_failovers(failovers, &mut self.0);
        if damages.is_empty() { Status::Done } else { Status::Degraded }
    }
}

/// A bar over a batch.
pub(super) fn batch_bar(batch: &Batch) -> ProgressBar {
    report::bar(
        batch.count.filter(|_| !batch.single),
        "{elapsed_precise} {bar:24} {pos}/{len} queries, ETA {eta_precise}",
    )
}

/// Has `show` print what `answers` gives for each query of a batch, and gives how all of it ends: as it
/// has to `start` with, or degraded. A query that fails is reported, and
/// does not end the batch, unless it is a `single` one; what can not be printed does.
pub(super) fn each_answer<T>(
    start: Status,
    answers: impl Iterator<Item = Result<T>>,
    single: bool,
    bar: &ProgressBar,
    mut show: impl FnMut(T, &mut Said) -> Result<Status>,
) -> Result<Status> {
    let (mut status, mut said) = (start, Said::default());
    for answer in answers {
        match answer {
            Ok(answer) => {
                if show(answer, &mut said)? == Status::Degraded {
                    status = Status::Degraded;
                }
            }
            Err(error) if !single && !is_fatal(&error) => {
                report::warn(&format!("{error:#}"));
                status = Status::Degraded;
            }
            Err(error) => return Err(error),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(status)
}

/// Whether an error is the store's or the program's rather than the query's.
fn is_fatal(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<PipelineError>() {
        Some(
            PipelineError::Model(_)
            | PipelineError::EmptyQuery
            | PipelineError::PromptTooLong { .. }
            // Another query may not need the damaged bytes.
            | PipelineError::Index(_)
            | PipelineError::UnknownDocument { .. }
            | PipelineError::ScoreRange { .. },
        ) => false,
        Some(PipelineError::Rerank(error)) => {
            matches!(
                error,
                RerankError::Absent(_) | RerankError::Damaged { .. } | RerankError::Refused { .. }
            )
        }
        Some(_) => true,
        None => false,
    }
}

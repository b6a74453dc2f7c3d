//! Ranking by the flags of the command line: flags come in, a session that ranks so goes out.

use anyhow::Result;
use hyperrag_engine::Engine;
use hyperrag_engine::open::OpenSession;
use hyperrag_engine::search::session::BlockPolicy;
use hyperrag_rerank::{Aggregate, Fusion, OnDamage, Ranking};

use crate::cli::query as cli;
use crate::cli::query::RankingArgs;

/// Opens a session that ranks as `args` say.
pub(crate) fn session<'a>(engine: &'a Engine, args: &RankingArgs) -> Result<OpenSession<'a>> {
    Ok(ranked(engine.session()?, args))
}

/// Returns a session that ranks as `args` say.
pub(crate) fn ranked<'a>(session: OpenSession<'a>, args: &RankingArgs) -> OpenSession<'a> {
    session.with_on_damage(on_damage(args)).with_ranking(ranking(args))
}

/// Returns where blocks come from.
pub(crate) fn policy(args: &RankingArgs, engine: &Engine) -> BlockPolicy {
    match args.plan {
        _ if args.recompute => BlockPolicy::Recompute,
        None => engine.default_policy(),
        Some(cli::Plan::Auto) => BlockPolicy::Auto,
        Some(cli::Plan::Load) => BlockPolicy::Load,
        Some(cli::Plan::Recompute) => BlockPolicy::Recompute,
    }
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

/// Returns how scores of chunks become one of their document.
pub(crate) fn aggregate(named: cli::Aggregate) -> Aggregate {
    match named {
        cli::Aggregate::Max => Aggregate::Max,
        cli::Aggregate::Mean => Aggregate::Mean,
        cli::Aggregate::First => Aggregate::First,
    }
}

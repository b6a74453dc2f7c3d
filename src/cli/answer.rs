//! `answer`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::query::{RankingArgs, SearchArgs, parse_share};

#[derive(Debug, Args)]
pub(crate) struct AnswerArgs {
    /// The question; `-` reads one a line from stdin.
    #[arg(conflicts_with = "queries")]
    pub(crate) text: Option<String>,
    #[command(flatten)]
    pub(crate) search: SearchArgs,
    /// Passages that the answer is made from; 0 asks the model alone.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) passages: usize,
    /// Take BM25's best passages as they are.
    #[arg(long)]
    pub(crate) no_rerank: bool,
    #[command(flatten)]
    pub(crate) ranking: RankingArgs,
    /// Model that answers, on the CPU: a name of `model list`, or the path of a GGUF file [default:
    /// the one that reranks].
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) generator: Option<String>,
    /// Chat template in Jinja that takes the place of the answering model's own, as transformers reads
    /// it. `strftime_now` in it gives today's date, or the time that SOURCE_DATE_EPOCH names.
    #[arg(long, value_name = "FILE")]
    pub(crate) chat_template: Option<PathBuf>,
    /// Instruction between passages and question [default: answer from the passages in as few words
    /// as possible].
    #[arg(long, value_name = "TEXT")]
    pub(crate) instruction: Option<String>,
    /// Tokens of an answer at most.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_tokens: u32,
    /// Draw tokens, from logits divided by this; 0 takes the most probable token each time.
    #[arg(long, default_value_t = 0.0, value_name = "T", value_parser = parse_temperature)]
    pub(crate) temperature: f32,
    /// Draw from the most probable tokens that together have this probability.
    #[arg(long, default_value_t = 1.0, value_name = "SHARE", value_parser = parse_share)]
    pub(crate) top_p: f32,
    /// Seed of what --temperature draws: the same seed gives a question the same answer.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
}

/// A temperature: 0 or more.
fn parse_temperature(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(temperature) if temperature >= 0.0 && temperature.is_finite() => Ok(temperature),
        _ => Err("give a number that is not below 0".to_owned()),
    }
}

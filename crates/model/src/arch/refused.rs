//! Architectures that are known and refused, with the reason.
//!
//! In: a name, as a GGUF or a `config.json` has it. Out: an error. It does not know files.

use crate::error::LoadError;

/// Reason for models whose layers have more, or something else, than K and V.
const STATES: &str = "some of its layers carry a state from token to token instead of K and V, \
    and a stored block holds K and V only";
/// Reason for models with experts.
const EXPERTS: &str = "it is a mixture of experts, which this program does not compute";
/// Reason for models whose layers differ in the sizes of K and V.
const SIZES: &str = "its layers have heads of different sizes and share K and V, \
    and a stored block has one size for all layers";
/// Reason for models that read a whole text at once.
const BOTH_WAYS: &str =
    "its tokens see later ones, so nothing of a document can be kept for a query";

/// Beginnings of names, without separators: the first one that fits counts.
const REASONS: [(&str, &str); 51] = [
    ("qwen3next", STATES),
    ("qwen35", STATES),
    ("lfm2", STATES),
    ("granitemoehybrid", STATES),
    ("granitehybrid", STATES),
    ("bamba", STATES),
    ("jamba", STATES),
    ("mamba", STATES),
    ("falconmamba", STATES),
    ("falconh1", STATES),
    ("zamba", STATES),
    ("nemotronh", STATES),
    ("plamo2", STATES),
    ("rwkv", STATES),
    ("arwkv", STATES),
    ("recurrentgemma", STATES),
    ("griffin", STATES),
    ("kimilinear", STATES),
    ("olmohybrid", STATES),
    ("minimax", STATES),
    ("xlstm", STATES),
    ("gemma3n", SIZES),
    ("gemma4moe", EXPERTS),
    ("mixtral", EXPERTS),
    ("qwen2moe", EXPERTS),
    ("qwen3moe", EXPERTS),
    ("qwen3vlmoe", EXPERTS),
    ("olmoe", EXPERTS),
    ("flexolmo", EXPERTS),
    ("granitemoe", EXPERTS),
    ("graniteswitch", EXPERTS),
    ("phimoe", EXPERTS),
    ("deepseekv", EXPERTS),
    ("deepseek2", EXPERTS),
    ("deepseek", EXPERTS),
    ("gptoss", EXPERTS),
    ("llama4", EXPERTS),
    ("glm4moe", EXPERTS),
    ("glm5", EXPERTS),
    ("ernie45moe", EXPERTS),
    ("dbrx", EXPERTS),
    ("smallthinker", EXPERTS),
    ("hunyuanmoe", EXPERTS),
    ("hunyuanv1moe", EXPERTS),
    ("bailingmoe", EXPERTS),
    ("kimik2", EXPERTS),
    ("grok", EXPERTS),
    ("bert", BOTH_WAYS),
    ("modernbert", BOTH_WAYS),
    ("eurobert", BOTH_WAYS),
    ("t5", BOTH_WAYS),
];

/// Makes the error of an architecture that is not supported.
pub(crate) fn refused(name: &str) -> LoadError {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let architecture = name.to_owned();
    match REASONS.iter().find(|(known, _)| plain.starts_with(known)) {
        Some((_, reason)) => LoadError::RefusedArchitecture { architecture, reason },
        None => LoadError::Architecture { architecture },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_has_its_reason() {
        for (name, words) in [
            ("qwen3_next", "state"),
            ("qwen3next", "state"),
            ("qwen3_5_text", "state"),
            ("qwen35moe", "state"),
            ("lfm2", "state"),
            ("granitehybrid", "state"),
            ("jamba", "state"),
            ("falcon-h1", "state"),
            ("mixtral", "experts"),
            ("qwen3_moe", "experts"),
            ("gpt-oss", "experts"),
            ("gemma4moe", "experts"),
            ("gemma3n", "different sizes"),
            ("modernbert", "later ones"),
            ("gpt2", "supported are llama"),
        ] {
            let error = refused(name).to_string();
            assert!(error.contains(&format!("{name:?}")) && error.contains(words), "{error}");
        }
    }
}

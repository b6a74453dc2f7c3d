//! Remedies in the words of the command line: errors and hints come in, sentences go out. The libraries spell
//! no flag, command or variable; this file spells those of remedies.

use hyperrag_core::{DocumentField, Hint, NotedPart, Warning};

use crate::{error, report};

/// Says what went wrong, with its causes and its remedy.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let (_, hint) = error::class(error);
    with_hint(hyperrag_core::sentence(error.as_ref()), hint.as_ref())
}

/// Warns the user, with the remedy.
pub(crate) fn warn(warning: &Warning) {
    report::warn(&with_hint(warning.what.clone(), warning.hint.as_ref()));
}

/// Ends a message with its remedy. Without a message the remedy stands alone.
pub(crate) fn with_hint(message: String, hint: Option<&Hint>) -> String {
    match hint {
        None => message,
        Some(hint) if message.is_empty() => spelt(hint),
        Some(hint) => format!("{message}; {}", spelt(hint)),
    }
}

fn spelt(hint: &Hint) -> String {
    let words = match hint {
        Hint::NameColumn(field) => return format!("name it with {}", column_flag(*field)),
        Hint::OtherColumn(field) => {
            return format!("change it, or name another column with {}", column_flag(*field));
        }
        Hint::MoreMemory { or } => return format!("{or}, or give more with --memory"),
        Hint::MemoryAtLeast { bytes, or_shorter_documents } => {
            return memory_at_least(*bytes, *or_shorter_documents);
        }
        Hint::ShorterQuery { tokens_max, chunk_tokens_max } => {
            return shorter_query(*tokens_max, *chunk_tokens_max);
        }
        Hint::UseDtype(usable) => return format!("use --dtype {usable}"),
        Hint::UseKvDtype(usable) => return format!("use --kv-dtype {usable}"),
        Hint::BuildStore { path } => {
            return format!("make one with `hyperrag build INPUT --store {}`", path.display());
        }
        Hint::PullModel { .. }
        | Hint::NameModelFolder
        | Hint::GiveStoreModel
        | Hint::NameStoreModel { .. }
        | Hint::NameAnew(_)
        | Hint::GiveNotedTokenizer { .. }
        | Hint::GiveTokenizer
        | Hint::GiveChatTemplate
        | Hint::GiveBuildSettings
        | Hint::UpgradeStore => return spelt_of_model(hint),
        Hint::NameFormat => "name its format with --input-format",
        Hint::ReadQuotes => "in TSV, --quoting csv reads quotes",
        Hint::SkipBadRows => "`hyperrag build` leaves such rows out with --on-bad-row skip",
        Hint::OtherTemporaryFolder => "name a folder with more room in TMPDIR",
        Hint::LongerDocuments => "split it, or allow more with --max-document-bytes",
        Hint::ShorterChunks { most } => return format!("use --chunk-tokens {most} or less"),
        Hint::LongerChunks => "use a larger --chunk-tokens",
        Hint::WiderDtype => "on a GPU, try --dtype bf16, whose range is larger",
        Hint::UseCpu => "use --device cpu",
        Hint::SmallerWeights => "free some, or use --dtype bf16, which takes half of f32's",
        Hint::FreeDeviceMemory => "free some, or use --device cpu",
        Hint::FewerThreads => "let the system have more, or start fewer (RAYON_NUM_THREADS)",
        Hint::ShorterPrompt => "shorten the question or the instruction, or lower --max-tokens",
        Hint::SmallerUnits => "use a smaller --unit-rows",
        Hint::FinishBuild { or_restart: false } => "finish it by the same `hyperrag build`",
        Hint::FinishBuild { or_restart: true } => {
            "finish it by the same `hyperrag build`, or forget what an append sealed with --append \
             --restart"
        }
        Hint::RestartAppend => "begin it anew with --append --restart",
        Hint::GiveStoreProfile => "name that with --profile, or build another store",
        Hint::RecomputeQuery => {
            "ask with `hyperrag query --recompute`, which reads the texts of a store, whatever profile \
             it was built with"
        }
        Hint::Repair
        | Hint::AcceptOlder
        | Hint::RepairOrRecompute
        | Hint::RebuildIndex
        | Hint::ReplicateAnew
        | Hint::RepairFromReplica
        | Hint::NameReplicas
        | Hint::ListReplicas
        | Hint::ForgetReplica => spelt_of_damage(hint),
        Hint::Append => "add or replace documents with --append, or build another store",
        Hint::AppendOrSameInput => {
            "add what is new with --append, build another store, or give the same input and --limit"
        }
        Hint::SameInputOrRestart => "give the same input, or forget what it sealed with --restart",
        Hint::LargerStore => "run the same command with more --max-bytes to go on",
    };
    words.to_owned()
}

/// Spells a remedy for a model that is not there, not the right one, or not whole.
fn spelt_of_model(hint: &Hint) -> String {
    let elsewhere = |flag: &str| format!("if it is elsewhere now, name it with {flag}");
    match hint {
        Hint::PullModel { name } => format!("run `hyperrag model pull {name}`"),
        Hint::NameModelFolder => "set HYPERRAG_HOME, XDG_CACHE_HOME or HOME".to_owned(),
        Hint::NameStoreModel { noted: Some(model) } => format!("that was --model {model}"),
        Hint::NameStoreModel { noted: None } => "name that with --model".to_owned(),
        Hint::NameAnew(NotedPart::Model) => elsewhere("--model"),
        Hint::NameAnew(NotedPart::Tokenizer) => elsewhere("--tokenizer"),
        Hint::NameAnew(NotedPart::Profile) => elsewhere("--profile"),
        Hint::GiveNotedTokenizer { noted } => format!("give it with --tokenizer {noted}"),
        Hint::GiveTokenizer => {
            "give the model's own tokenizer.json, or the folder that has it, with --tokenizer"
                .to_owned()
        }
        Hint::GiveChatTemplate => "give another one with --chat-template".to_owned(),
        Hint::GiveBuildSettings => {
            "give --model, --profile, --kv-dtype, --chunk-tokens, --unit-rows and --language as for its \
             build"
                .to_owned()
        }
        Hint::UpgradeStore => {
            "name that file with --model; while it is there, `hyperrag upgrade` makes the store \
             independent of these"
                .to_owned()
        }
        _ => "give what it was made with, --model or --profile".to_owned(),
    }
}

fn memory_at_least(bytes: u64, or_shorter_documents: bool) -> String {
    let shorter = match or_shorter_documents {
        true => ", or allow shorter ones with --max-document-bytes",
        false => "",
    };
    format!("give --memory {bytes} or more{shorter}")
}

fn shorter_query(tokens_max: usize, chunk_tokens_max: usize) -> String {
    let shorten = match tokens_max {
        0 => "shorten the query".to_owned(),
        max => format!("shorten the query to {max} tokens"),
    };
    match (tokens_max, chunk_tokens_max) {
        (_, 0) => shorten,
        (0, chunk) => format!("ask a store that was built with --chunk-tokens {chunk} or less"),
        (_, chunk) => {
            format!("{shorten}, or ask a store that was built with --chunk-tokens {chunk} or less")
        }
    }
}

/// Spells a remedy for a damaged store or copy.
fn spelt_of_damage(hint: &Hint) -> &'static str {
    match hint {
        Hint::Repair => "mend the store with `hyperrag repair`",
        Hint::AcceptOlder => "bring back a newer replica, or run `hyperrag repair --accept-older`",
        Hint::RepairOrRecompute => {
            "mend it with `hyperrag repair`, or ask with --on-damage recompute"
        }
        Hint::RebuildIndex => {
            "run `hyperrag repair`, or the same `hyperrag build` again, which make the index anew"
        }
        Hint::ReplicateAnew => {
            "remove the copy's folder and run `hyperrag replicate` again, or name another folder"
        }
        Hint::RepairFromReplica => {
            "mend it from a replica with `hyperrag repair`; without one, build the store again"
        }
        Hint::NameReplicas => "name the replicas again with `hyperrag replicate`",
        Hint::ListReplicas => "`hyperrag info` lists those that it does",
        _ => "`hyperrag replicate --forget` forgets it",
    }
}

fn column_flag(field: DocumentField) -> &'static str {
    match field {
        DocumentField::Id => "--id-column",
        DocumentField::Title => "--title-column",
        DocumentField::Text => "--text-column",
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory};
    use hyperrag_core::KvDtype;

    use super::*;
    use crate::cli::Cli;

    /// Returns the hint that follows in the list of all hints. A new one has to be put in.
    fn next(hint: &Hint) -> Option<Hint> {
        Some(match hint {
            Hint::NameColumn(DocumentField::Id) => Hint::NameColumn(DocumentField::Title),
            Hint::NameColumn(DocumentField::Title) => Hint::NameColumn(DocumentField::Text),
            Hint::NameColumn(DocumentField::Text) => Hint::OtherColumn(DocumentField::Id),
            Hint::OtherColumn(_) => Hint::MoreMemory { or: "write less" },
            Hint::MoreMemory { .. } => {
                Hint::MemoryAtLeast { bytes: 1, or_shorter_documents: false }
            }
            Hint::MemoryAtLeast { or_shorter_documents: false, .. } => {
                Hint::MemoryAtLeast { bytes: 1, or_shorter_documents: true }
            }
            Hint::MemoryAtLeast { .. } => Hint::NameFormat,
            Hint::NameFormat => Hint::ReadQuotes,
            Hint::ReadQuotes => Hint::SkipBadRows,
            Hint::SkipBadRows => Hint::OtherTemporaryFolder,
            Hint::OtherTemporaryFolder => Hint::LongerDocuments,
            Hint::LongerDocuments => Hint::LongerChunks,
            Hint::LongerChunks => Hint::ShorterChunks { most: 1 },
            Hint::ShorterChunks { .. } => Hint::ReplicateAnew,
            Hint::ReplicateAnew => Hint::RepairFromReplica,
            Hint::RepairFromReplica => Hint::WiderDtype,
            Hint::WiderDtype => Hint::UseDtype("f32"),
            Hint::UseDtype(_) => Hint::UseKvDtype(KvDtype::Int8),
            Hint::UseKvDtype(_) => Hint::UseCpu,
            Hint::UseCpu => Hint::FreeDeviceMemory,
            Hint::FreeDeviceMemory => Hint::SmallerWeights,
            Hint::SmallerWeights => Hint::FewerThreads,
            Hint::FewerThreads => Hint::ShorterPrompt,
            Hint::ShorterPrompt => Hint::ShorterQuery { tokens_max: 9, chunk_tokens_max: 8 },
            Hint::ShorterQuery { .. } => Hint::PullModel { name: "a".to_owned() },
            Hint::PullModel { .. } => Hint::NameModelFolder,
            Hint::NameModelFolder => Hint::BuildStore { path: "a".into() },
            Hint::BuildStore { .. } => Hint::SmallerUnits,
            Hint::SmallerUnits => Hint::FinishBuild { or_restart: false },
            Hint::FinishBuild { or_restart: false } => Hint::FinishBuild { or_restart: true },
            Hint::FinishBuild { or_restart: true } => Hint::RestartAppend,
            Hint::RestartAppend => Hint::GiveStoreModel,
            Hint::GiveStoreModel => Hint::NameStoreModel { noted: Some("a".to_owned()) },
            Hint::NameStoreModel { noted: Some(_) } => Hint::NameStoreModel { noted: None },
            Hint::NameStoreModel { noted: None } => Hint::NameAnew(NotedPart::Model),
            Hint::NameAnew(NotedPart::Model) => Hint::NameAnew(NotedPart::Tokenizer),
            Hint::NameAnew(NotedPart::Tokenizer) => Hint::NameAnew(NotedPart::Profile),
            Hint::NameAnew(NotedPart::Profile) => {
                Hint::GiveNotedTokenizer { noted: "a".to_owned() }
            }
            Hint::GiveNotedTokenizer { .. } => Hint::GiveTokenizer,
            Hint::GiveTokenizer => Hint::GiveChatTemplate,
            Hint::GiveChatTemplate => Hint::GiveStoreProfile,
            Hint::GiveStoreProfile => Hint::GiveBuildSettings,
            Hint::GiveBuildSettings => Hint::UpgradeStore,
            Hint::UpgradeStore => Hint::RecomputeQuery,
            Hint::RecomputeQuery => Hint::Repair,
            Hint::Repair => Hint::AcceptOlder,
            Hint::AcceptOlder => Hint::RepairOrRecompute,
            Hint::RepairOrRecompute => Hint::RebuildIndex,
            Hint::RebuildIndex => Hint::NameReplicas,
            Hint::NameReplicas => Hint::ListReplicas,
            Hint::ListReplicas => Hint::ForgetReplica,
            Hint::ForgetReplica => Hint::Append,
            Hint::Append => Hint::AppendOrSameInput,
            Hint::AppendOrSameInput => Hint::SameInputOrRestart,
            Hint::SameInputOrRestart => Hint::LargerStore,
            Hint::LargerStore => return None,
        })
    }

    fn flags(command: &Command) -> Vec<String> {
        let own = command.get_arguments().filter_map(|argument| argument.get_long());
        let below = command.get_subcommands().flat_map(flags);
        own.map(|long| format!("--{long}")).chain(below).collect()
    }

    #[test]
    fn remedies_name_flags_and_commands_that_exist() {
        let program = Cli::command();
        let flags = flags(&program);
        let first = Hint::NameColumn(DocumentField::Id);
        let hints = std::iter::successors(Some(first), next);
        let (mut named, mut count) = (0, 0);
        for hint in hints {
            let text = spelt(&hint);
            let words = || text.split(|c: char| c.is_whitespace() || "`,;()".contains(c));
            for flag in words().filter(|word| word.starts_with("--")) {
                assert!(flags.iter().any(|known| known == flag), "{flag}: {text}");
                named += 1;
            }
            for (_, after) in
                text.match_indices("`hyperrag ").map(|(at, s)| text.split_at(at + s.len()))
            {
                let command = after.split([' ', '`']).next().unwrap_or_default();
                assert!(program.find_subcommand(command).is_some(), "{command}: {text}");
                named += 1;
            }
            count += 1;
        }
        assert!(named >= count, "{named} in {count} hints");
    }

    #[test]
    fn a_query_without_room_is_told_its_numbers() {
        let said = |tokens_max, chunk_tokens_max| shorter_query(tokens_max, chunk_tokens_max);
        assert!(
            said(9, 8).contains("to 9 tokens, or ") && said(9, 8).ends_with("-tokens 8 or less")
        );
        assert_eq!(said(9, 0), "shorten the query to 9 tokens");
        assert!(said(0, 8).starts_with("ask a store") && said(0, 8).contains("8 or less"));
        assert_eq!(said(0, 0), "shorten the query");
    }

    #[test]
    fn a_remedy_ends_the_message() {
        let hint = Some(&Hint::LongerChunks);
        assert_eq!(
            with_hint("too short".to_owned(), hint),
            "too short; use a larger --chunk-tokens"
        );
        assert_eq!(with_hint(String::new(), hint), "use a larger --chunk-tokens");
        assert_eq!(with_hint("too short".to_owned(), None), "too short");
        let error = anyhow::Error::from(hyperrag_core::ModelError::OutOfMemory { rows: 3 });
        let said = sentence(&error.context("query q1"));
        assert!(said.starts_with("query q1: the device has too little memory"), "{said}");
        assert!(said.ends_with("3 rows; free some, or use --device cpu"), "{said}");
    }
}

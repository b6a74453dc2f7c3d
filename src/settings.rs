//! Flag, then environment, then settings file, then default: the file's values become defaults of
//! the command line, so that one parser decides.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches};
use toml::{Table, Value};

use crate::cli::Cli;
use crate::error::Usage;
use crate::input::text;

/// Bytes of a settings file.
const SETTINGS_BYTES_MAX: u64 = 1 << 20;

/// Request of the command line.
pub(crate) enum Resolved {
    /// The settings, to be printed.
    Print(String),
    /// A command to run.
    Run(Box<Cli>),
}

/// Parses the command line over the settings file; ends the process for `--help`.
pub(crate) fn parse() -> Result<Resolved> {
    let mut command = Cli::command();
    if let Some(path) = file_named()? {
        let text = text::read(&path, "the settings file", SETTINGS_BYTES_MAX)?;
        command = with_defaults(command, &path, &text)?;
    }
    let matches = command.clone().try_get_matches().map_err(usage)?;
    if matches.get_flag("print_config") {
        return Ok(Resolved::Print(resolved(&command, &matches)));
    }
    let cli = Cli::from_arg_matches(&matches).map_err(usage)?;
    Ok(Resolved::Run(Box::new(cli)))
}

/// The sentences of a usage error, which may quote what a terminal would obey.
fn usage(error: clap::Error) -> anyhow::Error {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        error.exit();
    }
    let text = error.render().to_string();
    Usage(text.trim_start_matches("error: ").trim_end().to_owned()).into()
}

/// The settings file, which must be known before the rest can be parsed.
fn file_named() -> Result<Option<PathBuf>> {
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--config" {
            return Ok(arguments.next().map(PathBuf::from));
        }
        if let Some(path) = argument.to_str().and_then(|a| a.strip_prefix("--config=")) {
            return Ok(Some(path.into()));
        }
    }
    if let Some(path) = std::env::var_os("HYPERRAG_CONFIG") {
        return Ok(Some(path.into()));
    }
    let path = Path::new("hyperrag.toml");
    let there = path.try_exists()?;
    // Nobody named it: a pipe of that name would be waited for.
    ensure!(
        !there || path.is_file(),
        "hyperrag.toml: the settings file is not a file; name another one with --config"
    );
    Ok(there.then(|| path.to_owned()))
}

/// Values at the top hold for every command that has the flag, those of a table for its command.
fn with_defaults(mut command: Command, path: &Path, text: &str) -> Result<Command> {
    let file: Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        Usage(format!("{}: line {line}: {}", path.display(), error.message()))
    })?;
    let unknown =
        |key: &str| Usage(format!("{}: no command has a setting {key:?}", path.display()));
    let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    for (key, value) in &file {
        let mut used = false;
        for name in &names {
            let value = value.clone();
            command = match (value, name == key) {
                (Value::Table(table), true) => {
                    used = true;
                    let mut missing = None;
                    let command = command.mut_subcommand(name, |mut sub| {
                        for (key, value) in table {
                            match set_default(sub.clone(), &key, &value) {
                                Some(set) => sub = set,
                                None => missing = Some(key),
                            }
                        }
                        sub
                    });
                    if let Some(key) = missing {
                        return Err(unknown(&format!("{name}.{key}")).into());
                    }
                    command
                }
                (Value::Table(_), false) => command,
                (value, _) => command.mut_subcommand(name, |sub| {
                    match set_default(sub.clone(), key, &value) {
                        Some(set) => {
                            used = true;
                            set
                        }
                        None => sub,
                    }
                }),
            };
        }
        if !used {
            return Err(unknown(key).into());
        }
    }
    Ok(command)
}

/// The command with a default for the flag of this name, of its own and of its subcommands; `None`
/// where there is none.
fn set_default(mut command: Command, key: &str, value: &Value) -> Option<Command> {
    let named = |argument: &Arg| {
        let aliases = argument.get_all_aliases().unwrap_or_default();
        argument.get_long() == Some(key) || aliases.contains(&key)
    };
    let own = command.get_arguments().find(|argument| named(argument));
    let own = own.map(|argument| argument.get_id().clone());
    let mut used = own.is_some();
    if let Some(id) = own {
        let text = match value {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        command = command.mut_arg(id, |argument| argument.default_value(text).required(false));
    }
    let below: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    for name in below {
        command = command.mut_subcommand(name, |sub| match set_default(sub.clone(), key, value) {
            Some(set) => {
                used = true;
                set
            }
            None => sub,
        });
    }
    used.then_some(command)
}

/// The settings of the command in use, as a settings file would hold them.
fn resolved(command: &Command, matches: &ArgMatches) -> String {
    let Some((name, mut matches)) = matches.subcommand() else { return String::new() };
    let Some(mut command) = command.find_subcommand(name) else { return String::new() };
    while let Some((below, of)) = matches.subcommand()
        && let Some(below) = command.find_subcommand(below)
    {
        (command, matches) = (below, of);
    }
    let mut table = Table::new();
    for argument in command.get_arguments() {
        let (Some(long), id) = (argument.get_long(), argument.get_id().as_str()) else { continue };
        if matches!(matches.value_source(id), None | Some(ValueSource::CommandLine))
            && long == "print-config"
        {
            continue;
        }
        if let Ok(Some(values)) = matches.try_get_raw(id) {
            let listed = if argument.get_value_delimiter().is_some() { usize::MAX } else { 1 };
            let texts: Vec<_> = values.take(listed).map(|v| v.to_string_lossy()).collect();
            let text = texts.join(",");
            let value =
                text.parse().map(Value::Integer).or_else(|_| text.parse().map(Value::Boolean));
            table.insert(long.to_owned(), value.unwrap_or(Value::String(text)));
        }
    }
    Table::from_iter([(name.to_owned(), Value::Table(table))]).to_string()
}

#[cfg(test)]
mod tests {
    use hyperrag_core::KvDtype;
    use hyperrag_model::{ComputeDtype, DtypeChoice};

    use super::*;

    fn resolve(file: &str, arguments: &[&str]) -> Result<Cli> {
        let command = with_defaults(Cli::command(), Path::new("hyperrag.toml"), file)?;
        Ok(Cli::from_arg_matches(&command.try_get_matches_from(arguments)?)?)
    }

    #[test]
    fn the_file_gives_defaults_and_flags_win() {
        let file = "store = 'S'\n[query]\ndepth = 7\nrecompute = true\n";
        let depth = |arguments: &[&str]| match resolve(file, arguments).unwrap().command {
            crate::cli::Command::Query(args) => {
                (args.search.depth, args.ranking.recompute, args.search.store)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(depth(&["hyperrag", "query", "x"]), (7, true, "S".into()));
        assert_eq!(depth(&["hyperrag", "query", "x", "--depth", "9"]).0, 9);
    }

    #[test]
    fn former_names_of_flags_still_work() {
        let of = |file: &str, more: &[&str]| {
            let line = [&["hyperrag", "build", "corpus", "--store", "s"], more].concat();
            match resolve(file, &line).unwrap().command {
                crate::cli::Command::Build(args) => (args.kv_dtype, args.model.dtype),
                other => panic!("{other:?}"),
            }
        };
        let expected = (Some(KvDtype::Int8), DtypeChoice::Named(ComputeDtype::F32));
        assert_eq!(of("", &["--element", "int8", "--compute", "f32"]), expected);
        assert_eq!(of("", &["--kv-dtype", "int8", "--dtype", "f32"]), expected);
        assert_eq!(of("compute = 'f32'\n[build]\nelement = 'int8'\n", &[]), expected);
        assert_eq!(of("dtype = 'f32'\n[build]\nkv-dtype = 'int8'\n", &[]), expected);
    }

    #[test]
    fn changed_files_are_refused_or_read_without_a_panic() {
        let file =
            "store = 'S'\nthreads = 2\n[query]\ndepth = 7\nfuse = \"rrf\"\n[bench]\ndepth = 3\n";
        let target = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            resolve(&text, &["hyperrag", "query", "bees"]).is_ok()
        };
        crate::changed::changes_are_no_panic("settings", file.as_bytes(), 600, target);
    }

    #[test]
    fn unknown_settings_are_refused() {
        for (file, key) in [("colour = 1", "colour"), ("[query]\ncolour = 1", "query.colour")] {
            let error = resolve(file, &["hyperrag", "info"]).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}

//! Flag, then environment, then settings file, then default: the file's values join the command line as
//! flags that nobody typed, so that one parser decides. What conflicts with a typed flag, or needs another
//! flag that is not given, stays out.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Result, ensure};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches, Id};
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use crate::cli::Cli;
use crate::error::Usage;
use crate::input::text;
use crate::report;

/// Bytes of a settings file.
const SETTINGS_BYTES_MAX: u64 = 1 << 20;

/// Likeness of a name from which on it is suggested for an unknown one, as clap has it.
const LIKENESS_MIN: f64 = 0.7;

/// Request of the command line.
pub(crate) enum Resolved {
    /// The settings, to be printed.
    Print(String),
    /// A command to run.
    Run(Box<Cli>),
}

/// Parses the command line over the settings file; ends the process for `--help`.
pub(crate) fn parse() -> Result<Resolved> {
    let file = file_named()?.map(|path| {
        let text = text::read(&path, "the settings file", SETTINGS_BYTES_MAX)?;
        SettingsFile::parse(path, &text)
    });
    resolve(file.transpose()?.as_ref(), std::env::args_os().collect())
}

/// Parses these words, the program's name first, over the settings file.
fn resolve(file: Option<&SettingsFile>, typed: Vec<OsString>) -> Result<Resolved> {
    let command = Cli::command();
    if let Some(file) = file {
        file.check(&file.table, &command, "")?;
    }
    let line = CommandLine::of(&command, file, typed)?;
    let matches = line.matches()?;
    if matches.get_flag("print_config") {
        return Ok(Resolved::Print(resolved(&command, &matches)));
    }
    let cli = Cli::from_arg_matches(&matches).map_err(usage)?;
    Ok(Resolved::Run(Box::new(cli)))
}

/// The sentences of a usage error, which may quote what a terminal would obey.
fn usage(error: clap::Error) -> anyhow::Error {
    if error.use_stderr() && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Usage(sentences(&error)).into();
    }
    // `exit` would keep to itself that stdout takes nothing.
    match report::print_help(&error) {
        Ok(()) => process::exit(error.exit_code()),
        Err(unprinted) => unprinted,
    }
}

fn sentences(error: &clap::Error) -> String {
    error.render().to_string().trim_start_matches("error: ").trim_end().to_owned()
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

/// A settings file. Values at its top hold for every command that has the flag, those of a table for its
/// command and what is below it.
struct SettingsFile {
    path: PathBuf,
    table: Table,
    /// Line of each key, which is named with its tables.
    lines: BTreeMap<String, usize>,
}

/// A value of the file for the command in use.
#[derive(Clone)]
struct Setting {
    /// Name with its tables, such as `bench.quality.depth`.
    key: String,
    id: Id,
    /// Flags that say the same.
    words: Vec<String>,
}

impl SettingsFile {
    fn parse(path: PathBuf, text: &str) -> Result<Self> {
        let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
        let line_at = |byte: usize| ends.partition_point(|end| *end < byte) + 1;
        let refused = |error: toml::de::Error| {
            let line = line_at(error.span().map_or(0, |span| span.start));
            Usage(format!("{}: line {line}: {}", path.display(), error.message()))
        };
        let table = text.parse().map_err(refused)?;
        let mut lines = BTreeMap::new();
        note_lines(DeTable::parse(text).map_err(refused)?.get_ref(), "", &line_at, &mut lines);
        Ok(Self { path, table, lines })
    }

    fn refusal(&self, key: &str, what: &str) -> anyhow::Error {
        let path = self.path.display();
        let line = self.lines.get(key).map(|line| format!(": line {line}"));
        Usage(format!("{path}{}: {key}: {what}", line.unwrap_or_default())).into()
    }

    /// Checks that a command has each setting of `table`, which holds for `command` and all below it.
    fn check(&self, table: &Table, command: &Command, above: &str) -> Result<()> {
        for (key, value) in table {
            let name = format!("{above}{key}");
            let is_table = value.is_table() || is_list_of_tables(value);
            let what = match (value, command.find_subcommand(key)) {
                (Value::Table(table), Some(below)) => {
                    self.check(table, below, &format!("{name}."))?;
                    continue;
                }
                _ if has_flag(command, key) && !is_table => continue,
                _ if has_flag(command, key) => {
                    format!("it is a setting, not a command: write {key} = VALUE")
                }
                (_, below) => unknown(&name, key, command, below.is_some()),
            };
            return Err(self.refusal(&name, &what));
        }
        Ok(())
    }

    /// Returns the settings of the command that `names` lead to. A table wins over what is above it.
    fn settings(&self, command: &Command, names: &[String]) -> Result<Vec<Setting>> {
        let mut found: Vec<Setting> = Vec::new();
        let (mut table, mut above) = (Some(&self.table), String::new());
        let mut names = names.iter();
        while let Some(level) = table {
            let mut here = Vec::new();
            for (key, value) in level.iter().filter(|(_, value)| !value.is_table()) {
                let Some(argument) = flag(command, key) else { continue };
                let (id, key) = (argument.get_id().clone(), format!("{above}{key}"));
                let words = words(argument, value).map_err(|what| self.refusal(&key, &what))?;
                here.push(Setting { key, id, words });
            }
            for (at, setting) in here.iter().enumerate() {
                if let Some(twin) = here[..at].iter().find(|other| other.id == setting.id) {
                    let what = format!("{} is the same setting: leave one out", twin.key);
                    return Err(self.refusal(&setting.key, &what));
                }
            }
            found.retain(|setting| here.iter().all(|other| other.id != setting.id));
            found.extend(here);
            table = names.next().and_then(|name| {
                above = format!("{above}{name}.");
                level.get(name)?.as_table()
            });
        }
        Ok(found)
    }
}

/// Whether `[[NAME]]` stands in the file, or a list like that.
fn is_list_of_tables(value: &Value) -> bool {
    value.as_array().is_some_and(|values| values.iter().any(Value::is_table))
}

/// Says why a key with a value is no setting of `command`.
fn unknown(name: &str, key: &str, command: &Command, is_command: bool) -> String {
    if is_command {
        return format!("it is a command, whose settings stand in one table: write [{name}]");
    }
    if flag(&Cli::command(), key).is_some() {
        return format!("it is no setting: type --{key}");
    }
    match near(key, command) {
        Some(near) => format!("no command has this setting; did you mean {near:?}?"),
        None => "no command has this setting".to_owned(),
    }
}

/// Notes the line of each key of `table`, and of the tables in it.
fn note_lines(
    table: &DeTable<'_>,
    above: &str,
    line_at: &impl Fn(usize) -> usize,
    lines: &mut BTreeMap<String, usize>,
) {
    for (key, value) in table {
        let name = format!("{above}{}", key.get_ref());
        if let DeValue::Table(below) = value.get_ref() {
            note_lines(below, &format!("{name}."), line_at, lines);
        }
        lines.insert(name, line_at(key.span().start));
    }
}

/// The words of a command line, and the settings of the file that join it.
struct CommandLine<'a> {
    command: &'a Command,
    file: Option<&'a SettingsFile>,
    typed: Vec<OsString>,
    settings: Vec<Setting>,
}

impl<'a> CommandLine<'a> {
    fn of(
        command: &'a Command,
        file: Option<&'a SettingsFile>,
        typed: Vec<OsString>,
    ) -> Result<Self> {
        let line = Self { command, file, typed, settings: Vec::new() };
        let Some(file) = file else { return Ok(line) };
        // The words alone need not be all that the command requires.
        let whole = command.clone().ignore_errors(true);
        let Ok(matches) = whole.try_get_matches_from(&line.typed) else { return Ok(line) };
        let mut built = command.clone();
        built.build();
        let (mut below, mut built, mut matches) = (command, &built, &matches);
        let mut names = Vec::new();
        while let Some((name, of)) = matches.subcommand()
            && let (Some(named), Some(named_built)) =
                (below.find_subcommand(name), built.find_subcommand(name))
        {
            names.push(name.to_owned());
            (below, built, matches) = (named, named_built, of);
        }
        let given = |id: &Id| {
            let source = matches.value_source(id.as_str());
            matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
        };
        let given: Vec<&Arg> = built.get_arguments().filter(|arg| given(arg.get_id())).collect();
        let mut settings = file.settings(below, &names)?;
        settings.retain(|setting| {
            given.iter().all(|given| {
                *given.get_id() != setting.id && !conflict(built, given.get_id(), &setting.id)
            })
        });
        Ok(Self { settings, ..line })
    }

    /// Parses the words with these settings.
    fn parsed(&self, settings: &[Setting], lenient: bool) -> Result<ArgMatches, clap::Error> {
        let end = self.typed.iter().position(|word| word == "--").unwrap_or(self.typed.len());
        let (before, after) = self.typed.split_at(end);
        let added = settings.iter().flat_map(|setting| &setting.words).map(OsString::from);
        let words = before.iter().cloned().chain(added).chain(after.iter().cloned());
        self.command.clone().ignore_errors(lenient).try_get_matches_from(words)
    }

    /// Parses the command line. Of settings that need a flag which is not given, none is taken.
    fn matches(&self) -> Result<ArgMatches> {
        let mut settings = self.settings.clone();
        loop {
            let error = match self.parsed(&settings, false) {
                Ok(matches) => return Ok(matches),
                Err(error) => error,
            };
            if error.kind() == ErrorKind::MissingRequiredArgument {
                if let Some(waiting) = self.waiting(&settings, &error) {
                    settings.remove(waiting);
                    continue;
                }
                // Who asks for the settings need not say what to do with them.
                if let Ok(matches) = self.parsed(&settings, true)
                    && matches.get_flag("print_config")
                {
                    return Ok(matches);
                }
            }
            return Err(self.attributed(&settings, error));
        }
    }

    /// Finds a setting that needs a missing flag: without it fewer are missing.
    fn waiting(&self, settings: &[Setting], error: &clap::Error) -> Option<usize> {
        let all = missing(error);
        (0..settings.len()).find(|at| match self.parsed(&without(settings, *at), false) {
            Ok(_) => true,
            Err(error) => {
                let left = missing(&error);
                error.kind() == ErrorKind::MissingRequiredArgument
                    && left.len() < all.len()
                    && left.is_subset(&all)
            }
        })
    }

    /// Names the setting that an error is about, if it is about one.
    fn attributed(&self, settings: &[Setting], error: clap::Error) -> anyhow::Error {
        let said = error.render().to_string();
        let is_without = |at: &usize| match self.parsed(&without(settings, *at), false) {
            Ok(_) => true,
            Err(error) => error.render().to_string() != said,
        };
        match (self.file, (0..settings.len()).find(is_without)) {
            (Some(file), Some(at)) => file.refusal(&settings[at].key, &sentences(&error)),
            _ => usage(error),
        }
    }
}

fn without(settings: &[Setting], at: usize) -> Vec<Setting> {
    let mut rest = settings.to_vec();
    rest.remove(at);
    rest
}

/// Returns the names of the arguments that an error misses.
fn missing(error: &clap::Error) -> BTreeSet<String> {
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::Strings(names)) => names.iter().cloned().collect(),
        Some(ContextValue::String(name)) => BTreeSet::from([name.clone()]),
        _ => BTreeSet::new(),
    }
}

/// Whether one of two arguments excludes the other.
fn conflict(built: &Command, one: &Id, other: &Id) -> bool {
    let excludes = |one: &Id, other: &Id| {
        let argument = built.get_arguments().find(|argument| argument.get_id() == one);
        argument.is_some_and(|argument| {
            built.get_arg_conflicts_with(argument).iter().any(|found| found.get_id() == other)
        })
    };
    excludes(one, other) || excludes(other, one)
}

/// Finds the flag of this name, or of this former name.
fn flag<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|argument| {
        let aliases = argument.get_all_aliases().unwrap_or_default();
        argument.get_long() == Some(key) || aliases.contains(&key)
    })
}

/// Whether a command below `command`, or itself if it is one, has a flag.
fn has_flag(command: &Command, key: &str) -> bool {
    let itself = command.get_name() != Cli::command().get_name() && flag(command, key).is_some();
    itself || command.get_subcommands().any(|below| has_flag(below, key))
}

/// Returns the setting or the table below `command` whose name is most like `key`.
fn near(key: &str, command: &Command) -> Option<String> {
    fn names(command: &Command, found: &mut BTreeSet<String>) {
        for below in command.get_subcommands() {
            found.extend(below.get_arguments().filter_map(Arg::get_long).map(str::to_owned));
            names(below, found);
        }
    }
    let mut known: BTreeSet<String> =
        command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    if command.get_name() != Cli::command().get_name() {
        known.extend(command.get_arguments().filter_map(Arg::get_long).map(str::to_owned));
    }
    names(command, &mut known);
    let likely = known.into_iter().map(|name| (strsim::jaro(key, &name), name));
    let likely = likely.filter(|(likeness, _)| *likeness > LIKENESS_MIN);
    likely.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

/// Spells a value of the file as flags.
fn words(argument: &Arg, value: &Value) -> Result<Vec<String>, String> {
    let long = argument.get_long().unwrap_or_default();
    let word = |value: &Value| match value {
        Value::String(text) => Ok(format!("--{long}={text}")),
        Value::Integer(_) | Value::Float(_) | Value::Datetime(_) => Ok(format!("--{long}={value}")),
        Value::Boolean(_) => Err("give a text or a number".to_owned()),
        Value::Array(_) | Value::Table(_) => Err("give a list of texts or numbers".to_owned()),
    };
    match (argument.get_action(), value) {
        (ArgAction::SetTrue, Value::Boolean(true)) => Ok(vec![format!("--{long}")]),
        (ArgAction::SetTrue, Value::Boolean(false)) => Ok(Vec::new()),
        (ArgAction::SetTrue, _) => Err("give true or false".to_owned()),
        (ArgAction::Append, Value::Array(values)) => values.iter().map(word).collect(),
        (_, Value::Array(_)) => Err("it takes one value, and this is a list".to_owned()),
        (_, value) => Ok(vec![word(value)?]),
    }
}

/// The settings of the command in use, as a settings file would hold them.
fn resolved(command: &Command, matches: &ArgMatches) -> String {
    let (mut command, mut matches, mut names) = (command, matches, Vec::new());
    while let Some((name, of)) = matches.subcommand()
        && let Some(below) = command.find_subcommand(name)
    {
        names.push(name.to_owned());
        (command, matches) = (below, of);
    }
    let mut table = Table::new();
    for argument in command.get_arguments() {
        let (Some(long), id) = (argument.get_long(), argument.get_id().as_str()) else { continue };
        if let Ok(Some(values)) = matches.try_get_raw(id) {
            let texts: Vec<_> = values.map(|value| value.to_string_lossy().into_owned()).collect();
            table.insert(long.to_owned(), printed(argument, texts));
        }
    }
    let nested = names
        .into_iter()
        .rev()
        .fold(Value::Table(table), |inner, name| Value::Table(Table::from_iter([(name, inner)])));
    nested.as_table().map(ToString::to_string).unwrap_or_default()
}

/// Returns the value that a settings file would have.
fn printed(argument: &Arg, texts: Vec<String>) -> Value {
    let number = |text: String| text.parse().map_or(Value::String(text), Value::Integer);
    match argument.get_action() {
        ArgAction::SetTrue => Value::Boolean(texts.iter().any(|text| text == "true")),
        ArgAction::Append if argument.get_value_delimiter().is_none() => {
            Value::Array(texts.into_iter().map(Value::String).collect())
        }
        _ => number(texts.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use hyperrag_core::KvDtype;
    use hyperrag_model::{ComputeDtype, DtypeChoice};

    use super::*;

    fn resolved_as(file: &str, arguments: &[&str]) -> Result<Resolved> {
        let file = SettingsFile::parse("hyperrag.toml".into(), file)?;
        super::resolve(Some(&file), arguments.iter().map(OsString::from).collect())
    }

    fn resolve(file: &str, arguments: &[&str]) -> Result<Cli> {
        match resolved_as(file, arguments)? {
            Resolved::Run(cli) => Ok(*cli),
            Resolved::Print(text) => panic!("{text}"),
        }
    }

    fn said(file: &str, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        resolve(file, &words).unwrap_err().to_string()
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
    fn a_list_is_several_values() {
        let replicas = |file: &str, more: &[&str]| {
            let line = [&["hyperrag", "build", "corpus", "--store", "s"], more].concat();
            match resolve(file, &line).unwrap().command {
                crate::cli::Command::Build(args) => args.replicas,
                other => panic!("{other:?}"),
            }
        };
        let two = "[build]\nreplica = ['a', 'b']\n";
        assert_eq!(replicas(two, &[]), [Path::new("a"), Path::new("b")]);
        assert_eq!(replicas(two, &["--replica", "c"]), [Path::new("c")], "what is typed wins");
        assert_eq!(replicas("[build]\nreplica = 'a'\n", &[]), [Path::new("a")]);
        assert!(replicas("[build]\nreplica = []\n", &[]).is_empty());
        let build = "hyperrag build corpus --store s";
        for (file, wrong) in [
            ("store = ['a', 'b']", "hyperrag.toml: line 1: store: it takes one value"),
            ("[build]\nlimit = [1]", "hyperrag.toml: line 2: build.limit: it takes one value"),
            ("[build]\nreplica = [['a']]", "build.replica: give a list of texts"),
            ("[build]\nreplica = true", "build.replica: give a text or a number"),
            ("[build]\nappend = 'yes'", "build.append: give true or false"),
        ] {
            let error = said(file, build);
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn values_of_the_file_count_as_given() {
        let query = |file: &str, line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            match resolve(file, &words).unwrap().command {
                crate::cli::Command::Query(args) => *args_of(args),
                other => panic!("{other:?}"),
            }
        };
        fn args_of(args: crate::cli::query::QueryArgs) -> Box<crate::cli::query::QueryArgs> {
            Box::new(args)
        }
        let file = "[query]\nstore = 's'\nqueries = 'q.tsv'\n";
        // A typed flag may need what the file gives.
        let ranked = query(file, "hyperrag query --candidates run");
        assert_eq!(ranked.search.queries.as_deref(), Some(Path::new("q.tsv")));
        // What is typed wins over what it excludes.
        let typed = query(&format!("{file}candidates = 'run'\n"), "hyperrag query bees");
        assert_eq!((typed.text.as_deref(), typed.search.queries), (Some("bees"), None));
        assert_eq!(typed.candidates, None);
        let after = query("[query]\nstore = 's'\ntop = 3\n", "hyperrag query -- -bees");
        assert_eq!((after.text.as_deref(), after.top), (Some("-bees"), 3));
        // A setting waits for the flag that it needs.
        let verify = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            match resolve("[verify]\nstore = 's'\nsample = 5\n", &words).unwrap().command {
                crate::cli::Command::Verify(args) => args.sample,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(verify("hyperrag verify"), None);
        assert_eq!(verify("hyperrag verify --recompute"), Some(5));
        assert_eq!(verify("hyperrag verify --recompute --part 1/2"), None);
        let both = "[verify]\nrecompute = true\nsample = 5\npart = '1/2'\n";
        let error = said(both, "hyperrag verify --store s");
        assert!(error.starts_with("hyperrag.toml: line ") && error.contains("--part"), "{error}");
    }

    #[test]
    fn errors_name_the_file_and_the_key() {
        for (file, named) in [
            ("[query]\ndepth = 'x'", "hyperrag.toml: line 2: query.depth: invalid value 'x'"),
            ("threads = 5000", "hyperrag.toml: line 1: threads: invalid value '5000'"),
            ("dtype = 'f32'\ncompute = 'f32'", "is the same setting: leave one out"),
        ] {
            let error = said(file, "hyperrag query --store s bees");
            assert!(error.contains(named), "{error}");
        }
        // An error of a typed flag is none of the file's.
        let error = said("threads = 5", "hyperrag query --store s --depth x bees");
        assert!(error.starts_with("invalid value 'x'"), "{error}");
        assert!(
            resolve("threads = 5000", &["hyperrag", "query", "--store=s", "--threads=1", "x"])
                .is_ok()
        );
    }

    #[test]
    fn tables_may_be_nested() {
        let of = |file: &str, line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            match resolved_as(file, &words).unwrap() {
                Resolved::Print(text) => text,
                Resolved::Run(cli) => panic!("{cli:?}"),
            }
        };
        let file =
            "depth = 2\n[bench]\ndepth = 3\nruns = 9\n[bench.quality]\ndepth = 4\nround = true\n";
        // Nothing that the commands require is given.
        let speed = of(file, "hyperrag bench --print-config");
        assert!(speed.starts_with("[bench]\n") && speed.contains("depth = 3\n"), "{speed}");
        let quality = of(file, "hyperrag --print-config bench quality");
        for part in ["[bench.quality]\n", "depth = 4\n", "round = true\n"] {
            assert!(quality.contains(part), "{quality}");
        }
        assert_eq!(of(&quality, "hyperrag bench quality --print-config"), quality);
        let build = of("[build]\nreplica = ['a', 'b']\n", "hyperrag build --print-config");
        assert!(build.contains("replica = [\"a\", \"b\"]\n"), "{build}");
        assert_eq!(of(&build, "hyperrag build --print-config"), build);
        let wrong = resolved_as("", &["hyperrag", "build", "--print-config", "--unit-rows", "x"]);
        assert!(wrong.is_err(), "a wrong value is still one");
        assert!(resolve("[model.pull]\n", &["hyperrag", "model", "list"]).is_ok());
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
        for (file, named) in [
            ("colour = 1", "hyperrag.toml: line 1: colour: no command has this setting"),
            ("[query]\n\ncolour = 1", "line 3: query.colour: no command"),
            ("[query]\nbatch = 1", "line 2: query.batch: no command"),
            (
                "[bench.quality]\nvariant = 1",
                "line 2: bench.quality.variant: no command has this setting; did you mean \"variants\"?",
            ),
            (
                "[qurey]\ndepth = 1",
                "line 1: qurey: no command has this setting; did you mean \"query\"?",
            ),
            ("thread = 1", "did you mean \"threads\"?"),
            ("[quality]\ndepth = 1", "quality: no command"),
            ("\njson = true", "line 2: json: it is no setting: type --json"),
            ("[query]\njson = true", "line 2: query.json: it is no setting: type --json"),
            (
                "threads = 2\n[[query]]\ndepth = 1",
                "line 2: query: it is a command, whose settings stand in one table: write [query]",
            ),
            ("[bench]\n[[bench.quality]]\nround = true", "line 2: bench.quality: it is a command"),
            ("query = 3", "line 1: query: it is a command"),
            ("[depth]\nx = 1", "line 1: depth: it is a setting, not a command"),
            ("[[replica]]\nx = 1", "line 1: replica: it is a setting, not a command"),
        ] {
            let error =
                resolve(file, &["hyperrag", "info", "--store", "s"]).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}

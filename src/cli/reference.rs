//! Renders `docs/reference/cli.md` from the command line's definition, and compares the two.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};

use super::Cli;

const PAGE: &str = "docs/reference/cli.md";

/// Columns of the help on the page.
const WIDTH: usize = 100;

/// Appends the help of `command` and of all below it.
fn append(page: &mut String, command: &mut Command, name: &str) {
    let help = command.render_long_help().to_string();
    let _ = write!(page, "\n## {name}\n\n```text\n");
    for line in help.trim_end().lines() {
        let _ = writeln!(page, "{}", line.trim_end());
    }
    page.push_str("```\n");
    for below in command.get_subcommands_mut() {
        if below.get_name() != "help" {
            let name = format!("{name} {}", below.get_name());
            append(page, below, &name);
        }
    }
}

/// Settings of the environment would be printed beside their names.
fn without_values(command: Command) -> Command {
    let command = command.term_width(WIDTH).mut_args(|argument| argument.hide_env_values(true));
    command.mut_subcommands(without_values)
}

#[test]
fn the_page_is_the_help_of_every_command() {
    let mut command = without_values(Cli::command());
    command.build();
    let mut page = "# Commands\n\nThis page is the `--help` of every command, written by \
                    `WRITE_DOCS=1 cargo test --release --bin hyperrag reference`.\n"
        .to_owned();
    append(&mut page, &mut command, "hyperrag");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    if std::env::var_os("WRITE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    assert!(written == page, "{PAGE} is not what --help says: WRITE_DOCS=1 writes it anew");
}

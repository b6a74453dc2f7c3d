//! Commands that another program starts: a shell that sets limits first, or one that changes signals.
//! The result has the command's folder and environment, and none of its pipes.

use std::process::Command;

/// Makes a command that the program with the words `by` starts.
pub(crate) fn by(by: &[&str], command: &Command) -> Command {
    let mut other = Command::new(by[0]);
    other.args(&by[1..]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        other.current_dir(folder);
    }
    other
}

/// Makes a command that a shell starts after it ran `script`, such as `ulimit -n 64`.
pub(crate) fn after(script: &str, command: &Command) -> Command {
    by(&["sh", "-c", &format!("{script} && exec \"$0\" \"$@\"")], command)
}

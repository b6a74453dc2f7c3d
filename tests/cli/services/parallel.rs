//! GNU parallel runs workers on two hosts by the commands of the guide, and one of them is killed. Both hosts are this
//! machine: a program stands in the place of `ssh`, which gives a command the environment of its host alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use super::workers::{SETTINGS, claim, freeze, path, rows, signal};
use super::{Services, until};
use crate::docs::{blocks, root};
use crate::partition::check_equal;
use crate::support::{Outcome, Scratch, testdata};

/// Writes a program that runs a command as `ssh HOST -- COMMAND` does, in a home folder that has the host's name.
fn write_ssh(services: &Services, scratch: &Scratch) {
    // As a login does it.
    let variables = [
        "SHELL=/bin/sh".to_owned(),
        format!("PATH='{}'", path(services)),
        format!("HYPERRAG_HOME='{}'", scratch.path("home").display()),
        format!("HYPERRAG_MODEL='{}'", testdata("tiny.gguf")),
    ];
    let hosts = scratch.path("hosts");
    fs::create_dir(scratch.path("ssh")).unwrap();
    ["host1", "host2"].iter().for_each(|host| fs::create_dir_all(hosts.join(host)).unwrap());
    let script = format!(
        "#!/bin/sh\nset -e\nHOME='{}'/$1\ncd \"$HOME\"\necho >> ../logins\nshift 2\nexec env -i HOME=\"$HOME\" {} sh -c \"$*\"\n",
        hosts.display(),
        variables.join(" ")
    );
    scratch.write("ssh/ssh", script);
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(scratch.path("ssh/ssh"), executable).unwrap();
}

#[test]
fn workers_on_two_hosts_of_which_one_is_killed_build_the_store_of_one_machine() {
    let Some(services) = Services::find() else { return };
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", rows());
    scratch.ok(&format!("build corpus.jsonl TINY {SETTINGS} --store whole"));
    write_ssh(&services, &scratch);

    let page = fs::read_to_string(root().join("docs/guide/cluster.md")).unwrap();
    let found = blocks(&page, "bash").into_iter().find(|block| block.contains("parallel"));
    let mut script = found.unwrap().to_owned();
    let path_of = |name: &str| scratch.path(name).display().to_string();
    for (old, new) in [
        ("-S host1,host2 --retries 3", "-S host1,host2 --retries 3"),
        ("/shared/corpus.parquet", &*path_of("corpus.jsonl")),
        ("/shared/my.store", &*path_of("store")),
        ("{}/2", &*format!("{{}}/2 {SETTINGS} --takeover-after 3")),
    ] {
        assert!(script.contains(old), "the page lost {old:?}: {script}");
        script = script.replace(old, new);
    }
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "300", "bash", "-euxo", "pipefail", "-c", &script]);
    command.env("PATH", format!("{}:{}", path_of("ssh"), path(&services)));
    command.env("HOME", scratch.path("")).env_remove("PARALLEL").env_remove("PARALLEL_SSH");
    command.current_dir(scratch.path("")).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    let store = scratch.path("store");
    // The second of two begins in the middle of the four spans.
    let claim = claim(&store, 2);
    until("a claim of the second worker", || {
        claim.exists() || running.try_wait().unwrap().is_some()
    });
    if claim.exists() {
        let home = format!("HYPERRAG_HOME={}", path_of("home"));
        signal(freeze(&store, 2, &[&home, "PARALLEL_SEQ=2"]), "KILL");
    }
    let outcome = Outcome::of(running.wait_with_output().unwrap());
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    // The killed one was started again.
    let logins = fs::read_to_string(scratch.path("hosts/logins")).unwrap();
    assert_eq!(logins.lines().count(), 3, "{}", outcome.stderr);
    check_equal(&scratch, "store");
}

//! A Slurm of one node, on this machine, runs `deploy/array.sbatch` and the merge by the commands of the guide. One
//! task is killed and one is asked to stop; both are started again.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::workers::{SETTINGS, claim, freeze, path, processes, rows, signal};
use super::{READY, Services, free_ports};
use crate::docs::{blocks, root};
use crate::partition::check_equal;
use crate::support::{Scratch, all_files, testdata};

/// Seconds after which Slurm starts a task again: the least that it takes; by itself it waits for two minutes.
const CREDENTIAL_SECONDS: u32 = 5;

/// Controller, node and munge, with a folder for their files. They end with the value, and so do the jobs.
struct Slurm {
    bin: PathBuf,
    folder: TempDir,
    daemons: Vec<(&'static str, Child)>,
}

impl Slurm {
    /// Starts the daemons and waits for the node.
    fn start(services: &Services) -> Self {
        let folder = TempDir::new().unwrap();
        let mut slurm = Self { bin: services.bin(), folder, daemons: Vec::new() };
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let host = host.trim().split('.').next().unwrap();
        fs::write(slurm.file("slurm.conf"), slurm.configuration(services, host)).unwrap();
        ["state", "spool"].iter().for_each(|name| fs::create_dir(slurm.file(name)).unwrap());
        slurm.make_key();

        let file = |flag: &str, name: &str| format!("--{flag}={}", slurm.file(name).display());
        let munged = [
            "--foreground".to_owned(),
            // Folders above this one may be open to others, or closed to them.
            "--force".to_owned(),
            file("key-file", "key"),
            file("socket", "munge"),
            file("pid-file", "munged.pid"),
            file("log-file", "munged.own.log"),
            file("seed-file", "munged.seed"),
        ];
        slurm.spawn(services, "munged", &munged.each_ref().map(String::as_str));
        slurm.wait("munged", |slurm| slurm.file("munge").exists());
        slurm.spawn(services, "slurmctld", &["-D", "-i"]);
        let step = slurm.bin.join("slurmstepd");
        let mut node = vec!["-D", "-N", host];
        if step.exists() {
            node.extend(["-d", step.to_str().unwrap()]);
        }
        slurm.spawn(services, "slurmd", &node);
        slurm.wait("an idle node", |slurm| {
            let state = slurm.client("sinfo").args(["-h", "-o", "%T"]).output().unwrap();
            String::from_utf8_lossy(&state.stdout).trim() == "idle"
        });
        slurm
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes the key that proves to the daemons who asks them.
    fn make_key(&self) {
        let mut key = [0; 128];
        File::open("/dev/urandom").unwrap().read_exact(&mut key).unwrap();
        fs::write(self.file("key"), key).unwrap();
        let closed = Command::new("chmod").arg("600").arg(self.file("key")).status();
        assert!(closed.unwrap().success());
    }

    /// Returns a configuration that needs no root, no cgroups and no other name than this machine's own.
    fn configuration(&self, services: &Services, host: &str) -> String {
        let [controller, node] = free_ports();
        let user = Command::new("id").arg("-un").output().unwrap();
        let user = String::from_utf8(user.stdout).unwrap();
        let (user, folder) = (user.trim(), self.folder.path().display());
        let plugins = services.folder.join("slurm/plugins");
        let plugins = if plugins.exists() {
            format!("PluginDir={}\n", plugins.display())
        } else {
            String::new()
        };
        format!(
            "{plugins}ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge,cred_expire={CREDENTIAL_SECONDS}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
JobRequeue=1
ReturnToService=2
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000
PartitionName=all Nodes={host} Default=YES State=UP
"
        )
    }

    /// Returns the variable that names the configuration. All processes of this Slurm have it.
    fn variable(&self) -> String {
        format!("SLURM_CONF={}", self.file("slurm.conf").display())
    }

    /// Starts a daemon, which writes its log to a file.
    fn spawn(&mut self, services: &Services, name: &'static str, words: &[&str]) {
        let log = File::create(self.file(name).with_extension("log")).unwrap();
        let mut command = services.program(name);
        command.args(words).env("SLURM_CONF", self.file("slurm.conf"));
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.daemons.push((name, command.spawn().unwrap()));
    }

    /// Returns a command of Slurm. It does not hang where a daemon does.
    fn client(&self, name: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "1", "60"]).arg(self.bin.join(name));
        command.env("SLURM_CONF", self.file("slurm.conf")).stdin(Stdio::null());
        command
    }

    /// Runs `scontrol` and returns what it prints.
    #[track_caller]
    fn scontrol(&self, words: &[&str]) -> String {
        let done = self.client("scontrol").args(words).output().unwrap();
        assert!(done.status.success(), "{words:?}: {done:?}\n{}", self.logs());
        String::from_utf8(done.stdout).unwrap()
    }

    /// Returns a field of a job or a task, as `scontrol` shows it.
    fn field(&self, job: &str, name: &str) -> String {
        let shown = self.scontrol(&["show", "job", "-o", job]);
        let mut fields = shown.split_whitespace().filter_map(|field| field.split_once('='));
        fields.find_map(|(found, value)| (found == name).then(|| value.to_owned())).unwrap()
    }

    /// Waits until something holds; fails if that takes too long or a daemon has ended.
    #[track_caller]
    fn wait(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            let mut daemons = self.daemons.iter_mut();
            let ended = daemons.find_map(|(name, child)| Some((*name, child.try_wait().unwrap()?)));
            let lasts = ended.is_none() && start.elapsed() < READY;
            assert!(lasts, "waited in vain for {what}, ended: {ended:?}\n{}", self.logs());
            sleep(Duration::from_millis(5));
        }
    }

    /// Returns the logs of the daemons.
    fn logs(&self) -> String {
        let logs = all_files(self.folder.path());
        let logs = logs.iter().filter(|path| path.extension().is_some_and(|e| e == "log"));
        let text = |path: &PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        logs.map(|path| format!("{}:\n{}\n", path.display(), text(path))).collect()
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        for (_, child) in &mut self.daemons {
            let _ = child.kill();
            let _ = child.wait();
        }
        // Steps and jobs are nobody's children.
        let own = self.variable();
        for id in processes(&[&own]) {
            // An error says that it has ended.
            drop(Command::new("kill").args(["-KILL", &id.to_string()]).output());
        }
    }
}

/// Submits array and merge as the guide does, with other words for what a user has otherwise. Returns their numbers.
fn submitted(services: &Services, slurm: &Slurm, scratch: &Scratch) -> [String; 2] {
    let page = fs::read_to_string(root().join("docs/guide/cluster.md")).unwrap();
    let block = blocks(&page, "bash").into_iter().find(|block| block.contains("sbatch")).unwrap();
    let mut script = block.to_owned();
    let array = root().join("deploy/array.sbatch").display().to_string();
    let flags = "--parsable --array=1-4 --cpus-per-task=1 --mem=500M";
    for (old, new) in [
        ("--parsable array.sbatch", &*format!("{flags} {array}")),
        (
            "corpus.parquet /shared/my.store",
            &format!("corpus.jsonl store {SETTINGS} --takeover-after 5"),
        ),
        ("--dependency", "--parsable --mem=500M --dependency"),
        ("/shared/my.store", "store"),
    ] {
        assert!(script.contains(old), "the page lost {old:?}: {script}");
        script = script.replace(old, new);
    }
    let mut command = Command::new("timeout");
    command.args(["-k", "1", "60", "bash", "-euo", "pipefail", "-c"]);
    command.arg(format!("{script}\necho $job"));
    // The test may itself run in a job.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["HYPERRAG_", "SLURM", "SBATCH"].iter().any(|start| name.starts_with(start)) {
            command.env_remove(name);
        }
    }
    command.env("PATH", path(services)).env("SLURM_CONF", slurm.file("slurm.conf"));
    command.env("HYPERRAG_HOME", scratch.path("home")).env("HYPERRAG_MODEL", testdata("tiny.gguf"));
    let done = command.current_dir(scratch.path("")).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{script}: {said}{error}\n{}", slurm.logs());
    let [merge, job] = said.split_whitespace().collect::<Vec<_>>().try_into().expect("numbers");
    [job, merge].map(str::to_owned)
}

/// Returns what a job has printed.
fn log(scratch: &Scratch, name: &str) -> String {
    match fs::read_to_string(scratch.path(name)) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => format!("no {name}"),
        Err(error) => panic!("{name}: {error}"),
    }
}

#[test]
fn an_array_of_which_a_task_is_killed_builds_the_store_of_one_machine() {
    let Some(services) = Services::find() else { return };
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", rows());
    scratch.ok(&format!("build corpus.jsonl TINY {SETTINGS} --store whole"));
    let mut slurm = Slurm::start(&services);
    let [array, merge] = submitted(&services, &slurm, &scratch);
    let task = |n: u32| format!("{array}_{n}");
    let printed = |n: u32| log(&scratch, &format!("hyperrag-build-{array}-{n}.log"));

    let store = scratch.path("store");
    // There are as many spans as tasks.
    let own = slurm.variable();
    let [killed, _] = [2, 3].map(|n: u32| {
        slurm.wait("a claim of a task", |_| claim(&store, n - 1).exists());
        freeze(&store, n - 1, &[&own, &format!("SLURM_ARRAY_TASK_ID={n}")])
    });
    signal(killed, "KILL");
    // Slurm wakes it up and asks it to stop.
    slurm.scontrol(&["requeue", &task(3)]);
    slurm.wait("the end of a killed task", |slurm| slurm.field(&task(2), "JobState") == "FAILED");
    assert_eq!(slurm.field(&task(2), "ExitCode"), "0:9", "{}", printed(2));
    slurm.scontrol(&["requeue", &task(2)]);

    slurm.wait("the merge", |slurm| {
        let state = slurm.field(&merge, "JobState");
        assert!(state != "FAILED", "{}", log(&scratch, &format!("slurm-{merge}.out")));
        state == "COMPLETED"
    });
    for n in 1..=4 {
        let done = ["JobState", "ExitCode", "Restarts"].map(|name| slurm.field(&task(n), name));
        let restarts = if n == 2 || n == 3 { "1" } else { "0" };
        assert_eq!(done, ["COMPLETED", "0:0", restarts], "task {n}: {}", printed(n));
    }
    assert!(printed(3).contains("any worker builds the one that was begun"), "{}", printed(3));
    check_equal(&scratch, "store");
    scratch.ok("verify --store store");
}

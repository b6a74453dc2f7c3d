#!/usr/bin/env bash
# Slurm 22.05.8 (Debian 12): `--dependency=afterok:JOB` counts exit codes of attempts that a requeue has undone, if JOB
# is an array. A task fails, `scontrol requeue` starts it again, and it ends with 0: then `scontrol` shows every task
# as COMPLETED with ExitCode=0:0, and a job that depends on the array is never started: DependencyNeverSatisfied. For a
# plain job in the place of the array it is started. The array keeps its highest exit code, which no requeue resets.
#
# Seen, for a job that exits with 1 at first and with 0 when it is started again. The second job is submitted when
# the first is back in the queue:
#   a plain job:          COMPLETED Restarts=1 ExitCode=0:0, dependent job COMPLETED
#   an array of one task: COMPLETED Restarts=1 ExitCode=0:0, dependent job PENDING, DependencyNeverSatisfied
#   the same, afterany:   COMPLETED Restarts=1 ExitCode=0:0, dependent job COMPLETED
#
# It starts a Slurm of one node for the user who runs it, in a folder of its own. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
daemons=()
stop() {
  kill -KILL "${daemons[@]}" 2> /dev/null || true
  # Steps and jobs are nobody's children.
  for process in /proc/[0-9]*; do
    { tr '\0' '\n' < "$process/environ" | grep -qx "SLURM_CONF=$folder/slurm.conf"; } 2> /dev/null || continue
    [ "${process#/proc/}" = $$ ] || kill -KILL "${process#/proc/}" 2> /dev/null || true
  done
  rm -rf "$folder"
}
trap stop EXIT
mkdir "$folder/debs" "$folder/bin" "$folder/state" "$folder/spool"
cd "$folder/debs"
version=22.05.8-*
apt-get -qq download "slurmctld=$version" "slurmd=$version" "slurm-client=$version" \
  "slurm-wlm-basic-plugins=$version" munge=0.5.15-2+deb12u1 libmunge2=0.5.15-2+deb12u1 libhwloc15=2.9.0-1 \
  libnuma1=2.0.16-1 libjson-c5=0.16-2 libyaml-0-2=0.2.5-1 libdbus-1-3=1.14.10-1~deb12u1 liblua5.1-0=5.1.5-9 \
  liblz4-1=1.9.4-1 libreadline8=8.2-1.3 libgcrypt20=1.10.1-3 libgpg-error0=1.46-1 2> "$folder/apt.log" || {
  cat "$folder/apt.log" >&2
  exit 1
}
for package in *.deb; do dpkg -x "$package" "$folder/root"; done
cd "$folder"
plugins=$(dirname "$(find root -name libslurmfull.so)")
libraries=$folder/$plugins:$folder/${plugins%/*}:$folder/root/lib/x86_64-linux-gnu
program() {
  printf '#!/bin/sh\nexec /lib64/ld-linux-x86-64.so.2 --library-path %s %s "$@"\n' "$libraries" "$folder/root/usr/$2" \
    > "bin/$1"
  chmod +x "bin/$1"
}
program munged sbin/munged
for name in slurmctld slurmd slurmstepd; do program $name sbin/$name-wlm; done
for name in sbatch scontrol sinfo; do program $name bin/$name; done
PATH=$folder/bin:$PATH

host=$(hostname -s)
port=$((20000 + $$ % 10000))
head -c 128 /dev/urandom > key
chmod 600 key
cat > slurm.conf << END
ClusterName=finding
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 10000))
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthInfo=socket=$folder/munge,cred_expire=5
PluginDir=$folder/$plugins
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
NodeName=$host NodeAddr=127.0.0.1 CPUs=8
PartitionName=all Nodes=$host Default=YES
END
export SLURM_CONF=$folder/slurm.conf
start() {
  "$@" > "$1.log" 2>&1 &
  daemons+=($!)
}
start munged --foreground --force --key-file="$folder/key" --socket="$folder/munge" --pid-file="$folder/munged.pid" \
  --log-file="$folder/munged.own" --seed-file="$folder/munged.seed"
until [ -S munge ]; do sleep 0.1; done
start slurmctld -D -i
start slurmd -D -N "$host" -d "$folder/bin/slurmstepd"
# until_is SECONDS WORD COMMAND...: waits until the output of a command has a word
until_is() {
  local left=$(($1 * 10)) word=$2
  shift 2
  until "$@" 2>&1 | grep -qw "$word"; do
    [ $((left -= 1)) -gt 0 ] || {
      echo "waited in vain for $word of $*" >&2
      cat ./*.log >&2
      exit 1
    }
    sleep 0.1
  done
}
until_is 60 idle sinfo -h -o %T
sbatch --version

cat > job << 'END'
#!/bin/sh
[ "${SLURM_RESTART_COUNT:-0}" != 0 ]
END
field() { scontrol show job -o "$1" | tr ' ' '\n' | grep -E "^($2)=" | tr '\n' ' '; }
# attempt KIND DEPENDENCY TASK [FLAG...]: a job that fails once, and then one that depends on it
attempt() {
  local kind=$1 dependency=$2 task=$3 job after
  shift 3
  job=$(sbatch --parsable "$@" job)
  until_is 60 JobState=FAILED scontrol show job "$job$task"
  scontrol requeue "$job$task"
  until_is 60 JobState=PENDING scontrol show job "$job$task"
  after=$(sbatch --parsable --dependency="$dependency:$job" --wrap true)
  until_is 60 JobState=COMPLETED scontrol show job "$job$task"
  until_is 60 'COMPLETED\|DependencyNeverSatisfied' scontrol show job "$after"
  # A verdict may be provisional.
  sleep 5
  echo "$kind: $(field "$job$task" 'JobState|Restarts|ExitCode')then $(field "$after" 'JobState|Reason')"
}
{
  attempt "a plain job, afterok" afterok ""
  attempt "an array, afterok" afterok _1 --array=1-1
  attempt "an array, afterany" afterany _1 --array=1-1
} | tee seen
diff seen - << 'END'
a plain job, afterok: JobState=COMPLETED Restarts=1 ExitCode=0:0 then JobState=COMPLETED Reason=None 
an array, afterok: JobState=COMPLETED Restarts=1 ExitCode=0:0 then JobState=PENDING Reason=DependencyNeverSatisfied 
an array, afterany: JobState=COMPLETED Restarts=1 ExitCode=0:0 then JobState=COMPLETED Reason=None 
END

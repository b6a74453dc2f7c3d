#!/usr/bin/env bash
# Builds target/cuda/release/hyperrag, which computes on a CUDA GPU and starts without one.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/build-cuda.sh [--check] [cargo build arguments]

Builds the program with its `cuda` feature, on a machine that needs neither GPU nor CUDA:
the compiler and its headers come as Python packages, into target/cuda-tools, once. The
program has no link-time dependency on any CUDA library: it opens them at first use, so one
file serves machines with and without a GPU.

  --check   only compile-check with a stand-in for nvcc: quick, fetches nothing, links nothing
  --help    this text

Needs rustup's cargo, gcc, ar and python3 with venv and pip. Takes about ten minutes the first
time on two cores. CUDA_COMPUTE_CAP (default 90, Hopper) is the oldest GPU to serve: 80 is
Ampere, 89 Ada. CUDA_TOOLS_DIR is where the compiler lies.
At run time a GPU machine needs a driver for CUDA 13.0 or newer, libcublas.so.13 and
libcurand.so.10; scripts/gpu.sh finds those that came as Python packages.
TEXT
}

cd "$(dirname "$0")/.."
export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90}

case "${1:-}" in
--help | -h)
    usage
    exit
    ;;
--check)
    shift
    stand_in=$PWD/scripts/stand-in
    # A target folder of its own: the stand-in's kernels are empty and must never be linked.
    CUDA_HOME=$stand_in PATH=$stand_in/bin:$PATH \
        exec cargo check --locked --features cuda --target-dir target/check-cuda "$@"
    ;;
esac

tools=${CUDA_TOOLS_DIR:-$PWD/target/cuda-tools}
# CUDA 13.0 on purpose: a driver of the 580 series refuses what a newer compiler makes.
packages="nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88
nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85"
if [ "$(cat "$tools/stamp" 2>/dev/null)" != "$packages" ]; then
    echo "fetching the CUDA compiler into $tools" >&2
    rm -rf "$tools"
    python3 -m venv "$tools"
    # shellcheck disable=SC2086 # a list of words
    "$tools/bin/pip" install -q --disable-pip-version-check --only-binary=:all: $packages
fi
cuda=$(echo "$tools"/lib/python3*/site-packages/nvidia/cu13)
ln -sfn lib "$cuda/lib64"                              # where nvcc links from
ln -sfn libcudart_static.a "$cuda/lib/libcudart.a"     # the package has no libcudart.so to link
cudarc=$(cargo metadata --format-version 1 --features cuda --locked | python3 -c '
import json, os, sys
packages = json.load(sys.stdin)["packages"]
print(next(os.path.dirname(p["manifest_path"]) for p in packages if p["name"] == "cudarc"))')
scripts/cuda-stubs.sh "$cudarc" "$cuda/lib"
echo "$packages" >"$tools/stamp"
export CUDA_HOME=$cuda PATH=$cuda/bin:$PATH NVCC=$cuda/bin/nvcc CUDAFORGE_THREADS=${CUDAFORGE_THREADS:-$(nproc)}
# Without debugging data it is a tenth of the size, and often travels to the GPU's machine.
export CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_STRIP=true
cargo build --release --locked --features cuda --target-dir target/cuda "$@"
ls -l target/cuda/release/hyperrag >&2

#!/usr/bin/env python3
"""scripts/products.py [--rounds N] [--dtype f32|bf16]

Times the products of SmolLM2-135M's layers on one core, 256 rows: hyperrag's (the bench `kernels`) and
oneDNN's (scripts/peers/onednn_products.c, Debian: libdnnl-dev), in turns, N times or 4. Prints the best of
each in GFLOP/s, for what else runs on a shared machine only ever makes them slower, and the ratio.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROWS = 256
# Inputs and outputs, as both programs have them.
LAYERS = {"qkv": (576, 960), "output": (576, 576), "gate_up": (576, 3072), "down": (1536, 576), "head": (576, 1024)}


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"error: `{' '.join(map(str, command))}` ended with exit code {done.returncode}; what it said is above")
    return done.stdout


def onednn(program, compute):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    lines = [line.split() for line in run(program, ROWS, env=environment).splitlines()[1:]]
    return {name: float(f32 if compute == "f32" else bf16) for name, f32, bf16 in lines}


def bench(*options):
    return run("cargo", "bench", "--locked", "--workspace", "--bench", "kernels", "--", *options, stderr=subprocess.DEVNULL)


def hyperrag(kernel):
    """The fastest sample of each product."""
    bench("--warm-up-time", "0.2", "--measurement-time", "1", f"^product/[a-z_]+/{kernel}$")
    rates = {}
    for name, (inputs, outputs) in LAYERS.items():
        path = ROOT / f"target/criterion/product/{name}/{kernel}/new/sample.json"
        sample = json.loads(path.read_text(encoding="utf-8"))
        nanoseconds = min(time / count for time, count in zip(sample["times"], sample["iters"]))
        rates[name] = 2 * ROWS * inputs * outputs / nanoseconds
    return rates


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--dtype", "--compute", choices=["f32", "bf16"], default="bf16")
    args = parser.parse_args()
    program = ROOT / "target/onednn_products"
    program.parent.mkdir(exist_ok=True)
    run("cc", "-O2", "scripts/peers/onednn_products.c", "-ldnnl", "-o", program)
    # The fastest kernel of this machine is the first.
    names = [line.split(":")[0].split("/") for line in bench("--list").splitlines() if line.startswith("product/qkv/")]
    kernel = next(name for _, _, name in names if name.endswith(f"-{args.dtype}"))
    ours, theirs = {}, {}
    for _ in range(args.rounds):
        ours = {name: max(rate, ours.get(name, 0)) for name, rate in hyperrag(kernel).items()}
        theirs = {name: max(rate, theirs.get(name, 0)) for name, rate in onednn(program, args.dtype).items()}
    print("| |", " | ".join(LAYERS), "|")
    print("|---|" + "---|" * len(LAYERS))
    for title, rates in [(f"hyperrag, {kernel}", ours), (f"oneDNN, {args.dtype}", theirs)]:
        print(f"| {title} |", " | ".join(f"{rates[name]:.0f}" for name in LAYERS), "|")
    print("| ratio |", " | ".join(f"{ours[name] / theirs[name]:.2f}" for name in LAYERS), "|")


if __name__ == "__main__":
    main()

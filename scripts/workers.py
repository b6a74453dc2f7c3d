#!/usr/bin/env python3
"""Measures two builders of one thread against one builder of two threads, with a real model, in turns.

The documents are the passages of testdata/, joined to chunks of about 230 tokens. A round builds the same store in
three ways, every other round in the opposite order:

    alone    one `hyperrag build --threads 2`
    one      one `hyperrag build --threads 2 --partition 1/1`, then `hyperrag merge`
    several  two `hyperrag build --threads 1 --partition I/2` at once, then `hyperrag merge`

A ratio is the median over the rounds of the ratio within a round, of tokens a second: of the builders alone, from the
first start to the last end with the loading of models, and with the merge. It fails if the stores differ in a byte of
manifest, shards or chunk files. Run it on a machine that does nothing else.

Prints Markdown, and writes every sample to --out as JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from scale import bytes_below, digests, run_all
from tiers import ROOT, commit, cpu_name, fail, say, texts

AIM = 0.95


def write_corpus(path, documents):
    rows = [{"_id": f"d{number:05}", "text": text} for number, text in enumerate(texts(documents))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def ways(args):
    """Partitions and threads of the builders, by way."""
    several = [(f"{part}/{args.workers}", 1) for part in range(1, args.workers + 1)]
    return {"alone": [(None, args.workers)], "one": [("1/1", args.workers)], "several": several}


def turn(args, folder, corpus, way):
    """Builds the store in one way. Returns the sample, and the store."""
    store = Path(tempfile.mkdtemp(dir=folder, prefix=f"{way}-")) / "store"
    base = [args.hyperrag, "--json", "build", corpus, "--store", store, "--model", args.model, "--device", "cpu"]
    base += ["--dtype", args.dtype, "--unit-rows", args.unit_rows]
    commands = []
    for partition, threads in ways(args)[way]:
        commands.append([*base, "--threads", threads, *(["--partition", partition] if partition else [])])
    seconds, builders = run_all(folder, commands)
    sample = {
        "seconds": seconds,
        "cpu_seconds": sum(builder.cpu for builder in builders),
        "peak_bytes": sum(builder.peak for builder in builders),
        "merge_seconds": 0.0,
        "reports": [json.loads(builder.log.read_text(encoding="utf-8").splitlines()[-1]) for builder in builders],
    }
    if way != "alone":
        sample["merge_seconds"], _ = run_all(folder, [[args.hyperrag, "merge", "--store", store]])
    manifest = json.loads((store / "manifest.json").read_text(encoding="utf-8"))["manifest"]
    sample["tokens"] = sum(shard["tokens"] for shard in manifest["shards"])
    say(f"{way}: {sample['tokens'] / seconds:.0f} tokens/s, {seconds:.1f} s, merge {sample['merge_seconds']:.2f} s")
    return sample, store


def measure(args, folder):
    """The samples of all rounds, by way."""
    corpus = folder / "corpus.jsonl"
    write_corpus(corpus, args.documents)
    samples, expected = {way: [] for way in ways(args)}, None
    for number in range(args.rounds):
        names = list(samples)
        for way in names if number % 2 == 0 else names[::-1]:
            sample, store = turn(args, folder, corpus, way)
            samples[way].append(sample)
            found = digests(store)
            expected = expected or found
            if found != expected:
                fail(f"the store of `{way}` has other bytes")
            sample["store_bytes"] = bytes_below(store)
            subprocess.run(["rm", "-r", str(store.parent)], check=True)
    return samples


def ratio(samples, way, other, seconds):
    """Tokens a second of a way over those of another one, the median of the rounds."""
    pairs = zip(samples[way], samples[other], strict=True)
    return statistics.median(seconds(theirs) / seconds(ours) for ours, theirs in pairs)


def table(args, samples):
    names = {
        "alone": f"one process, {args.workers} threads",
        "one": f"one process, {args.workers} threads, `--partition 1/1`",
        "several": f"{args.workers} processes of one thread, `--partition I/{args.workers}`",
    }
    lines = [
        "| builders | tokens/s | processors | merge | over one process | over `--partition 1/1` | merge included |",
        "|---|---|---|---|---|---|---|",
    ]

    def building(sample):
        return sample["seconds"]

    def in_all(sample):
        return sample["seconds"] + sample["merge_seconds"]

    for way, of in samples.items():
        rate = statistics.median(sample["tokens"] / sample["seconds"] for sample in of)
        cpu = statistics.median(sample["cpu_seconds"] for sample in of)
        merge = statistics.median(sample["merge_seconds"] for sample in of)
        ratios = [ratio(samples, way, "alone", building), ratio(samples, way, "one", building)]
        ratios.append(ratio(samples, way, "alone", in_all))
        cells = [f"{rate:.0f}", f"{cpu:.1f} s", f"{merge:.2f} s", *(f"{number:.3f}" for number in ratios)]
        lines.append(f"| {names[way]} | {' | '.join(cells)} |")
    return lines


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=256, help="documents, one chunk each (256)")
    parser.add_argument("--unit-rows", type=int, default=4, help="documents of a shard; 16 shards are a span (4)")
    parser.add_argument("--workers", type=int, default=2, help="processes, and threads of the one process (2)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the three ways (3)")
    parser.add_argument("--dtype", default="f32", help="type of products (f32)")
    parser.add_argument("--model", default="smollm2-135m", help="model, or a GGUF file")
    parser.add_argument("--hyperrag", type=Path, default=ROOT / "target/release/hyperrag", help="the program")
    parser.add_argument("--folder", type=Path, default=ROOT / "target", help="where the stores are made")
    parser.add_argument("--out", type=Path, default=ROOT / "target/workers.json", help="where the JSON goes")
    args = parser.parse_args()
    if min(args.documents, args.unit_rows, args.workers, args.rounds) < 1:
        parser.error("--documents, --unit-rows, --workers and --rounds are at least 1")
    if not args.hyperrag.exists():
        parser.error(f"{args.hyperrag} is not there: run `make build`")
    args.hyperrag = args.hyperrag.resolve()
    return args


def main():
    args = arguments()
    for name in [name for name in os.environ if name.startswith("HYPERRAG_") and name != "HYPERRAG_HOME"]:
        del os.environ[name]
    conditions = {"cpu": cpu_name(), "load": os.getloadavg()[0], "commit": commit(), "dtype": args.dtype}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="workers-") as folder:
        samples = measure(args, Path(folder))
    report = {"conditions": conditions, "samples": samples}
    args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    spans = samples["several"][0]["reports"][0]["spans"]
    print("\n".join([*table(args, samples), ""]))
    print(
        f"{args.documents} chunks in {spans} spans, {args.model}, {args.dtype}, medians of {args.rounds} rounds, "
        f"{conditions['cpu']}, load {conditions['load']:.1f} at the start, hyperrag at {conditions['commit']}, "
        f"{time.monotonic() - start:.0f} s in all. Equal bytes in all ways."
    )
    found = ratio(samples, "several", "alone", lambda sample: sample["seconds"])
    if found < AIM:
        say(f"{found:.3f} is below the aim of {AIM}")


if __name__ == "__main__":
    main()

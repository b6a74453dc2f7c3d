#!/usr/bin/env python3
"""Measures stores of ten thousand, a hundred thousand and a million chunks, each built by eight processes and merged.

`make scale` compiles what is needed and calls this. For each size it writes tiny documents from a seed (four words
of a vocabulary with Zipf's frequencies; one chunk a document), starts one `hyperrag build --partition I/8` for
each part at once, merges, and measures: build, merge and its peak memory, bytes of every kind of file, opening and
look-ups (the example open_speed), and queries. The model is the tiny one of testdata/, so blocks are as small as the
format allows: 4 KiB. Stores of up to --compare documents are built by one process too, and must have the same bytes.

Prints Markdown, and writes all figures to --out as JSON. The stores of a million chunks need 10 GB in --folder, and
are removed in the end unless --keep is given.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from tiers import ROOT, commit, cpu_name, fail, say

FILES = 8
WORDS = 4
VOCABULARY = 20_000
QUERIES = 20
DEPTH = 100
PROFILE = 'name = "scale"\nscorer = "query-likelihood"\ndocument = "{text}"\ninfix = " "\nquery = "{query}"\n'
TICKS = os.sysconf("SC_CLK_TCK")


def words_of(chance, count):
    """Words by frequency, best first: syllables, so that few look like others."""
    words = set()
    while len(words) < count:
        syllables = (chance.choice("bdfgklmnprstvz") + chance.choice("aeiou") for _ in range(chance.randint(2, 4)))
        words.add("".join(syllables))
    return sorted(words, key=lambda word: (len(word), word))


def write_corpus(folder, documents):
    """Writes documents to JSON lines in several files. Returns queries of words that they have."""
    chance = random.Random(27)
    words = words_of(chance, VOCABULARY)
    sums, total = [], 0.0
    for rank in range(VOCABULARY):
        total += 1 / (rank + 2)
        sums.append(total)
    folder.mkdir()
    for number in range(FILES):
        first, last = number * documents // FILES, (number + 1) * documents // FILES
        with (folder / f"{number}.jsonl").open("w", encoding="ascii") as lines:
            for row in range(first, last):
                text = " ".join(chance.choices(words, cum_weights=sums, k=WORDS))
                lines.write(f'{{"_id":"d{row:08}","text":"{text}"}}\n')
    return [" ".join(chance.choices(words, cum_weights=sums, k=WORDS)) for _ in range(QUERIES)]


class Process:
    """A program whose peak of memory and processor time are watched."""

    def __init__(self, command, log):
        self.command, self.log, self.peak, self.cpu = [str(word) for word in command], log, 0, 0.0
        with log.open("wb") as file:
            self.process = subprocess.Popen(self.command, stdout=file, stderr=file)

    def look(self):
        """Whether it runs. Notes its peak of memory and its processor time so far (proc(5))."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
            fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
            self.cpu = max(self.cpu, (int(fields[11]) + int(fields[12])) / TICKS)
            peaks = [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")]
            self.peak = max([self.peak, *peaks])
        except (OSError, IndexError):
            pass  # It has just ended.
        return self.process.poll() is None

    def check(self):
        if self.process.returncode != 0:
            said = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
            fail(f"`{' '.join(self.command)}` ended with exit code {self.process.returncode}; it said:\n{said}")


def run_all(folder, commands):
    """Runs programs side by side. Returns the seconds, and the programs."""
    start = time.monotonic()
    running = [Process(command, folder / f"log-{number}") for number, command in enumerate(commands)]
    while any([process.look() for process in running]):
        time.sleep(0.02)
    seconds = time.monotonic() - start
    for process in running:
        process.check()
    return seconds, running


def output(command, **options):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, **options)
    if done.returncode != 0:
        fail(f"`{' '.join(map(str, command))}` ended with exit code {done.returncode}; what it said is above")
    return done.stdout


def bytes_below(path):
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())


def entries_below(path):
    return sum(1 for _ in path.rglob("*"))


def digests(store):
    """Digest of each file that one process and many must make alike."""
    files = [store / "manifest.json", *sorted((store / "shards").iterdir()), *sorted((store / "chunks").iterdir())]
    found = {}
    for path in files:
        with path.open("rb") as file:
            found[str(path.relative_to(store))] = hashlib.file_digest(file, "blake2b").hexdigest()
    return found


def process_seconds(command, runs):
    times = []
    for _ in range(runs):
        start = time.monotonic()
        output(command, stderr=subprocess.DEVNULL)
        times.append(time.monotonic() - start)
    return statistics.median(times)


def asked(args, store, queries):
    """Seconds of retrieving and of reranking, medians over the queries of one process, and its first result's."""
    command = [args.hyperrag, "query", "--store", store, *args.options, "--depth", DEPTH, "-k", 10, "--json", "-"]
    lines = "".join(json.dumps({"_id": str(n), "text": query}) + "\n" for n, query in enumerate(queries))
    start = time.monotonic()
    results = [json.loads(line)["stats"] for line in output(command, input=lines).splitlines()]
    whole = time.monotonic() - start
    if len(results) != len(queries) or any(stats["blocks_recomputed"] for stats in results):
        fail("a query has no result, or blocks were damaged")
    median = {name: statistics.median(stats[name] for stats in results) for name in ("retrieve_seconds", "rerank_seconds")}
    return median | {"candidates": statistics.median(stats["candidates"] for stats in results), "process_seconds": whole}


def measured(args, folder, documents):
    """The figures of one size."""
    say(f"{documents} documents: writing them")
    corpus, store = folder / "corpus", folder / "store"
    queries = write_corpus(corpus, documents)
    # One chunk a document: 4 words of at most 8 letters are at most 37 tokens with the infix.
    build = [args.hyperrag, "build", corpus, *args.options, "--kv-dtype", "int8", "--chunk-tokens", 48]
    build += ["--profile", folder / "profile.toml"]
    say(f"{documents} documents: {args.partitions} builders")
    parts = range(1, args.partitions + 1)
    built, builders = run_all(
        folder, [[*build, "--store", store, "--threads", 1, "--partition", f"{part}/{args.partitions}"] for part in parts]
    )
    beside = bytes_below(store / "build") - sum(bytes_below(store / "build" / name) for name in ("shards", "chunks"))
    figures = {
        "documents": documents,
        "build_seconds": built,
        "build_cpu_seconds": sum(builder.cpu for builder in builders),
        "build_peak_bytes": max(builder.peak for builder in builders),
        "claims_bytes": beside,
        "claims_files": sum(entries_below(store / "build" / name) for name in ("spans", "done")),
    }
    say(f"{documents} documents: built in {built:.1f} s; merging")
    seconds, [merge] = run_all(folder, [[args.hyperrag, "merge", "--store", store, "--json"]])
    merged = json.loads(merge.log.read_text(encoding="utf-8").splitlines()[-1])
    figures |= {
        "merge_seconds": seconds,
        "merge_cpu_seconds": merge.cpu,
        "merge_peak_bytes": merge.peak,
        "chunks": merged["chunks"],
        "shards": merged["shards"],
        "spans": merged["spans"],
        "manifest_bytes": (store / "manifest.json").stat().st_size,
        "table_bytes": 64 * merged["chunks"],
        "chunk_file_bytes": bytes_below(store / "chunks"),
        "index_bytes": bytes_below(store / "index"),
        "shard_bytes": bytes_below(store / "shards"),
    }
    if documents <= args.compare:
        say(f"{documents} documents: the same by one process")
        alone = folder / "alone"
        figures["build_alone_seconds"], [process] = run_all(folder, [[*build, "--store", alone]])
        figures["build_alone_cpu_seconds"] = process.cpu
        figures["same_bytes"] = digests(store) == digests(alone)
        if not figures["same_bytes"]:
            fail("the merged store does not have the bytes of the one that one process built")
        shutil.rmtree(alone)
    say(f"{documents} documents: opening, look-ups, queries")
    figures |= json.loads(output([args.open_speed, store, args.runs, args.lookups]))
    figures["info_seconds"] = process_seconds([args.hyperrag, "info", "--store", store, "--json"], args.runs)
    figures["query"] = asked(args, store, queries)
    return figures


def si(value, unit):
    for power, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= power:
            return f"{value / power:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def time_of(seconds):
    for scale, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


ROWS = [
    ("shards, spans", lambda f: f"{f['shards']}, {f['spans']}"),
    ("build", lambda f: time_of(f["build_seconds"])),
    ("build, processors", lambda f: time_of(f["build_cpu_seconds"])),
    ("a builder's peak memory", lambda f: si(f["build_peak_bytes"], "B")),
    ("claims and results of spans", lambda f: f"{f['claims_files']} files, {si(f['claims_bytes'], 'B')}"),
    ("one process: build and index", lambda f: time_of(f["build_alone_seconds"]) if "build_alone_seconds" in f else ""),
    ("merge, index included", lambda f: time_of(f["merge_seconds"])),
    ("merge, processors", lambda f: time_of(f["merge_cpu_seconds"])),
    ("merge's peak memory", lambda f: si(f["merge_peak_bytes"], "B")),
    ("manifest", lambda f: si(f["manifest_bytes"], "B")),
    ("block tables", lambda f: si(f["table_bytes"], "B")),
    ("chunk files", lambda f: si(f["chunk_file_bytes"], "B")),
    ("index", lambda f: si(f["index_bytes"], "B")),
    ("shards", lambda f: si(f["shard_bytes"], "B")),
    ("opening", lambda f: time_of(f["opening"])),
    ("of that, the store and the index", lambda f: f"{time_of(f['opening_store'])}, {time_of(f['opening_index'])}"),
    ("`hyperrag info`, the whole process", lambda f: time_of(f["info_seconds"])),
    ("finding a document by its id", lambda f: time_of(f["find_id"])),
    ("a block, its table not yet read", lambda f: time_of(f["read_block_first"])),
    ("a block", lambda f: time_of(f["read_block"])),
    ("retrieving for a query", lambda f: time_of(f["query"]["retrieve_seconds"])),
    ("reranking", lambda f: time_of(f["query"]["rerank_seconds"])),
]


def table(sizes):
    heads = [si(figures["chunks"], "").strip() for figures in sizes]
    lines = [f"| chunks | {' | '.join(heads)} |", "|---" * (len(sizes) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cell(figures) for figures in sizes)} |" for name, cell in ROWS]
    return lines


def sentences(report):
    sizes, conditions = report["sizes"], report["conditions"]
    lines = []
    if len(sizes) > 1:
        least, most = sizes[0], sizes[-1]
        more = most["documents"] - least["documents"]
        rate = (most["merge_peak_bytes"] - least["merge_peak_bytes"]) / more
        lines.append(f"From the first to the last size the merge's peak grows by {rate:.1f} bytes a document.")
    same = [si(figures["chunks"], "").strip() for figures in sizes if figures.get("same_bytes")]
    if same:
        lines.append(f"The same bytes of shards, chunk files and manifest as one process's: {', '.join(same)} chunks.")
    lines.append(
        f"{conditions['partitions']} builders of one thread at once on {conditions['cores']} cores, {conditions['cpu']}; "
        f"load {conditions['load']:.1f} at the start, hyperrag at {conditions['commit']}."
    )
    return lines


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", default="10000,100000,1000000", help="sizes, with commas between them")
    parser.add_argument("--partitions", type=int, default=8, help="builders (8)")
    parser.add_argument("--compare", type=int, default=100_000, help="largest size that one process builds too (100000)")
    parser.add_argument("--runs", type=int, default=20, help="openings, of which the median counts (20)")
    parser.add_argument("--lookups", type=int, default=100_000, help="blocks that are looked up (100000)")
    parser.add_argument("--model", type=Path, default=ROOT / "testdata/tiny.gguf", help="a tiny model")
    parser.add_argument("--hyperrag", type=Path, default=ROOT / "target/release/hyperrag", help="the program")
    parser.add_argument("--folder", type=Path, default=ROOT / "target", help="where the stores are made")
    parser.add_argument("--keep", action="store_true", help="keep the stores")
    parser.add_argument("--out", type=Path, default=ROOT / "target/scale.json", help="where the JSON goes")
    args = parser.parse_args()
    args.documents = sorted(int(size) for size in args.documents.split(","))
    args.hyperrag = args.hyperrag.resolve()
    args.open_speed = args.hyperrag.parent / "examples/open_speed"
    args.options = ["--model", args.model.resolve(), "--device", "cpu", "--dtype", "f32"]
    if min([args.partitions, args.runs, args.lookups, *args.documents]) < 1:
        parser.error("sizes, --partitions, --runs and --lookups are at least 1")
    for path in (args.hyperrag, args.open_speed, args.model):
        if not path.exists():
            parser.error(f"{path} is not there: run `make scale`")
    return args


def main():
    args = arguments()
    for name in [name for name in os.environ if name.startswith("HYPERRAG_") and name != "HYPERRAG_HOME"]:
        del os.environ[name]
    conditions = {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "partitions": args.partitions,
        "load": os.getloadavg()[0],
        "commit": commit(),
        "system": platform.platform(),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sizes = []
    for documents in args.documents:
        folder = Path(tempfile.mkdtemp(dir=args.folder, prefix=f"scale-{documents}-"))
        try:
            (folder / "profile.toml").write_text(PROFILE, encoding="ascii")
            sizes.append(measured(args, folder, documents))
        finally:
            if args.keep:
                say(f"{documents} documents: kept in {folder}")
            else:
                shutil.rmtree(folder)
    report = {"conditions": conditions, "sizes": sizes}
    args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print("\n".join([*table(sizes), "", *sentences(report)]))


if __name__ == "__main__":
    main()

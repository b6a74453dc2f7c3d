#!/usr/bin/env python3
"""Measures hyperrag against transformers and llama.cpp: the same GGUF, documents and query, one run.

`make compare` installs the peers into target/peers/venv and calls this. It makes a corpus of the
passages in testdata/ in which every document is one chunk of exactly --document-tokens positions,
builds a store of it, and hands the token ids to the peers, so that all compute the same. hyperrag is
measured before and after the peers, with the machine's drift in both halves. Every peer runs with
each precision and with the batch that is fastest for it, and keeps its KV in memory, where hyperrag
reads files. A precision whose prefill is below half of its peer's best is dropped after one sample.

Prints a Markdown table with conditions and ratios, and writes every sample to --out as JSON. Fails
if the scores of transformers in f32 differ by more than rounding, for then the figures would be of
different things.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PASSAGES = ROOT / "testdata/passages.jsonl"
PEERS = {
    "transformers": ("transformers_peer.py", ["f32", "bf16"]),
    "llamacpp": ("llamacpp_peer.py", ["as-is", "bf16", "f16"]),
}
NAMES = {"transformers": "transformers", "llamacpp": "llama.cpp"}
FIGURES = ["prefill", "recompute", "reuse"]
# A document is filled up to its length with these: each is one token of SmolLM's vocabulary.
FILLER = "and this is all that we know about it at this time".split()
QUESTION = "Which passage tells what bees do in winter?"
# By how much a score may differ from transformers in f32: what bf16 KV moves it by, or bf16 products too,
# and what can only be another computation.
ROUNDING, MISMATCH = {"f32": 0.02, "bf16": 0.08, "int8": 0.25}, {"f32": 0.05, "bf16": 0.2, "int8": 0.6}


def fail(message):
    sys.exit(f"error: {message}")


def say(message):
    print(message, file=sys.stderr, flush=True)


def parts(setting):
    """Element type of K and V, and type of the products: ELEMENT/COMPUTE, or COMPUTE with bf16."""
    return setting.split("/", 1) if "/" in setting else ("bf16", setting)


class Hyperrag:
    """The program with the settings of this comparison."""

    def __init__(self, program, model, threads, setting):
        self.program = program
        self.element, compute = parts(setting)
        self.options = ["--model", model, "--device", "cpu", "--threads", threads, "--compute", compute]
        # Nothing but the options decides, and where the models are.
        settings = {name for name in os.environ if name.startswith("HYPERRAG_")} - {"HYPERRAG_HOME"}
        self.environment = {name: value for name, value in os.environ.items() if name not in settings}

    def run(self, *words, options=True):
        """What a command prints."""
        command = [str(word) for word in [self.program, *words, *(self.options if options else [])]]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=self.environment)
        if done.returncode != 0:
            fail(f"`{' '.join(command)}` ended with exit code {done.returncode}; what it said is above")
        return done.stdout

    def build(self, corpus, store, chunk_tokens):
        """Builds a store: positions a second."""
        build = ["build", corpus, "--store", store, "--chunk-tokens", chunk_tokens, "--element", self.element, "--json"]
        summary = json.loads(self.run(*build))
        return summary["tokens_computed"] / summary["seconds"]

    def workload(self, store, queries, depth, path):
        self.run("bench", "--store", store, "--queries", queries, "--depth", depth, "--workload", path)
        return json.loads(path.read_text(encoding="utf-8"))


class Workload:
    """Corpus, query and store, and their token ids at `ids`."""

    def __init__(self, folder, hyperrag, args):
        self.corpus, self.queries = folder / "corpus.jsonl", folder / "queries.jsonl"
        self.store, self.ids = folder / "store", folder / "workload.json"
        self.candidates, self.document_tokens = args.candidates, args.document_tokens
        texts, question = self.draft(args), QUESTION
        self.write(texts, question)
        draft = folder / "draft"
        hyperrag.build(self.corpus, draft, self.document_tokens)
        measured = hyperrag.workload(draft, self.queries, self.candidates, self.ids)
        self.check_draft(measured, args.query_tokens)
        for name, document in zip(measured["ids"], measured["documents"]):
            texts[int(name)] = filled(texts[int(name)], self.document_tokens - len(document))
        question = filled(question, args.query_tokens - len(measured["query"]))
        self.write(texts, question)
        hyperrag.build(self.corpus, self.store, self.document_tokens)
        final = hyperrag.workload(self.store, self.queries, self.candidates, self.ids)
        lengths = {len(document) for document in final["documents"]} | {len(final["query"])}
        if lengths != {self.document_tokens, args.query_tokens} or len(final["documents"]) != self.candidates:
            fail("the tokenizer makes more than one token of a filling word: compare with a SmolLM model")
        self.scores = final["scores"]

    def draft(self, args):
        """Texts of about nine tenths of their length, passage after passage."""
        lines = PASSAGES.read_text(encoding="utf-8").splitlines()
        passages = [json.loads(line)["text"].split() for line in lines]
        words = int(0.7 * (args.document_tokens - 48))
        texts = []
        for number in range(args.candidates):
            text, at = [], number
            while len(text) < words:
                text += passages[at % len(passages)]
                at += 1 + number // len(passages)
            texts.append(" ".join(text[:words]))
        return texts

    def write(self, texts, question):
        # The title has a word of the question, so that BM25 finds every document.
        rows = ({"_id": str(n), "title": f"Passage {n:03}", "text": text} for n, text in enumerate(texts))
        self.corpus.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        self.queries.write_text(json.dumps({"_id": "q", "text": question}) + "\n", encoding="utf-8")

    def check_draft(self, measured, query_tokens):
        if len(measured["query"]) > query_tokens:
            fail(f"the question alone has {len(measured['query'])} tokens: give at least that as --query-tokens")
        if sorted(measured["ids"]) != sorted(map(str, range(self.candidates))):
            fail("the draft of a document does not fit into a chunk: give more --document-tokens")


def filled(text, count):
    return " ".join([text, *(FILLER[i % len(FILLER)] for i in range(count))])


def drop_pages(store):
    """Writes the store's files out and asks the kernel to forget their pages."""
    for path in store.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def cold_reuse(hyperrag, workload):
    """Pairs a second of a query whose blocks are on the disk only, and the bytes that came from it."""
    drop_pages(workload.store)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock
    depth = workload.candidates
    query = ["query", "--store", workload.store, "--queries", workload.queries, "--depth", depth, "-k", 1, "--json"]
    stats = json.loads(hyperrag.run(*query))["stats"]
    blocks = resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock - before
    return {
        "pairs_per_second": stats["candidates"] / stats["rerank_seconds"],
        "bytes_from_disk": 512 * blocks,
        "kv_bytes": stats["bytes_read"],
    }


def measure_hyperrag(hyperrag, workload, runs, folder):
    """One pass over all figures of hyperrag."""
    bench = ["bench", "--store", workload.store, "--queries", workload.queries]
    bench += ["--depth", workload.candidates, "--runs", runs, "--json"]
    report = json.loads(hyperrag.run(*bench))
    prefill = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory(dir=folder) as empty:
            prefill.append(hyperrag.build(workload.corpus, Path(empty) / "store", workload.document_tokens))
    figures = {"prefill": {"samples": prefill}, "conditions": report["conditions"]}
    for mode in ["recompute", "reuse"]:
        samples = [sample for sample in report["samples"] if sample["mode"] == mode]
        figures[mode] = {
            "samples": [sample["blocks"] / sample["seconds"] for sample in samples],
            "peak_memory_bytes": max(sample["peak_memory_bytes"] or 0 for sample in samples),
        }
    figures["bit_equal"] = all(comparison["bit_equal"] for comparison in report["comparisons"])
    figures["reuse_cold"] = [cold_reuse(hyperrag, workload) for _ in range(runs)]
    return figures


def joined(passes, compute):
    """The passes of hyperrag as one row."""
    row = {"name": "hyperrag", "precision": compute, "dropped": None}
    for figure in FIGURES:
        samples = [sample for one in passes for sample in one[figure]["samples"]]
        row[figure] = {"samples": samples, "median": statistics.median(samples)}
    for mode in ["recompute", "reuse"]:
        row[mode]["peak_memory_bytes"] = max(one[mode]["peak_memory_bytes"] for one in passes)
    cold = [sample for one in passes for sample in one["reuse_cold"]]
    median = statistics.median(sample["pairs_per_second"] for sample in cold)
    row["reuse_cold"] = {"samples": cold, "median": median, "pages_dropped_by": "fsync and posix_fadvise DONTNEED"}
    return row


def measure_peer(peer, gguf, workload, folder, args):
    """The rows of a peer, one a precision, and what became of precisions that have none."""
    script, precisions = PEERS[peer]
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["TQDM_DISABLE"] = "1"
    rows, failed, best = [], [], 0.0
    for precision in precisions:
        say(f"{NAMES[peer]}, {precision}")
        command = [args.python, ROOT / "scripts/peers" / script, gguf, "--workload", workload.ids]
        command += ["--precision", precision, "--threads", args.threads, "--runs", args.runs]
        command += ["--at-least", best / 2, "--scratch", folder]
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, env=environment)
        if done.returncode != 0:
            # The others go on: a peer may not run on every machine.
            failed.append(f"{NAMES[peer]}, {precision}, ended with exit code {done.returncode} and has no figures.")
            say(f"warning: {failed[-1]}")
            continue
        row = {"name": NAMES[peer], "precision": precision, **json.loads(done.stdout)}
        for figure in ["recompute", "reuse"]:
            if figure in row:
                row[figure]["score_difference_max"] = difference(row[figure]["scores"], workload.scores)
        best = max(best, row["prefill"]["median"])
        rows.append(row)
    return rows, failed


def difference(scores, reference):
    return max(abs(a - b) for a, b in zip(scores, reference, strict=True))


def ratios(own, peers):
    """How many times as fast hyperrag is; None where a peer was left out."""

    def best(figure, name=None):
        found = [row[figure]["median"] for row in peers if figure in row and name in (None, row["name"])]
        return max(found, default=None)

    def over(mine, theirs):
        return mine / theirs if theirs else None

    prefill, recompute, reuse = (own[figure]["median"] for figure in FIGURES)
    return {
        "prefill_over_transformers": over(prefill, best("prefill", "transformers")),
        "prefill_over_llamacpp": over(prefill, best("prefill", "llama.cpp")),
        "reuse_over_best_peer_reuse": over(reuse, best("reuse")),
        "reuse_over_best_peer_recompute": over(reuse, best("recompute")),
        "reuse_over_own_recompute": reuse / recompute,
        "reuse_cold_over_own_recompute": own["reuse_cold"]["median"] / recompute,
    }


def table(rows):
    """The figures as a Markdown table."""
    lines = [
        "| | prefill tokens/s | recompute pairs/s | reuse pairs/s | reuse from disk | peak memory, recompute / reuse |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = f"{row['name']}, {row['precision']}"
        cells = [f"{row['prefill']['median']:.0f}", "dropped", "dropped", "", ""]
        if not row["dropped"]:
            peaks = [row[mode]["peak_memory_bytes"] / 2**30 for mode in ["recompute", "reuse"]]
            pairs = [f"{row[mode]['median']:.2f}" for mode in ["recompute", "reuse"]]
            cold = f"{row['reuse_cold']['median']:.2f}" if "reuse_cold" in row else ""
            cells[1:] = [*pairs, cold, " / ".join(f"{peak:.2f} GiB" for peak in peaks)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def ratio_table(ratios_by_compute):
    """The ratios as a Markdown table."""
    lines = ["| ratios | " + " | ".join(ratios_by_compute) + " |", "|---" * (1 + len(ratios_by_compute)) + "|"]
    for name in next(iter(ratios_by_compute.values())):
        values = [ratios[name] for ratios in ratios_by_compute.values()]
        cells = ["" if value is None else f"{value:.2f}" for value in values]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    return lines


def describe(report):
    """The lines below the table."""
    conditions, workload = report["conditions"], report["workload"]
    versions = {"hyperrag": f"{conditions['version']} at {conditions['commit']}", **conditions["peers"]}
    lines = [f"{row['name']}, {row['precision']}: {row['dropped']}." for row in report["rows"] if row["dropped"]]
    lines += report["failed"]
    lines.append(
        f"{workload['candidates']} documents of {workload['document_tokens']} tokens, a query of "
        f"{workload['query_tokens']}; medians of {report['runs']} runs ({2 * report['runs']} of hyperrag). "
        f"{conditions['cpu']}, {conditions['threads']} threads, steal {conditions['steal_percent']:.1f} %, "
        f"bf16 KV, or that before the stroke, from {conditions['io']}, kernel {conditions['kernel']}, "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "."
    )
    for row in report["rows"]:
        if "reuse_cold" not in row:
            continue
        cold = row["reuse_cold"]
        read = statistics.median(sample["bytes_from_disk"] / max(1, sample["kv_bytes"]) for sample in cold["samples"])
        lines.append(
            f"Reuse from disk, {row['precision']}: the store's pages dropped before ({cold['pages_dropped_by']}), "
            f"{100 * read:.0f} % of the KV's bytes came from the disk."
        )
    for row in report["rows"]:
        if "score_difference_max" in row.get("recompute", {}):
            both = [row[mode]["score_difference_max"] for mode in ["recompute", "reuse"]]
            lines.append(
                f"Largest difference of a score of {row['name']}, {row['precision']}: "
                f"{both[0]:.1e} recomputed, {both[1]:.1e} reused."
            )
    return lines


def processor_times():
    """Ticks stolen by other machines, and all ticks (proc(5), /proc/stat)."""
    ticks = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    return ticks[7], sum(ticks)


def commit():
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout.strip() or "an unknown commit"


def compare(folder, args):
    """Measures everything, one after the other."""
    computing = {compute: Hyperrag(args.hyperrag, args.model, args.threads, compute) for compute in args.compute}
    info = computing[args.compute[0]].run("model", "info", args.model, "--json", options=False)
    gguf = Path(json.loads(info)["path"])
    start, began, compared = processor_times(), time.time(), commit()
    workloads, passes = {}, {compute: [] for compute in args.compute}
    for compute, hyperrag in computing.items():
        say(f"hyperrag, {compute}, before the peers")
        own_folder = folder / compute.replace("/", "-")
        own_folder.mkdir()
        workloads[compute] = Workload(own_folder, hyperrag, args)
        passes[compute].append(measure_hyperrag(hyperrag, workloads[compute], args.runs, folder))
    measured = [measure_peer(peer, gguf, workloads[args.compute[0]], folder, args) for peer in args.peers]
    peers = [row for rows, _ in measured for row in rows]
    for compute, hyperrag in computing.items():
        say(f"hyperrag, {compute}, after the peers")
        passes[compute].append(measure_hyperrag(hyperrag, workloads[compute], args.runs, folder))
    own, end = {compute: joined(passes[compute], compute) for compute in args.compute}, processor_times()
    return {
        "workload": {name: getattr(args, name) for name in ["candidates", "document_tokens", "query_tokens"]},
        "runs": args.runs,
        "conditions": {
            **passes[args.compute[0]][0]["conditions"],
            "kernel": ", ".join(both[0]["conditions"]["kernel"] for both in passes.values()),
            "threads": args.threads,
            "steal_percent": 100 * (end[0] - start[0]) / max(1, end[1] - start[1]),
            "seconds": time.time() - began,
            "commit": compared,
            "system": platform.platform(),
            "gguf": gguf.name,
            "peers": {name: version for row in peers for name, version in row["versions"].items()},
        },
        "rows": [*own.values(), *peers],
        "failed": [line for _, failed in measured for line in failed],
        "hyperrag_passes": passes,
        "ratios": ratios(own[args.compute[-1]], peers),
        "ratios_by_compute": {compute: ratios(row, peers) for compute, row in own.items()},
    }


def check_scores(report):
    """Ends with 1 where something else was computed than by hyperrag."""
    if not all(one["bit_equal"] for both in report["hyperrag_passes"].values() for one in both):
        fail("hyperrag's own scores differ between reuse and recompute; `hyperrag verify` may say why")
    for row in report["rows"]:
        if (row["name"], row["precision"]) != ("transformers", "f32"):
            continue
        largest = max(row[mode]["score_difference_max"] for mode in ["recompute", "reuse"])
        _, compute = parts(report["rows"][0]["precision"])
        if largest > MISMATCH[compute]:
            fail(f"transformers in f32 differs from hyperrag by {largest:.3f}: the figures are of different computations")
        if largest > ROUNDING[compute]:
            say(f"warning: transformers in f32 differs from hyperrag by {largest:.3f}, more than {ROUNDING[compute]}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=100, help="documents, at most 256 (100)")
    parser.add_argument("--document-tokens", type=int, default=256, help="positions of a document (256)")
    parser.add_argument("--query-tokens", type=int, default=20, help="tokens of the query (20)")
    parser.add_argument(
        "--compute",
        default="bf16,int8,int8/bf16",
        help="products of hyperrag, each a row, ELEMENT/COMPUTE for K and V of another type than bf16; the last one's "
        "ratios lead (bf16,int8,int8/bf16)",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of every program (one a core)")
    parser.add_argument("--runs", type=int, default=3, help="samples of every figure, of hyperrag twice that (3)")
    parser.add_argument("--peers", default=",".join(PEERS), help="transformers, llamacpp, or both with a comma")
    parser.add_argument("--hyperrag", type=Path, default=ROOT / "target/release/hyperrag", help="the program")
    parser.add_argument("--python", type=Path, default=ROOT / "target/peers/venv/bin/python", help="one with the peers")
    parser.add_argument("--model", default="smollm2-135m", help="model of hyperrag, or a GGUF file")
    parser.add_argument("--out", type=Path, default=ROOT / "target/compare.json", help="where the JSON goes")
    args = parser.parse_args()
    args.peers = [peer for peer in args.peers.split(",") if peer]
    args.compute = args.compute.split(",")
    if not {parts(setting)[1] for setting in args.compute} <= set(ROUNDING):
        parser.error(f"--compute takes {', '.join(ROUNDING)}, with commas between them, each after ELEMENT/ if need be")
    unknown = set(args.peers) - set(PEERS)
    if unknown:
        parser.error(f"no peer is called {', '.join(sorted(unknown))}: there are {', '.join(PEERS)}")
    if not 1 <= args.candidates <= 256:
        parser.error("--candidates is a number from 1 to 256: llama.cpp keeps no more sequences")
    if args.runs < 1 or args.threads < 1:
        parser.error("--runs and --threads are at least 1")
    for program, target in [(args.hyperrag, "build"), (args.python, "compare")]:
        if not program.exists():
            parser.error(f"{program} is not there: run `make {target}`")
    return args


def main():
    args = arguments()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix="compare-") as folder:
        report = compare(Path(folder), args)
    args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    lines = [*table(report["rows"]), "", *describe(report), "", *ratio_table(report["ratios_by_compute"])]
    print("\n".join(lines))
    check_scores(report)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Measures hyperrag against transformers and llama.cpp: the same GGUF, documents and query, one run.

`make compare` installs the peers into target/peers/venv and calls this. It makes a corpus of the
passages in testdata/ in which every document is one chunk of exactly --document-tokens positions,
builds a store of it, and hands the token ids to the peers, so that all compute the same. Every peer runs
with each precision and with the batch that is fastest for it, and keeps its KV in memory, where hyperrag
reads files.

All programs stay in memory and are measured in turns, sample by sample, for --runs rounds, every other
round in the opposite order: machines have faster and slower minutes. A ratio is the median over the
rounds of the ratio within a round. A precision whose prefill is below half of its peer's best is dropped,
or measured in the first round only.

Prints a Markdown table with conditions and ratios, and writes every sample to --out as JSON. Fails
if the scores of transformers in f32 differ by more than rounding, for then the figures would be of
different things.
"""

import argparse
import json
import os
import platform
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
# What is sampled in a round, of each program that has it: what takes a second more often, and around what takes long.
ROUND = "prefill prefill build reuse reuse recompute reuse reuse reuse_cold reuse_cold".split()
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
        self.options = ["--model", model, "--device", "cpu", "--threads", threads, "--dtype", compute]
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

    def build(self, corpus, store, chunk_tokens, dry=False):
        """Builds a store, or computes a part of it and writes nothing: positions a second."""
        build = ["build", corpus, "--store", store, "--chunk-tokens", chunk_tokens, "--kv-dtype", self.element, "--json"]
        summary = json.loads(self.run(*build, *(["--dry-run"] if dry else [])))
        return summary["tokens_per_second"] if dry else summary["tokens_computed"] / summary["seconds"]

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
        self.scores, self.question = final["scores"], question
        self.kv_bytes = sum(path.stat().st_size for path in (self.store / "shards").iterdir())

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


class Asked:
    """A program that stays in memory and answers lines with lines of JSON."""

    def __init__(self, name, command, environment):
        self.name = name
        command = [str(word) for word in command]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)

    def answer(self):
        line = self.process.stdout.readline()
        try:
            return json.loads(line)
        except json.JSONDecodeError:
            self.process.stdout.read()
            raise EndedError(f"{self.name} ended with exit code {self.process.wait()}") from None

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self):
        self.process.stdin.close()
        self.process.wait()


class EndedError(Exception):
    """A program ended before its answer."""


class Own:
    """hyperrag with a setting, ready to be measured."""

    figures = ["prefill", "build", "recompute", "reuse", "reuse_cold"]

    def __init__(self, hyperrag, workload, setting, folder):
        self.hyperrag, self.workload, self.folder = hyperrag, workload, folder
        depth = workload.candidates
        bench = ["bench", "--store", workload.store, "--queries", workload.queries, "--depth", depth, "--runs", 1]
        self.report = json.loads(hyperrag.run(*bench, "--json"))
        self.row = {"name": "hyperrag", "precision": setting, "dropped": None}
        self.row |= {figure: {"samples": []} for figure in self.figures}
        for sample in self.report["samples"]:
            self.row[sample["mode"]]["peak_memory_bytes"] = sample["peak_memory_bytes"] or 0
        query = [hyperrag.program, "query", "--store", workload.store, "--depth", depth, "-k", 1, "--json", "-"]
        self.reuse = Asked("hyperrag query", [*query, *hyperrag.options], hyperrag.environment)
        self.recompute = Asked("hyperrag query", [*query, "--recompute", *hyperrag.options], hyperrag.environment)
        self.cold = []

    def sample(self, figure):
        """Tokens or pairs a second."""
        if figure in ("prefill", "build"):
            with tempfile.TemporaryDirectory(dir=self.folder) as empty:
                return self.hyperrag.build(
                    self.workload.corpus, Path(empty) / "store", self.workload.document_tokens, figure == "prefill"
                )
        if figure == "reuse_cold":
            return self.sample_cold()
        return self.pairs(self.reuse if figure == "reuse" else self.recompute)

    def pairs(self, program):
        stats = program.ask(self.workload.question)["stats"]
        return stats["candidates"] / stats["rerank_seconds"]

    def sample_cold(self):
        """Of a query whose blocks are on the disk only; and the share of them that came from it."""
        drop_pages(self.workload.store)
        counters = Path(f"/proc/{self.reuse.process.pid}/io")

        def from_disk():
            lines = dict(line.split(": ") for line in counters.read_text(encoding="ascii").splitlines())
            return int(lines["read_bytes"])

        before = from_disk()
        rate = self.pairs(self.reuse)
        self.cold.append((from_disk() - before) / max(1, self.workload.kv_bytes))
        return rate

    def end(self):
        self.reuse.end()
        self.recompute.end()


class Peer:
    """A peer with a precision, ready to be measured."""

    def __init__(self, peer, precision, gguf, workload, folder, args, at_least):
        script, _ = PEERS[peer]
        environment = os.environ | {"OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        environment["TQDM_DISABLE"] = "1"
        command = [args.python, ROOT / "scripts/peers" / script, gguf, "--workload", workload.ids]
        command += ["--precision", precision, "--threads", args.threads]
        command += ["--at-least", at_least, "--scratch", folder]
        self.program = Asked(f"{NAMES[peer]}, {precision},", command, environment)
        self.row = {"name": NAMES[peer], "precision": precision, **self.program.answer()}
        self.figures = [] if self.row["dropped"] else FIGURES
        for figure in self.figures:
            self.row[figure]["samples"] = []
        for figure in ["recompute", "reuse"] if self.figures else []:
            self.row[figure]["score_difference_max"] = difference(self.row[figure]["scores"], workload.scores)

    def best_prefill(self):
        return max(self.row["prefill"].get("trials", {}).values(), default=0.0)

    def sample(self, figure):
        return self.program.ask(figure)

    def end(self):
        self.program.end()


def start_peers(gguf, workload, folder, args):
    """The peers that run here, and what became of the others."""
    started, failed = [], []
    for peer in args.peers:
        best = 0.0
        for precision in PEERS[peer][1]:
            say(f"{NAMES[peer]}, {precision}: looking for the fastest batch")
            try:
                started.append(Peer(peer, precision, gguf, workload, folder, args, best / 2))
                best = max(best, started[-1].best_prefill())
            except EndedError as error:
                # The others go on: a peer may not run on every machine.
                failed.append(f"{error} and has no figures.")
                say(f"warning: {failed[-1]}")
    return started, failed


def measure(programs, runs):
    """Takes all samples, in turns."""
    for number in range(runs):
        order = programs if number % 2 == 0 else programs[::-1]
        for program in programs:
            for figure in program.figures:
                program.row[figure]["samples"].append([])
        for figure in ROUND:
            for program in order:
                if figure in program.figures:
                    rate = program.sample(figure)
                    program.row[figure]["samples"][-1].append(rate)
                    say(f"round {number + 1}: {program.row['name']}, {program.row['precision']}, {figure} {rate:.2f}")
        drop_slow(programs)
    for program in programs:
        for figure in Own.figures:
            if program.row.get(figure, {}).get("samples"):
                rates = [rate for one in program.row[figure]["samples"] for rate in one]
                program.row[figure]["median"] = statistics.median(rates)


def drop_slow(programs):
    """Measures no more what is below half of the best of its name."""
    peers = [program for program in programs if isinstance(program, Peer) and program.figures]
    last = {peer: peer.row["prefill"]["samples"][-1][0] for peer in peers}
    for peer in peers:
        best = max(rate for other, rate in last.items() if other.row["name"] == peer.row["name"])
        if last[peer] < best / 2:
            peer.figures = []


def difference(scores, reference):
    return max(abs(a - b) for a, b in zip(scores, reference, strict=True))


def ratios(own, peers):
    """How many times as fast hyperrag is, the median over the rounds; None where a peer was left out."""

    def best(figure, name=None):
        found = [row for row in peers if "median" in row.get(figure, {}) and name in (None, row["name"])]
        return max(found, key=lambda row: row[figure]["median"], default=None)

    def over(figure, row, other=None):
        if row is None:
            return None
        both = zip(own[figure]["samples"], row[other or figure]["samples"])
        return statistics.median(statistics.median(mine) / statistics.median(theirs) for mine, theirs in both)

    return {
        "prefill_over_transformers": over("prefill", best("prefill", "transformers")),
        "prefill_over_llamacpp": over("prefill", best("prefill", "llama.cpp")),
        "reuse_over_best_peer_reuse": over("reuse", best("reuse")),
        "reuse_over_best_peer_recompute": over("reuse", best("recompute"), "recompute"),
        "reuse_over_own_recompute": over("reuse", own, "recompute"),
        "reuse_cold_over_own_recompute": over("reuse_cold", own, "recompute"),
        "build_over_prefill": over("build", own, "prefill"),
    }


def table(rows):
    """The figures as a Markdown table."""
    lines = [
        "| | prefill tokens/s | recompute pairs/s | reuse pairs/s | reuse from disk | peak memory, recompute / reuse |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = f"{row['name']}, {row['precision']}"
        cells = [f"{row['prefill'].get('first', 0):.0f}", "dropped", "dropped", "", ""]
        if not row["dropped"]:
            cells[0] = f"{row['prefill']['median']:.0f}"
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
        f"{workload['query_tokens']}; medians of {report['runs']} rounds. "
        f"{conditions['cpu']}, {conditions['threads']} threads, steal {conditions['steal_percent']:.1f} %, "
        f"bf16 KV, or that before the stroke, from {conditions['io']}, kernel {conditions['kernel']}, "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "."
    )
    for row in report["rows"]:
        if "reuse_cold" not in row:
            continue
        lines.append(
            f"Reuse from disk, {row['precision']}: the store's pages dropped before (fsync and posix_fadvise DONTNEED), "
            f"{100 * statistics.median(row['reuse_cold']['from_disk']):.0f} % of the KV's bytes came from the disk."
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
    computing = {compute: Hyperrag(args.hyperrag, args.model, args.threads, compute) for compute in args.dtype}
    info = computing[args.dtype[0]].run("model", "info", args.model, "--json", options=False)
    gguf = Path(json.loads(info)["path"])
    start, began, compared = processor_times(), time.time(), commit()
    own = []
    for setting, hyperrag in computing.items():
        say(f"hyperrag, {setting}: building a store")
        own_folder = folder / setting.replace("/", "-")
        own_folder.mkdir()
        own.append(Own(hyperrag, Workload(own_folder, hyperrag, args), setting, own_folder))
    peers, failed = start_peers(gguf, own[0].workload, folder, args)
    try:
        measure([*own, *peers], args.runs)
    except EndedError as error:
        fail(f"{error}; what it said is above, and --peers leaves others out")
    for program in [*own, *peers]:
        program.end()
    for program in own:
        program.row["reuse_cold"]["from_disk"] = program.cold
    end, rows = processor_times(), [program.row for program in peers]
    ratios_by_compute = {program.row["precision"]: ratios(program.row, rows) for program in own}
    return {
        "workload": {name: getattr(args, name) for name in ["candidates", "document_tokens", "query_tokens"]},
        "runs": args.runs,
        "conditions": {
            **own[0].report["conditions"],
            "kernel": ", ".join(dict.fromkeys(program.report["conditions"]["kernel"] for program in own)),
            "threads": args.threads,
            "steal_percent": 100 * (end[0] - start[0]) / max(1, end[1] - start[1]),
            "seconds": time.time() - began,
            "commit": compared,
            "system": platform.platform(),
            "gguf": gguf.name,
            "peers": {name: version for row in rows for name, version in row["versions"].items()},
        },
        "rows": [program.row for program in own] + rows,
        "failed": failed,
        "bit_equal": all(one["bit_equal"] for program in own for one in program.report["comparisons"]),
        "ratios": ratios_by_compute[args.dtype[-1]],
        "ratios_by_compute": ratios_by_compute,
    }


def check_scores(report):
    """Ends with 1 where something else was computed than by hyperrag."""
    if not report["bit_equal"]:
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
        "--dtype",
        "--compute",
        default="bf16,int8,int8/bf16",
        help="products of hyperrag, each a row, ELEMENT/COMPUTE for K and V of another type than bf16; the last one's "
        "ratios lead (bf16,int8,int8/bf16)",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of every program (one a core)")
    parser.add_argument("--runs", type=int, default=3, help="rounds of samples (3)")
    parser.add_argument("--peers", default=",".join(PEERS), help="transformers, llamacpp, or both with a comma")
    parser.add_argument("--hyperrag", type=Path, default=ROOT / "target/release/hyperrag", help="the program")
    parser.add_argument("--python", type=Path, default=ROOT / "target/peers/venv/bin/python", help="one with the peers")
    parser.add_argument("--model", default="smollm2-135m", help="model of hyperrag, or a GGUF file")
    parser.add_argument("--out", type=Path, default=ROOT / "target/compare.json", help="where the JSON goes")
    args = parser.parse_args()
    args.peers = [peer for peer in args.peers.split(",") if peer]
    args.dtype = args.dtype.split(",")
    if not {parts(setting)[1] for setting in args.dtype} <= set(ROUNDING):
        parser.error(f"--dtype takes {', '.join(ROUNDING)}, with commas between them, each after ELEMENT/ if need be")
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

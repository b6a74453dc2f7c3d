"""What the peers share: the workload, the clock, the memory, and how the best batch is found.

A peer is an object with
    versions                     names and versions of what computes
    batches                      for prefill, recompute and reuse the numbers of documents to try at once
    prefill(batch, documents)    computes the documents' KV and forgets it
    recompute(batch, documents)  computes documents and query; the scores
    keep(documents)              computes the documents' KV and keeps it in memory
    reuse(batch, count)          computes the query after the first documents kept; the scores
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

# Documents that prefill is timed with, and with which batches are tried.
PREFILL_DOCUMENTS = 16
TRIAL_DOCUMENTS = 8


@dataclass
class Workload:
    """Token ids, as `hyperrag bench --workload` writes them; all documents have the same length."""

    query: list[int]
    documents: list[list[int]]

    @classmethod
    def load(cls, path):
        written = json.loads(Path(path).read_text(encoding="utf-8"))
        workload = cls(written["query"], written["documents"])
        if len({len(document) for document in workload.documents}) != 1:
            sys.exit(f"error: {path}: the documents have different lengths, which the peers would pad; make them anew")
        return workload

    @property
    def document_tokens(self):
        return len(self.documents[0])

    def without_last(self, documents):
        """Documents and query as one sequence each; the query's last token is only predicted."""
        return [document + self.query[:-1] for document in documents]


def arguments(description, precisions):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--workload", required=True, help="written by `hyperrag bench --workload`")
    parser.add_argument("--precision", choices=precisions, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--runs", type=int, default=3, help="samples of every figure")
    parser.add_argument("--at-least", type=float, default=0.0, help="give up if the first prefill makes fewer tokens/s")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for files that are made on the way")
    return parser.parse_args()


def reset_peak_memory():
    """Starts the peak again from what is held now; where the system refuses, the peak stays."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        pass


def peak_memory_bytes():
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def rate(work, amount):
    """Runs `work`: amount a second, and what it returned."""
    start = time.perf_counter()
    result = work()
    return amount / (time.perf_counter() - start), result


def sample(work, amount, runs):
    """Times `work`: every rate, the peak memory, and the last result."""
    reset_peak_memory()
    rates = []
    for _ in range(runs):
        one, result = rate(work, amount)
        rates.append(one)
    return {"samples": rates, "median": statistics.median(rates), "peak_memory_bytes": peak_memory_bytes()}, result


def fastest(work, batches, amount):
    """The batch with the best rate of one run each, after one that is not timed; and all rates."""
    work(batches[0])
    trials = {batch: rate(lambda batch=batch: work(batch), amount)[0] for batch in batches}
    return max(trials, key=trials.get), trials


def measure(peer, workload, runs, at_least):
    """All figures of a peer; `dropped` says why there are none but the first."""
    documents, length = workload.documents, workload.document_tokens
    report = {"versions": peer.versions, "dropped": None}
    few, trial = documents[:PREFILL_DOCUMENTS], documents[:TRIAL_DOCUMENTS]
    batches = {name: sorted({min(size, len(documents)) for size in sizes}) for name, sizes in peer.batches.items()}

    peer.prefill(1, trial[:1])
    first, _ = rate(lambda: peer.prefill(1, trial[:4]), len(trial[:4]) * length)
    if first < at_least:
        report["dropped"] = f"prefill makes {first:.0f} tokens/s, less than half of this peer's best"
        report["prefill"] = {"samples": [first], "median": first, "batch": 1}
        return report

    batch, trials = fastest(lambda b: peer.prefill(b, trial), batches["prefill"], len(trial) * length)
    report["prefill"], _ = sample(lambda: peer.prefill(batch, few), len(few) * length, runs)
    report["prefill"] |= {"batch": batch, "trials": trials}

    batch, trials = fastest(lambda b: peer.recompute(b, trial), batches["recompute"], len(trial))
    report["recompute"], scores = sample(lambda: peer.recompute(batch, documents), len(documents), runs)
    report["recompute"] |= {"batch": batch, "trials": trials, "scores": scores}

    peer.keep(documents)
    batch, trials = fastest(lambda b: peer.reuse(b, len(documents)), batches["reuse"], len(documents))
    report["reuse"], scores = sample(lambda: peer.reuse(batch, len(documents)), len(documents), runs)
    report["reuse"] |= {"batch": batch, "trials": trials, "scores": scores}
    return report

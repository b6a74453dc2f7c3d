"""What the peers share: the workload, the clock, the memory, how the best batch is found, and how they are asked.

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


def fastest(work, batches, amount):
    """The batch with the best rate of a run, or two of those that come near, after one that is not timed; and
    these rates."""
    work(batches[0])
    trials = {batch: rate(lambda batch=batch: work(batch), amount)[0] for batch in batches}
    near = [batch for batch in batches if trials[batch] > 0.7 * max(trials.values())]
    for batch in near if len(near) > 1 else []:
        trials[batch] = max(trials[batch], rate(lambda batch=batch: work(batch), amount)[0])
    return max(trials, key=trials.get), trials


def prepare(peer, workload, at_least):
    """Finds the best batches, and computes everything once: what it found, and for each figure what gives a rate."""
    documents, length = workload.documents, workload.document_tokens
    report = {"versions": peer.versions, "dropped": None}
    few, trial = documents[:PREFILL_DOCUMENTS], documents[:TRIAL_DOCUMENTS]
    batches = {name: sorted({min(size, len(documents)) for size in sizes}) for name, sizes in peer.batches.items()}

    peer.prefill(1, trial[:1])
    first, _ = rate(lambda: peer.prefill(1, trial[:4]), len(trial[:4]) * length)
    if first < at_least:
        report["dropped"] = f"prefill makes {first:.0f} tokens/s, less than half of this peer's best"
        report["prefill"] = {"first": first, "batch": 1}
        return report, {}

    prefill, trials = fastest(lambda b: peer.prefill(b, trial), batches["prefill"], len(trial) * length)
    report["prefill"] = {"batch": prefill, "trials": trials}

    reset_peak_memory()
    recompute, trials = fastest(lambda b: peer.recompute(b, trial), batches["recompute"], len(trial))
    scores = peer.recompute(recompute, documents)
    report["recompute"] = {"batch": recompute, "trials": trials, "scores": scores, "peak_memory_bytes": peak_memory_bytes()}

    peer.keep(documents)
    reset_peak_memory()
    reuse, trials = fastest(lambda b: peer.reuse(b, len(documents)), batches["reuse"], len(documents))
    scores = peer.reuse(reuse, len(documents))
    report["reuse"] = {"batch": reuse, "trials": trials, "scores": scores, "peak_memory_bytes": peak_memory_bytes()}
    return report, {
        "prefill": lambda: rate(lambda: peer.prefill(prefill, few), len(few) * length)[0],
        "recompute": lambda: rate(lambda: peer.recompute(recompute, documents), len(documents))[0],
        "reuse": lambda: rate(lambda: peer.reuse(reuse, len(documents)), len(documents))[0],
    }


def serve(peer, workload, at_least):
    """Prints a line of JSON with what it prepared, then a rate for each line of stdin that names a figure."""
    report, rates = prepare(peer, workload, at_least)
    print(json.dumps(report), flush=True)
    for line in sys.stdin:
        print(json.dumps(rates[line.strip()]()), flush=True)

#!/usr/bin/env python3
"""usage: scripts/agreement.py CORPUS QUERIES [--qrels FILE] [--count N] [--depth N] [--elements NAME,...]

Builds a store of CORPUS in each element type, ranks the first N queries from each, and prints how
the rankings agree with those from the first: Kendall's tau (b) and the overlap of the best ten, means
over the queries with their standard errors, and with --qrels nDCG@10 and its paired difference.
`bf16/bf16` is an element type with the type that products are computed in, which is f32 without it.
Takes target/release/hyperrag; stores go to a temporary folder in target/.
"""

import argparse
import json
import math
import statistics
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HYPERRAG = ROOT / "target/release/hyperrag"


def run(*command):
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout


def scores(store, queries, depth):
    """For each query the candidates with their scores."""
    lines = run(HYPERRAG, "query", "--store", store, "--queries", queries, "--json", "--depth", depth, "-k", depth)
    answers = [json.loads(line) for line in lines.splitlines()]
    return {a["query_id"]: {hit["id"]: hit["model_score"] for hit in a["hits"]} for a in answers}


def tau(a, b):
    """Kendall's tau-b over the documents of both, quadratic and plain."""
    ids = sorted(a.keys() & b.keys())
    agree = ties_a = ties_b = pairs = 0
    for i, x in enumerate(ids):
        for y in ids[:i]:
            da, db = a[x] - a[y], b[x] - b[y]
            pairs += 1
            ties_a += da == 0
            ties_b += db == 0
            agree += (da * db > 0) - (da * db < 0)
    norm = math.sqrt((pairs - ties_a) * (pairs - ties_b))
    return agree / norm if norm else 1.0


def overlap(a, b):
    best = [set(sorted(scores, key=scores.get, reverse=True)[:10]) for scores in (a, b)]
    return len(best[0] & best[1]) / max(1, len(best[0]))


def judgements(path):
    """Graded judgements of each query, from a file of BEIR: query, document, grade; a header."""
    qrels = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        qrels.setdefault(query, {})[document] = int(grade)
    return qrels


def ndcg(scores, grades):
    """nDCG@10 with the grades as gains (Jarvelin and Kekalainen 2002); ties by document."""
    def dcg(gains):
        return sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains[:10]))

    ranked = sorted(scores, key=lambda document: (-scores[document], document))
    best = dcg(sorted(grades.values(), reverse=True))
    return dcg([grades.get(document, 0) for document in ranked]) / best if best else 0.0


def mean(values):
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {error:.3f}"


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("corpus")
    parser.add_argument("queries")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--elements", default="f32,bf16,int8,int5,int4")
    parser.add_argument("--qrels")
    args = parser.parse_args()
    qrels = judgements(args.qrels) if args.qrels else {}
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as folder:
        queries, store = Path(folder) / "queries.jsonl", Path(folder) / "store"
        lines = Path(args.queries).read_text(encoding="utf-8").splitlines(keepends=True)
        queries.write_text("".join(lines[: args.count]), encoding="utf-8")
        head = "| element | bytes a token | Kendall's tau | top-10 overlap | largest difference |"
        head += " nDCG@10 | difference |" if qrels else ""
        print(head + "\n|" + "---|" * (head.count("|") - 1))
        reference = None
        for name in args.elements.split(","):
            element, _, compute = name.partition("/")
            run(HYPERRAG, "build", args.corpus, "--store", store, "--kv-dtype", element, "--dtype", compute or "f32")
            info = run(HYPERRAG, "info", "--store", store)
            size = next(line.split()[-1] for line in info.splitlines() if line.startswith("bytes a token"))
            found = scores(store, queries, args.depth)
            reference = reference or found
            print(row(name, size, reference, found, qrels), flush=True)
            run("rm", "-rf", store)
        print(f"\n{len(reference)} queries, depth {args.depth}.")


def row(name, size, reference, found, qrels):
    """How the rankings `found` agree with `reference`."""
    taus = [tau(reference[query], found[query]) for query in reference]
    shares = [overlap(reference[query], found[query]) for query in reference]
    largest = max(abs(reference[q][d] - found[q][d]) for q in reference for d in reference[q])
    cells = [name, size, mean(taus), mean(shares), f"{largest:.4f}"]
    if qrels:
        gains = [[ndcg(scores[query], qrels.get(query, {})) for query in reference] for scores in (reference, found)]
        cells += [mean(gains[1]), mean([b - a for a, b in zip(*gains)])]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()

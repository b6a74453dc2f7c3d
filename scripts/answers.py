#!/usr/bin/env python3
"""usage: scripts/answers.py CORPUS QUERIES GOLD [--count N] [--depth N] [--passages N] [--elements NAME,...]
                          [--stores DIR] [ANSWER OPTION...]

Has the first N questions answered without passages, from BM25's best, and from the reranked best, and
prints exact match, F1, and how many answers have a right one among their words, with standard errors: from a store of CORPUS in the first element type.
Then it says, for each of the other element types, how many questions have other reranked passages or
another answer. GOLD is JSONL with `_id` and `answers`. Options that are not listed here go to
`hyperrag answer`, as `--generator FILE`. Takes target/release/hyperrag; stores and answers go to
DIR, which may be used again, else to a temporary folder in target/.
"""

import argparse
import json
import math
import statistics
import string
import tempfile
from pathlib import Path

from agreement import HYPERRAG, ROOT, run


def options():
    parser = argparse.ArgumentParser(usage=__doc__)
    for name in ("corpus", "queries", "gold"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--passages", type=int, default=3)
    parser.add_argument("--elements", default="f32,bf16,int8")
    parser.add_argument("--stores", type=Path)
    return parser.parse_known_args()


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def write_rows(path, values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


class Questions:
    """The first questions, and what is asked about them, in `folder`."""

    def __init__(self, args, extra, folder):
        self.args, self.extra, self.folder = args, extra, folder
        queries = rows(args.queries)[: args.count]
        ids = {query["_id"] for query in queries}
        gold = [value for value in rows(args.gold) if value["_id"] in ids]
        self.right = {value["_id"]: value["answers"] for value in gold}
        self.queries = write_rows(folder / "queries.jsonl", queries)
        self.gold = write_rows(folder / "gold.jsonl", gold)

    def store(self, element):
        store = self.folder / element
        run(HYPERRAG, "build", self.args.corpus, "--store", store, "--kv-dtype", element, "--dtype", "f32")
        return store

    def answer(self, store, name, passages, *how):
        """The answers, and the figures of each, by question."""
        answers = self.folder / f"answers-{name}.jsonl"
        command = [HYPERRAG, "answer", "--store", store, "--queries", self.queries, "--json"]
        command += ["--depth", self.args.depth, "--passages", passages, *self.extra, *how]
        answers.write_text(run(*command), encoding="utf-8")
        evaluated = json.loads(run(HYPERRAG, "eval", "qa", "--answers", answers, "--gold", self.gold, "--json"))
        found = {answer["query_id"]: answer for answer in rows(answers)}
        figures = evaluated["per_query"]
        for query, values in figures.items():
            text = words(found[query]["answer"]) if query in found else " "
            values["contained"] = float(any(words(right) in text for right in self.right[query]))
        return found, figures


def words(text):
    """As SQuAD compares them: lower case, without punctuation and articles; a blank around each."""
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return " " + " ".join(word for word in kept.split() if word not in ("a", "an", "the")) + " "


def line(name, answers, figures):
    cells = [name, str(len(figures))]
    for measure in ("EM", "F1", "contained"):
        values = [values[measure] for values in figures.values()]
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
        cells.append(f"{statistics.mean(values):.3f} ± {error:.3f}")
    for key in ("prompt_tokens", "generated_tokens"):
        cells.append(f"{statistics.mean(answer[key] for answer in answers.values()):.0f}")
    print("| " + " | ".join(cells) + " |", flush=True)


def changed(element, first, answers):
    """How many questions have other passages, in another order, another text."""

    def passages(answer):
        return [passage["id"] for passage in answer["passages"]]

    pairs = [(answer, answers[query]) for query, answer in first.items() if query in answers]
    sets = sum(set(passages(a)) != set(passages(b)) for a, b in pairs)
    orders = sum(passages(a) != passages(b) for a, b in pairs)
    texts = sum(a["answer"] != b["answer"] for a, b in pairs)
    print(f"| {element} | {len(pairs)} | {sets} | {orders} | {texts} |", flush=True)


def compare(questions, elements):
    first = questions.store(elements[0])
    print("| passages | questions | EM | F1 | contained | prompt tokens | answer tokens |\n|---|---|---|---|---|---|---|")
    passages = questions.args.passages
    line("none", *questions.answer(first, "none", 0))
    line("BM25", *questions.answer(first, "bm25", passages, "--no-rerank"))
    reranked = {}
    for element in elements:
        reranked[element] = questions.answer(questions.store(element), element, passages)
        line(f"reranked, {element}", *reranked[element])
    print(f"\n| against {elements[0]} | questions | other passages | other order or passages | other answer |")
    print("|---|---|---|---|---|")
    for element in elements[1:]:
        changed(element, reranked[elements[0]][0], reranked[element][0])


def main():
    args, extra = options()
    elements = args.elements.split(",")
    if args.stores:
        args.stores.mkdir(parents=True, exist_ok=True)
        return compare(Questions(args, extra, args.stores), elements)
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as folder:
        compare(Questions(args, extra, Path(folder)), elements)


if __name__ == "__main__":
    main()

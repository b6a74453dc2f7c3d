#!/usr/bin/env python3
"""usage: scripts/measures.py FOLDER MEASURE...

Prints what ir_measures makes of every pair of FOLDER/NAME.qrels and FOLDER/NAME.run, as JSON: means, and
values by query, each a list in the order of the measures.

ir_measures asks several programs. pytrec_eval gets the run as it is. The others order equal scores in ways
of their own: RR@k of MS MARCO's program and Judged by id from low to high, cwl_eval (RBP) as they come,
gdeval (ERR, dcg='exp-log2') without rounding scores to single precision. They get the run in pytrec_eval's
order, with scores that all differ. gdeval also wants numbers as ids of queries, and would print five digits. nDCG with gains is asked for by
itself: together with another nDCG, it is now and then the one that gets the other's gains.

A query whose judgements are all negative gets another one: pytrec_eval 0.5.11 then reads memory that is not
its own, hangs or dies. Every measure of such a query is 0, but for Judged, which does not see the addition.
"""

import json
import pathlib
import pkgutil
import struct
import sys

import ir_measures
from ir_measures import Qrel, ScoredDoc
from ir_measures.providers import gdeval_provider


class ManyDigits:
    """Gives gdeval's program with twelve digits."""

    @staticmethod
    def get_data(package, name):
        return pkgutil.get_data(package, name).replace(b"%.5f", b"%.12f")


gdeval_provider.pkgutil = ManyDigits


def single(score):
    """Returns the score as trec_eval keeps it."""
    try:
        return struct.unpack("f", struct.pack("f", score))[0]
    except OverflowError:
        return float("inf") if score > 0 else float("-inf")


def without_ties(run):
    """Returns the run in trec_eval's order, query by query, with scores that fall by 1."""
    queries = {}
    for hit in run:
        queries.setdefault(hit.query_id, []).append(hit)
    for query, hits in queries.items():
        hits.sort(key=lambda hit: (single(hit.score), hit.doc_id.encode()), reverse=True)
        for rank, hit in enumerate(hits):
            yield ScoredDoc(query, hit.doc_id, float(len(hits) - rank))


def values(provider, measures, qrels, run):
    """Returns means by measure, and values by query and measure."""
    result = provider.calc(measures, qrels, run)
    means = {measure: float(mean) for measure, mean in result.aggregated.items()}
    return means, {(value.query_id, value.measure): float(value.value) for value in result.per_query}


def with_a_grade(qrels):
    """Returns the judgements with a grade of 0 for each query that has negative ones only."""
    queries = {line.query_id for line in qrels} - {line.query_id for line in qrels if line.relevance >= 0}
    return [*qrels, *(Qrel(query, "no-document", 0) for query in sorted(queries))]


def evaluated(measures, qrels, run):
    qrels = with_a_grade(qrels)
    by_program = {"pytrec_eval": [], "pytrec_eval with gains": [], "gdeval": [], "rest": []}
    for measure in measures:
        program = "pytrec_eval" if ir_measures.pytrec_eval.supports(measure) else "rest"
        program = "gdeval" if ir_measures.gdeval.supports(measure) else program
        if "gains" in measure.params:
            program = "pytrec_eval with gains"
        by_program[program].append(measure)
    ordered = list(without_ties(run))
    number = {query: str(i) for i, query in enumerate({line.query_id for line in [*qrels, *run]})}
    query = {i: query for query, i in number.items()}
    means, per_query = {}, {}
    for program, asked in by_program.items():
        if not asked:
            continue
        if program == "gdeval":
            judged = [Qrel(number[line.query_id], line.doc_id, line.relevance) for line in qrels]
            hits = [ScoredDoc(number[hit.query_id], hit.doc_id, hit.score) for hit in ordered]
            its_means, its_values = values(ir_measures.gdeval, asked, judged, hits)
            its_values = {(query[i], measure): value for (i, measure), value in its_values.items()}
        else:
            hits = ordered if program == "rest" else run
            its_means, its_values = values(ir_measures, asked, qrels, hits)
        means |= its_means
        per_query |= its_values
    queries = {line.query_id for line in qrels}
    return {
        "means": [means[measure] for measure in measures],
        "per_query": {query: [per_query[query, m] for m in measures] for query in queries},
    }


def main():
    folder, *names = sys.argv[1:]
    measures = [ir_measures.parse_measure(name) for name in names]
    pairs = {}
    for path in sorted(pathlib.Path(folder).glob("*.qrels")):
        qrels = list(ir_measures.read_trec_qrels(open(path, encoding="utf-8")))
        run = list(ir_measures.read_trec_run(open(path.with_suffix(".run"), encoding="utf-8")))
        pairs[path.stem] = evaluated(measures, qrels, run)
    json.dump(pairs, sys.stdout)


if __name__ == "__main__":
    main()

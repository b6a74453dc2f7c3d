#!/usr/bin/env python3
"""usage: scripts/measures.py QRELS RUN MEASURE...

Prints what ir_measures makes of a TREC run, as JSON: means, and values by query. RR@k is made of RR:
asked for RR@k, ir_measures orders equal scores by id from low to high, and for every other measure from
high to low. A query whose judgements are all negative must not be there: pytrec_eval never returns.
"""

import json
import sys

import ir_measures


def main():
    qrels, run, *names = sys.argv[1:]
    cutoffs = {name: int(name.removeprefix("RR@")) for name in names if name.startswith("RR@")}
    asked = {"RR" if name in cutoffs else name for name in names}
    measures = {name: ir_measures.parse_measure(name) for name in asked}
    qrels, run = list(ir_measures.read_trec_qrels(qrels)), list(ir_measures.read_trec_run(run))
    per_query = {}
    for metric in ir_measures.iter_calc(list(measures.values()), qrels, run):
        per_query.setdefault(metric.query_id, {})[str(metric.measure)] = metric.value
    means = ir_measures.calc_aggregate(list(measures.values()), qrels, run)
    means = {str(measure): mean for measure, mean in means.items()}
    for name, cutoff in cutoffs.items():
        for values in per_query.values():
            values[name] = values["RR"] if values["RR"] * cutoff > 1 - 1e-9 else 0.0
        means[name] = sum(values[name] for values in per_query.values()) / len(per_query)
    json.dump({"means": means, "per_query": per_query}, sys.stdout)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""usage: scripts/measures.py QRELS RUN MEASURE...

Prints what ir_measures makes of a TREC run, as JSON: means, and values by query.
"""

import json
import sys

import ir_measures


def main():
    qrels, run, *names = sys.argv[1:]
    measures = {name: ir_measures.parse_measure(name) for name in names}
    qrels, run = list(ir_measures.read_trec_qrels(qrels)), list(ir_measures.read_trec_run(run))
    per_query = {}
    for metric in ir_measures.iter_calc(list(measures.values()), qrels, run):
        per_query.setdefault(metric.query_id, {})[str(metric.measure)] = metric.value
    means = ir_measures.calc_aggregate(list(measures.values()), qrels, run)
    json.dump({"means": {str(measure): mean for measure, mean in means.items()}, "per_query": per_query}, sys.stdout)


if __name__ == "__main__":
    main()

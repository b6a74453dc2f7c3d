#!/usr/bin/env bash
# ir_measures 0.4.3 with pytrec-eval-terrier 0.5.11 (PyPI): ERR@k takes from a query's id the digits at its
# end and drops the rest. Queries of TREC's style `2024-1` become `1`: they get the value 0, two such queries
# become one, and a query `1` appears that nobody has. nDCG@k of the same run is right. No error, no warning.
#
# Seen, for queries `2024-1` and `2025-1`, each with its relevant document at rank 1: nDCG@10 is 1 for both;
# ERR@10 is 0 for both, and above 0 for `1`. With the ids `1` and `2` ERR@10 is above 0 for both.
# (ERR comes from the gdeval program in the package, which needs perl.)
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check ir-measures==0.4.3 pytrec-eval-terrier==0.5.11
"$folder/venv/bin/python" - <<'PYTHON'
import ir_measures
from ir_measures import ERR, nDCG


def values(ids):
    qrels = {ids[0]: {"a": 4}, ids[1]: {"a": 1}}
    run = {query: {"a": 2.0, "b": 1.0} for query in ids}
    found = list(ir_measures.iter_calc([ERR @ 10, nDCG @ 10], qrels, run))
    return {(str(metric.measure), metric.query_id): round(metric.value, 4) for metric in found}


plain, dated = values(["1", "2"]), values(["2024-1", "2025-1"])
print("ids 1 and 2:", plain)
print("ids 2024-1 and 2025-1:", dated)
assert all(plain["ERR@10", query] > 0 for query in ("1", "2")), plain
for query in ("2024-1", "2025-1"):
    assert dated["nDCG@10", query] == 1.0, dated
    assert dated["ERR@10", query] == 0.0, dated
assert dated["ERR@10", "1"] > 0, dated
PYTHON

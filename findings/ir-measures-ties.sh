#!/usr/bin/env bash
# ir_measures 0.4.3 with pytrec-eval-terrier 0.5.11 (PyPI): RR and RR@10 of one run rank documents of equal
# score in opposite orders. RR comes from trec_eval, which takes the larger id first; RR@10 comes from the
# msmarco script, which takes the smaller id first. So a cutoff that cuts nothing changes the value.
#
# Seen, for one query with two documents of score 1, `b` relevant and `a` not: RR 1.0 and RR@10 0.5. With `a`
# relevant it is 0.5 and 1.0. Without ties both are equal. Scores that are rounded, or ranks written as
# scores of whole batches, have such ties; nothing warns of them.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check ir-measures==0.4.3 pytrec-eval-terrier==0.5.11
"$folder/venv/bin/python" - <<'PYTHON'
import ir_measures
from ir_measures import RR


def values(qrels, scores):
    found = ir_measures.calc_aggregate([RR, RR @ 10], {"1": qrels}, {"1": scores})
    return found[RR], found[RR @ 10]


for relevant, expected in (("b", (1.0, 0.5)), ("a", (0.5, 1.0))):
    qrels = {name: int(name == relevant) for name in "ab"}
    tied = values(qrels, {"a": 1.0, "b": 1.0})
    apart = values(qrels, {relevant: 2.0, ("a" if relevant == "b" else "b"): 1.0})
    print(f"{relevant} is relevant: RR and RR@10 are {tied} with equal scores, {apart} without")
    assert tied == expected, tied
    assert apart == (1.0, 1.0), apart
PYTHON

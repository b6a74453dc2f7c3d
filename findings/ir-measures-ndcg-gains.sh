#!/usr/bin/env bash
# ir_measures 0.4.3 with pytrec-eval-terrier 0.5.11 (PyPI): asked for nDCG@10 together with an nDCG that has
# `gains` of its own, it sometimes computes the plain one with the other's gains, and gives the other one 0.
# Which of both happens depends on the order of a set of names, so on PYTHONHASHSEED, which Python draws
# anew for each process: the same call on the same data has two values of nDCG@10. No error, no warning.
#
# Seen, for seeds 0 to 19: 8 runs give 0.8597 and, with gains, 0.7609; 12 give 0.7609 and 0. Asked one by
# one, both are right in every run.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check ir-measures==0.4.3 pytrec-eval-terrier==0.5.11
cat > "$folder/measure.py" <<'PYTHON'
import ir_measures
from ir_measures import nDCG

qrels = {"q": {"a": 1, "b": 2}}
run = {"q": {"a": 2.0, "b": 1.0}}
plain, gains = nDCG @ 10, nDCG(gains={0: 0, 1: 1, 2: 4}) @ 10
together = ir_measures.calc_aggregate([plain, gains], qrels, run)
alone = [ir_measures.calc_aggregate([measure], qrels, run)[measure] for measure in (plain, gains)]
print(*(f"{value:.4f}" for value in [together[plain], together.get(gains, 0), *alone]))
PYTHON
for seed in $(seq 0 19); do
    PYTHONHASHSEED=$seed "$folder/venv/bin/python" "$folder/measure.py"
done | sort | uniq -c | tee "$folder/values"
test "$(wc -l < "$folder/values")" -gt 1
test "$(awk '{print $4, $5}' "$folder/values" | sort -u | wc -l)" = 1

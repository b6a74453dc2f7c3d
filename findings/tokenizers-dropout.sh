#!/usr/bin/env bash
# tokenizers 0.23.1 (PyPI): `dropout` is a training regulariser, but a tokenizer.json that carries it
# stays random when it is loaded to encode. There is no training mode to leave, and no warning.
#
# Seen: 20 encodings of one sentence by one loaded tokenizer give 20 sequences of ids, alone and in a
# batch; with `"dropout": null` they give one. Whoever caches by token ids, or scores twice, gets other
# values each time. A program that wants one sequence must set `model.dropout` to None after loading.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check tokenizers==0.23.1
"$folder/venv/bin/python" - <<'PYTHON'
import json
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

text = "In winter the bees of a hive shiver together in a dense cluster around their queen."
tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
alphabet = pre_tokenizers.ByteLevel.alphabet()
trainer = trainers.BpeTrainer(vocab_size=400, show_progress=False, initial_alphabet=alphabet)
tokenizer.train_from_iterator([text] * 50, trainer)
saved = json.loads(tokenizer.to_str())


def sequences(dropout):
    saved["model"]["dropout"] = dropout
    loaded = Tokenizer.from_str(json.dumps(saved))
    alone = {tuple(loaded.encode(text).ids) for _ in range(20)}
    batch = {tuple(encoding.ids) for encoding in loaded.encode_batch([text] * 20)}
    return len(alone), len(batch)


without, loaded_with = sequences(None), sequences(0.5)
print(f"sequences of ids in 20 encodings: {without} without dropout, {loaded_with} with 0.5")
assert without == (1, 1), without
assert min(loaded_with) > 10, loaded_with
PYTHON

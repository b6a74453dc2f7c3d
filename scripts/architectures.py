#!/usr/bin/env python3
"""usage: scripts/architectures.py > testdata/golden/architectures.json

What transformers computes in f32 of the tiny model of every architecture, which examples/tiny_model.rs
writes: log-probabilities of the tokens of some sequences, and logits after them. Run it with the
versions of scripts/peers/requirements.txt (target/peers/venv/bin/python).
"""

import json
import pathlib
import random
import subprocess
import sys
import tempfile

import torch
import transformers

NAMES = (
    "llama llama3 mistral qwen2 qwen3 gemma gemma2 gemma3 gemma3-linear gemma4 gemma4-dense smollm3 "
    "granite granite4 olmo2 olmo3 phi3 phi4"
).split()
LENGTHS = [2, 9, 45, 120]
LABELS = [0, 3, 50, 100, 150, 200, 250, 290]
EXAMPLE = "cargo run --quiet --release --locked -p hyperrag-model --example tiny_model --".split()


def reference(folder, sequences):
    # Eager attention: it alone knows soft caps.
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    results = []
    for tokens in sequences:
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0]
        logs = logits.double().log_softmax(-1)[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
        results.append({
            "tokens": tokens,
            "log_probabilities": [round(log, 6) for log in logs.tolist()],
            "label_logits": [round(logits[-1, label].item(), 6) for label in LABELS],
        })
    return results


def main():
    random.seed(0)
    sequences = [[random.randrange(291) for _ in range(length)] for length in LENGTHS]
    models = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in NAMES:
            folder = pathlib.Path(temporary, name)
            subprocess.run([*EXAMPLE, folder, "--folder", "--model", name], check=True)
            models[name] = reference(folder, sequences)
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    text = json.dumps({"versions": versions, "labels": LABELS, "models": models}, separators=(",", ":"))
    # A model a line.
    print(text.replace('"models":{', '"models":{\n').replace('}],"', '}],\n"'))
    print(f"{len(models)} models", file=sys.stderr)


if __name__ == "__main__":
    main()

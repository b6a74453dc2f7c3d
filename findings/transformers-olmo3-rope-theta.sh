#!/usr/bin/env bash
# transformers 5.24.0 (PyPI): an OLMo 3 configuration with a `rope_theta` of its own, as version 4 writes it,
# is read with that base for the layers of full attention alone. The layers with a sliding window silently
# get 500000, the default.
#
# Seen: 12345 for full attention and 500000 for the windows. Version 4.57.1 has one base for all layers, and
# writes it to config.json as one number. So a model that was trained with another base than the default
# computes other positions in three of four layers after the upgrade, with the same files and no warning.
# The new form (`rope_parameters` with both kinds named) is read as it stands.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 4.57.1 5.24.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install -q --disable-pip-version-check "transformers==$version"
done
mkdir "$folder/model"
"$folder/4.57.1/bin/python" - "$folder/model" <<'PYTHON' 2>/dev/null
import sys

from transformers import Olmo3Config

config = Olmo3Config(num_hidden_layers=4, rope_theta=12345.0)
assert config.rope_theta == 12345.0
config.save_pretrained(sys.argv[1])
print("4.57.1 writes rope_theta", config.rope_theta, "for", config.layer_types)
PYTHON
"$folder/5.24.0/bin/python" - "$folder/model" <<'PYTHON' 2>/dev/null
import sys

from transformers import Olmo3Config

read = Olmo3Config.from_pretrained(sys.argv[1]).rope_parameters
bases = {kind: read[kind]["rope_theta"] for kind in ("full_attention", "sliding_attention")}
print("5.24.0 reads", bases)
assert bases == {"full_attention": 12345.0, "sliding_attention": 500000.0}, bases
both = {kind: {"rope_type": "default", "rope_theta": 12345.0} for kind in bases}
named = Olmo3Config(num_hidden_layers=4, rope_parameters=both).rope_parameters
assert all(named[kind]["rope_theta"] == 12345.0 for kind in bases), named
PYTHON

#!/usr/bin/env python3
"""usage: scripts/golden_gemma3.py MODEL.gguf OUT_SCORES OUT_TOKENS

Makes testdata/golden/gemma3-scores.json and gemma3-tokens.json: what transformers, in f32 on the
dequantised weights, scores the pairs of testdata/golden/scores.json at, and what llama.cpp makes of
texts. The last pair's document is all of them in one, longer than the window of local layers. Needs
scripts/peers/requirements.txt.
"""

import json
import sys
from pathlib import Path

import llama_cpp
import numpy
import torch
import transformers
from gguf import GGUFReader, dequantize
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

GOLDEN = Path(__file__).resolve().parent.parent / "testdata/golden"
NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TEXTS = [
    "a  b   c    d",
    " " * 40 + "forty blanks",
    "x\n\n\ny\n \n\tz\t\t\tw",
    "\n" * 35,
    "def f(x):\n    if x > 0:\n        return [i ** 2 for i in range(x)]  # squares\n",
    "<table><tr><td>1</td></tr></table> <b>bold</b>",
    "<start_of_turn>user\nhi<end_of_turn>\n<bos><eos><unused7>",
    "\ufdfa \U0001d54f \U0001f9d1\u200d\U0001f680 \ue000 \U000f0000",
    "\x00\x01\x7f\u0085\u00a0\u2003",
    "Donaudampfschifffahrtsgesellschaftskapitän, 12345678901234567890",
    "ab" * 300,
]


def model(reader):
    def field(name):
        return reader.fields[f"gemma3.{name}"].contents()

    rope = {
        "full_attention": {"rope_type": "default", "rope_theta": field("rope.freq_base")},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    }
    config = Gemma3TextConfig(
        vocab_size=len(reader.fields["tokenizer.ggml.tokens"].data),
        hidden_size=field("embedding_length"),
        intermediate_size=field("feed_forward_length"),
        num_hidden_layers=field("block_count"),
        num_attention_heads=field("attention.head_count"),
        num_key_value_heads=field("attention.head_count_kv"),
        head_dim=field("attention.key_length"),
        max_position_embeddings=field("context_length"),
        rms_norm_eps=field("attention.layer_norm_rms_epsilon"),
        query_pre_attn_scalar=field("attention.key_length"),
        sliding_window=field("attention.sliding_window"),
        rope_parameters=rope,
        attn_implementation="eager",
    )
    weights = {}
    for tensor in reader.tensors:
        values = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32))
        values = values.reshape(tuple(reversed([int(n) for n in tensor.shape])))
        name = tensor.name
        if name.startswith("blk."):
            _, layer, part, kind = name.split(".")
            name = f"model.layers.{layer}.{NAMES[part]}.{kind}"
        else:
            name = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[name]
        # GGUF has the factors of the norms, transformers what is added to 1.
        weights[name] = values - 1 if name.endswith("norm.weight") else values
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    made = Gemma3ForCausalLM(config)
    made.load_state_dict(weights, strict=True)
    return made.eval()


def score(made, document, query):
    tokens = torch.tensor([document + query])
    with torch.no_grad():
        states = made.model(tokens).last_hidden_state[0, len(document) - 1 : -1]
        logs = torch.log_softmax(made.lm_head(states).double(), -1)
    return [float(log[token]) for log, token in zip(logs, query)]


def main():
    path, out_scores, out_tokens = sys.argv[1:]
    tokenizer = llama_cpp.Llama(path, vocab_only=True, verbose=False)

    def encode(text, special=False):
        return tokenizer.tokenize(text.encode(), add_bos=False, special=special)

    texts = [case["text"] for case in json.loads((GOLDEN / "tokens.json").read_text())["cases"]] + TEXTS
    cases = [{"text": text, "ids": encode(text), "ids_with_special": encode(text, True)} for text in texts]
    engine = f"llama.cpp (llama-cpp-python {llama_cpp.__version__})"
    Path(out_tokens).write_text(json.dumps({"model": Path(path).name, "engine": engine, "cases": cases}) + "\n")

    made = model(GGUFReader(path))
    pairs = json.loads((GOLDEN / "scores.json").read_text())["pairs"]
    pairs = [(pair["document"], pair["query"]) for pair in pairs]
    pairs[-1] = (" ".join(document for document, _ in pairs), pairs[-1][1])
    scored = []
    for document, query in pairs:
        tokens = encode("<bos>", True) + encode(document), encode(query)
        logs = score(made, *tokens)
        scored.append(
            {
                "document": document,
                "query": query,
                "document_tokens": tokens[0],
                "query_tokens": tokens[1],
                "mean_logprob": sum(logs) / len(logs),
                "token_logprobs": logs,
            }
        )
        print(len(tokens[0]), len(tokens[1]), scored[-1]["mean_logprob"], file=sys.stderr)
    engine = f"transformers {transformers.__version__}, torch {torch.__version__}, f32, dequantised GGUF weights"
    Path(out_scores).write_text(json.dumps({"model": Path(path).name, "engine": engine, "pairs": scored}) + "\n")


main()

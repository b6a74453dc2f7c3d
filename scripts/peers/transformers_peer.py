#!/usr/bin/env python3
"""Measures Hugging Face transformers with torch on a CPU, the weights dequantised from the GGUF.

The score of a pair is the mean log-probability of the query's tokens after the document's. Only
their positions go through the vocabulary's projection. Reuse stacks the documents' KV of a batch,
held in memory, since which documents a query meets is not known before; it computes the document's
last position again, which predicts the query's first token.
"""

import torch
import transformers
import workload as shared
from transformers import AutoModelForCausalLM, DynamicCache

PRECISIONS = {"f32": torch.float32, "bf16": torch.bfloat16}


class Transformers:
    batches = {"prefill": [1, 2, 8], "recompute": [1, 4, 8], "reuse": [1, 10, 25, 50, 100]}

    def __init__(self, gguf, precision, workload):
        instructions = torch.backends.cpu.get_cpu_capability()
        self.versions = {"transformers": transformers.__version__, "torch": f"{torch.__version__} ({instructions})"}
        self.workload = workload
        self.kept = []
        # Dequantised to f32 first: asked for bf16, transformers warns of packed weights that it does not use here.
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, attn_implementation="sdpa"
        )
        self.model = model.to(PRECISIONS[precision]).eval()

    def prefill(self, batch, documents):
        for at in range(0, len(documents), batch):
            self.model.model(torch.tensor(documents[at : at + batch]), use_cache=True)

    def recompute(self, batch, documents):
        sequences = torch.tensor(self.workload.without_last(documents))
        scores = []
        for some in sequences.split(batch):
            hidden = self.model.model(some, use_cache=False).last_hidden_state
            scores += self.scores(hidden[:, self.workload.document_tokens - 1 :])
        return scores

    def scores(self, hidden):
        """Mean log-probability of the query's tokens, from the states that predict them."""
        logits = self.model.lm_head(hidden).float()
        targets = torch.tensor(self.workload.query).expand(len(hidden), -1)
        chosen = logits.gather(-1, targets[..., None])[..., 0]
        return (chosen - torch.logsumexp(logits, -1)).mean(1).tolist()

    def keep(self, documents):
        self.kept = []
        for document in documents:
            cache = self.model.model(torch.tensor([document]), use_cache=True).cache
            # The last position is computed again.
            self.kept.append([(layer.keys[0, :, :-1].clone(), layer.values[0, :, :-1].clone()) for layer in cache.layers])

    def reuse(self, batch, count):
        length = self.workload.document_tokens
        positions = torch.arange(length - 1, length - 1 + len(self.workload.query))
        scores = []
        for at in range(0, count, batch):
            kept = self.kept[at : min(at + batch, count)]
            cache = DynamicCache()
            for layer, of_documents in enumerate(zip(*kept)):
                keys, values = zip(*of_documents)
                cache.update(torch.stack(keys), torch.stack(values), layer)
            last = [document[-1:] for document in self.workload.documents[at : at + len(kept)]]
            hidden = self.model.model(
                torch.tensor(self.workload.without_last(last)),
                cache=cache,
                position_ids=positions.expand(len(kept), -1),
                use_cache=True,
            ).last_hidden_state
            scores += self.scores(hidden)
        return scores


def main():
    args = shared.arguments(__doc__, list(PRECISIONS))
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    transformers.utils.logging.disable_progress_bar()
    workload = shared.Workload.load(args.workload)
    peer = Transformers(args.gguf, args.precision, workload)
    shared.serve(peer, workload, args.at_least)


if __name__ == "__main__":
    main()

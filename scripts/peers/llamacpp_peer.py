#!/usr/bin/env python3
"""Measures llama.cpp (through llama-cpp-python's low-level interface) on a CPU.

The score of a pair is the mean log-probability of the query's tokens after the document's; logits
are asked for at their positions only. For reuse every document has a sequence of its own in one
context and stays there, so nothing is copied at all: the last document position is dropped and
computed again with the query, which is dropped before the next run.
"""

import ctypes
import subprocess
import sys
from pathlib import Path

import llama_cpp
import numpy
import workload as shared

# llama.h's llama_ftype of the file that is made; None computes from the GGUF as it is.
PRECISIONS = {"as-is": None, "bf16": 32, "f16": 1}


def fail(message):
    sys.exit(f"error: {message}")


def requantised(gguf, precision, threads, scratch):
    """The GGUF with its weights in another type."""
    file_type = PRECISIONS[precision]
    if file_type is None:
        return gguf
    made = scratch / f"{gguf.stem}.{precision}.gguf"
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.nthread = file_type, threads
    settings.allow_requantize = settings.pure = True
    if llama_cpp.llama_model_quantize(str(gguf).encode(), str(made).encode(), ctypes.byref(settings)) != 0:
        fail(f"llama.cpp cannot make {precision} weights of {gguf}: look for room in {scratch}")
    return made


def compiled(scratch):
    """The C function next to this file; numpy would take longer for it than llama.cpp allows for."""
    source, library = Path(__file__).with_name("log_probability.c"), scratch / "log_probability.so"
    flags = ["-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC"]
    if subprocess.run(["cc", *flags, str(source), "-o", str(library), "-lm"]).returncode != 0:
        fail(f"cc cannot compile {source}: install gcc with its OpenMP library")
    function = ctypes.CDLL(str(library)).log_probability
    pointer = ctypes.c_void_p
    function.argtypes = [pointer, ctypes.c_long, ctypes.c_long, pointer, pointer, ctypes.c_int]
    function.restype = None
    return function


class Context:
    """A llama.cpp context of `sequences` sequences, and a batch of `positions` for it."""

    def __init__(self, model, threads, sequences, length, positions, outputs):
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = sequences * ((length + 255) // 256 * 256)
        settings.n_batch = settings.n_ubatch = positions
        settings.n_seq_max = sequences
        settings.n_outputs_max = max(outputs, sequences)
        settings.n_threads = settings.n_threads_batch = threads
        settings.flash_attn_type = 1  # on
        settings.kv_unified = False
        settings.offload_kqv = False
        settings.no_perf = True
        self.context = llama_cpp.llama_init_from_model(model, settings)
        if not self.context:
            fail(f"llama.cpp cannot make a context of {settings.n_ctx} positions: look for free memory")
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.batch = llama_cpp.llama_batch_init(positions, 0, 1)

    def clear(self):
        llama_cpp.llama_memory_clear(self.memory, False)

    def forget_from(self, sequence, position):
        llama_cpp.llama_memory_seq_rm(self.memory, sequence, position, -1)

    def begin(self):
        self.batch.n_tokens = 0

    def add(self, tokens, first_position, sequence, scored):
        """Adds tokens to the batch; logits are wanted for the last `scored`."""
        batch, start = self.batch, self.batch.n_tokens
        for offset, token in enumerate(tokens):
            at = start + offset
            batch.token[at], batch.pos[at] = token, first_position + offset
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, sequence
            batch.logits[at] = offset >= len(tokens) - scored
        batch.n_tokens = start + len(tokens)

    def decode(self):
        status = llama_cpp.llama_decode(self.context, self.batch)
        if status != 0:
            fail(f"llama.cpp could not decode a batch of {self.batch.n_tokens} tokens (status {status})")
        llama_cpp.llama_synchronize(self.context)

    def logits(self):
        return ctypes.cast(llama_cpp.llama_get_logits(self.context), ctypes.c_void_p)

    def free(self):
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)


class LlamaCpp:
    batches = {"prefill": [1, 2, 8], "recompute": [1, 2, 4, 8], "reuse": [1, 10, 25, 50]}

    def __init__(self, args, workload):
        features = llama_cpp.llama_print_system_info().decode().replace("CPU :", "").split(" = 1 |")
        used = " ".join(feature.strip() for feature in features if "=" not in feature).strip()
        self.versions = {"llama-cpp-python": f"{llama_cpp.__version__} ({used})"}
        self.workload, self.threads = workload, args.threads
        settings = llama_cpp.llama_model_default_params()
        settings.n_gpu_layers = 0
        path = requantised(args.gguf, args.precision, args.threads, args.scratch)
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), settings)
        if not self.model:
            fail(f"llama.cpp cannot load {path}")
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.log_probability = compiled(args.scratch)
        self.context, self.shape, self.kept = None, None, None

    def context_for(self, sequences, length, positions, outputs):
        """The context of this shape; the last one is kept, so that it is made once."""
        shape = (sequences, length, positions, outputs)
        if self.shape != shape:
            if self.context:
                self.context.free()
            self.context, self.shape = Context(self.model, self.threads, *shape), shape
        return self.context

    def prefill(self, batch, documents):
        length = self.workload.document_tokens
        context = self.context_for(batch, length, batch * length, batch)
        for at in range(0, len(documents), batch):
            context.clear()
            context.begin()
            for sequence, document in enumerate(documents[at : at + batch]):
                context.add(document, 0, sequence, 1)
            context.decode()

    def recompute(self, batch, documents):
        scored = len(self.workload.query)
        length = self.workload.document_tokens + scored - 1
        context = self.context_for(batch, length, batch * length, batch * scored)
        sequences, scores = self.workload.without_last(documents), []
        for at in range(0, len(sequences), batch):
            some = sequences[at : at + batch]
            context.clear()
            context.begin()
            for sequence, tokens in enumerate(some):
                context.add(tokens, 0, sequence, scored)
            context.decode()
            scores += self.scores(context, len(some))
        return scores

    def scores(self, context, count):
        """Mean log-probability of the query's tokens, for each sequence of the batch."""
        targets = numpy.tile(numpy.array(self.workload.query, numpy.int32), count)
        out = numpy.empty(len(targets), numpy.float32)
        self.log_probability(
            context.logits(), len(targets), self.vocabulary, targets.ctypes.data, out.ctypes.data, self.threads
        )
        return out.reshape(count, -1).mean(1).tolist()

    def keep(self, documents):
        limit = llama_cpp.llama_max_parallel_sequences()
        if len(documents) > limit:
            fail(f"llama.cpp keeps at most {limit} sequences: compare with fewer --candidates")
        scored, length = len(self.workload.query), self.workload.document_tokens
        largest = min(max(self.batches["reuse"]), len(documents)) * scored
        # A context of its own: the other figures are sampled in between.
        context = self.kept = Context(
            self.model, self.threads, len(documents), length + scored - 1, max(largest, length), largest
        )
        for sequence, document in enumerate(documents):
            context.begin()
            context.add(document, 0, sequence, 1)
            context.decode()

    def reuse(self, batch, count):
        last, scores = self.workload.document_tokens - 1, []
        for at in range(0, count, batch):
            sequences = range(at, min(at + batch, count))
            self.kept.begin()
            for sequence in sequences:
                self.kept.forget_from(sequence, last)
                tokens = self.workload.documents[sequence][-1:] + self.workload.query[:-1]
                self.kept.add(tokens, last, sequence, len(tokens))
            self.kept.decode()
            scores += self.scores(self.kept, len(sequences))
        return scores


@llama_cpp.llama_log_callback
def be_quiet(_level, _text, _user_data):
    """llama.cpp's log is not wanted; what fails is said by its callers."""


def main():
    args = shared.arguments(__doc__, list(PRECISIONS))
    llama_cpp.llama_log_set(be_quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    workload = shared.Workload.load(args.workload)
    shared.serve(LlamaCpp(args, workload), workload, args.at_least)


if __name__ == "__main__":
    main()

#!/usr/bin/env bash
# triton 3.9.0 (PyPI) with numpy 2.3.5: under TRITON_INTERPRET=1, which runs kernels without a GPU to debug
# them, every operation on bfloat16 values works on their 16 bits as whole numbers. There is no error and no
# warning. float16 and float32 are right, and 8-bit floats are widened before a product; bfloat16 is not.
# The manual names the limit, but the interpreter computes on.
#
# Seen, for tiles of 1 and -2 (16 x 16): the product is 1.28e10 in place of -32, the sum -inf in place of -1,
# the elementwise product 0 in place of -2, the maximum -2 in place of 1, the sum of 16 ones -1.04e34.
# Loads, stores and conversions are right, so a kernel that only moves bfloat16 passes. A kernel that
# computes must convert to float32 first where it is interpreted, which is then not the kernel that ships.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check triton==3.9.0 numpy==2.3.5
cat > "$folder/operations.py" <<'PYTHON'
import os

os.environ["TRITON_INTERPRET"] = "1"
import numpy as np
import triton
import triton.language as tl


class Array:
    """The methods of a tensor that the interpreter calls, over a numpy array."""

    def __init__(self, array):
        self.array, self.dtype = array, "fp32"

    def data_ptr(self):
        return self.array.ctypes.data

    def untyped_storage(self):
        return self

    cpu = untyped_storage

    def new_empty(self, *_, **__):
        return Array(self.array)

    def set_(self, storage, *_):
        self.array = storage.array

    def storage_offset(self):
        return 0

    def size(self):
        return self.array.shape

    def stride(self):
        return self.array.strides

    def copy_(self, _):
        pass


@triton.jit
def operate(a, b, out, TYPE: tl.constexpr, OPERATION: tl.constexpr):
    at = tl.arange(0, 16)[:, None] * 16 + tl.arange(0, 16)[None, :]
    x, y = tl.load(a + at).to(TYPE), tl.load(b + at).to(TYPE)
    if OPERATION == 0:
        z = x.to(tl.float32) - y.to(tl.float32)
    elif OPERATION == 1:
        z = tl.dot(x, y)
    elif OPERATION == 2:
        z = (x + y).to(tl.float32)
    elif OPERATION == 3:
        z = (x * y).to(tl.float32)
    elif OPERATION == 4:
        z = tl.maximum(x, y).to(tl.float32)
    else:
        z = tl.sum(x, 0)[None, :].to(tl.float32) + tl.zeros((16, 16), tl.float32)
    tl.store(out + at, z)


def results(dtype):
    values = []
    for operation in range(6):
        a, b = np.ones((16, 16), np.float32), np.full((16, 16), -2, np.float32)
        out = np.zeros((16, 16), np.float32)
        operate[(1,)](Array(a), Array(b), Array(out), dtype, operation)
        values.append(float(out[0, 0]))
    return values


right = [3.0, -32.0, -1.0, -2.0, 1.0, 16.0]
print("converted, dot, +, *, maximum, sum")
for dtype in (tl.float32, tl.float16, tl.bfloat16):
    print(dtype, results(dtype))
with np.errstate(all="ignore"):
    assert results(tl.float32) == results(tl.float16) == right
    wrong = results(tl.bfloat16)
assert wrong[0] == right[0], wrong
assert all(value != expected for value, expected in zip(wrong[1:], right[1:])), wrong
PYTHON
"$folder/venv/bin/python" "$folder/operations.py"

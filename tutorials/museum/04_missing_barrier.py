"""
04 · A barrier is missing
=========================

**A warp may read shared memory before another warp has written it. The result may be right all the same.**

:Reported: `FlashInfer 614 <https://github.com/flashinfer-ai/flashinfer/issues/614>`__, `llama.cpp 13438
  <https://github.com/ggml-org/llama.cpp/pull/13438>`__, `vllm-xpu-kernels 411
  <https://github.com/vllm-project/vllm-xpu-kernels/pull/411>`__
:Caught by: the sanitizer, whatever the order of the warps
:Its message: ``data race: query_shared[0]``
"""

# %%
# What was reported
# -----------------
# In 2024 a reader of FlashInfer asked what two barriers of an attention kernel are for. A maintainer answered that
# without them NVIDIA's race checker reports errors, although he had seen no wrong result. In May 2025 the same checker,
# run on llama.cpp's own tests, led to two missing barriers in its FlashAttention kernels. In June 2026 a barrier was
# found missing in vllm-xpu-kernels: outputs changed from run to run or became NaN, at 32K tokens and more. Its tests
# skipped a size at which somebody had seen a random error.

import numpy as np

import paged_numba as pn
from paged_numba import lockstep
from paged_numba.testing.mutants import Difference, caught, installed, kernel

# %%
# The fault
# ---------
# Each thread loads one dimension of the query into shared memory. Then each reads all dimensions, for the score of
# its own token. No thread may do so before all have loaded.

WRONG = kernel("attention_block", "missing barrier after the query is loaded")
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# The thread block has two warps. Lockstep runs them together, or one after the other up to the next barrier, the
# first one first (``forward``) or last (``reverse``). A GPU may do any of these. Lockstep fills shared memory with
# NaN.

rng = np.random.default_rng(4)
query, keys, values = (rng.standard_normal((n, 1, 8), dtype=np.float32) for n in (1, 112, 112))
caches = keys.reshape(7, 16, 1, 8), values.reshape(7, 16, 1, 8)


def error(order):
    with lockstep.options(order=order):
        out = pn.paged_attention(query, *caches, [range(7)], [112], algorithm="block", target="lockstep")
    return abs(out - pn.reference.attention(query, keys, values)).max()


with installed(WRONG):
    for order in ("together", "forward", "reverse"):
        print(f"{order:8} error {error(order):.6f}")

# %%
# The test that does not see it
# -----------------------------
# It compares with the oracle, in the order that the machine happens to take.


def their_test():
    assert error("together") < 1e-5


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------
# The sanitizer remembers who wrote what since the last barrier. It finds the race in any order.


def our_test():
    with lockstep.sanitizing() as findings:
        error("together")
    assert not findings, findings


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: the barrier. ``tests/test_sanitized_kernels.py`` runs every kernel under the sanitizer; :doc:`lesson 07
# </lessons/07_thread_block>` explains barriers and races.
#
# **In one sentence.** A right result does not rule out a race: use a tool that watches the accesses.

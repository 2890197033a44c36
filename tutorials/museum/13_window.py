"""
13 · A window one key too wide
==============================

**With a window of 3, a token sees itself and two tokens before it. Here it sees three before it, in every chunk.**

:Reported: `Transformers 39408 <https://github.com/huggingface/transformers/issues/39408>`__, `ZML 763
  <https://github.com/zml/zml/pull/763>`__
:Caught by: a property that counts the keys a query sees
:Its message: ``sees 2 keys through a window of 1``
"""

# %%
# What was reported
# -----------------
# FlashAttention's argument is the number of keys *before* a token's own; a model's setting includes its own. Until
# August 2025 Transformers passed the setting on unchanged, and tokens saw one key too many. In September 2026 ZML
# fixed the same. Its tests had not noticed: they had no window.

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.mutants import Difference, caught, installed, kernel

# %%
# The fault
# ---------
# A row gives the first key that a query token sees, and the end. The wrong kernel begins one key earlier.

WRONG = kernel("attention_naive", "window a key too long")
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# The values are rows of the identity matrix, which makes the output the weights: a key that is seen has weight. The
# query tokens are the last 4 of a sequence of 8, and the window is 3.


def seen(seq_len, chunk, window):
    query, key = np.zeros((chunk, 1, 16), np.float32), np.zeros((1, seq_len, 1, 16), np.float32)
    value = np.eye(seq_len, 16, dtype=np.float32)[None, :, None]
    options = {"cu_seqlens_q": [0, chunk], "window": window, "algorithm": "naive", "target": "lockstep"}
    return pn.paged_attention(query, key, value, [[0]], [seq_len], **options)[:, 0, :seq_len] > 0


with installed(WRONG):
    picture = pn.draw.Mask(seen(8, 4, window=3), title="A window of 3, one key too wide")
picture.show("13_window.svg")

# %%
# The test that does not see it
# -----------------------------
# Its sequence is no longer than the window, so there is no key before it.


def their_test():
    assert (seen(8, 8, window=8) == np.tri(8, dtype=bool)).all()


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------
# Hypothesis draws lengths, chunks and windows, shorter and longer than one another.


@settings(derandomize=True, deadline=None, max_examples=20, phases=(Phase.generate, Phase.shrink))
@given(seq_len=st.integers(1, 16), window=st.integers(1, 18), data=st.data())
def our_test(seq_len, window, data):
    chunk = data.draw(st.integers(1, seq_len), label="chunk")
    for position, row in enumerate(seen(seq_len, chunk, window), start=seq_len - chunk):
        count = row.sum()
        message = f"token {position} sees {count} keys through a window of {window}"
        assert count == min(window, position + 1), message


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: ``window - 1`` keys before the token's own. ``tests/test_ops.py`` draws windows and chunks; :doc:`lesson 13
# </lessons/13_prefill>` shows the mask of a chunk.
#
# **In one sentence.** Say whether a size includes the element itself, and test sizes at which that matters.

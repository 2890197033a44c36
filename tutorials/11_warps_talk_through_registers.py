"""
11 · Warps talk through registers
=================================

**Must 32 threads meet in shared memory to add up 32 numbers?** The reduction of lesson 07 needs a barrier after each
round. You will see threads hand each other numbers without memory, a sum that reaches only one of them, and a decode
kernel that loses all its 1,400 barriers.
"""

# %%
# No other thread can read a thread's registers, with one exception: in a :term:`shuffle`, each :term:`lane` of a
# warp, 0 to 31, reads a register of another lane. The :term:`mask`, 32 bits, says which lanes take part: ``ALL``,
# here.

import math

import numpy as np
from numba import float32

from paged_numba import cuda, draw, lockstep, reference
from paged_numba.kernels.reduce import segment_sum  # the sum of lesson 07's rounds, in shared memory

ALL, FIVE_STEPS = 0xFFFFFFFF, (16, 8, 4, 2, 1)


@cuda.jit(device=True, inline="always")  # a function that becomes part of the kernels that call it
def warp_sum(x, distances, xor):
    for distance in distances:
        if xor:
            x += cuda.shfl_xor_sync(ALL, x, distance)  # of the lane that differs in the bit of `distance`
        else:
            x += cuda.shfl_down_sync(ALL, x, distance)  # of the lane whose number is `distance` larger
    return x


@cuda.jit
def totals(out, x, distances, xor):
    if cuda.threadIdx.x < x.size:
        out[cuda.threadIdx.x] = warp_sum(x[cuda.threadIdx.x], distances, xor)


# %%
# To see who has what, lane 0 brings an ``a``, lane 1 a ``b``, up to ``h``, each as a bit of a number; the other lanes
# bring nothing. First ``shfl_down``. **As a sum for all lanes it is broken.**
#
# .. dropdown:: Predict: what does lane 3 have after the distances 4, 2 and 1?
#
#    ``defgh``, its own letter and those behind. Numbers move down only, so that lane 0 alone has all of them.


def letters(number):  # bit 0 is an a, bit 1 is a b, and so on
    return "".join(letter for bit, letter in enumerate("abcdefgh") if number & (1 << bit))


def show_letters(xor):
    numbers, out = np.zeros((2, 32), np.int32)
    numbers[:8] = 1 << np.arange(8)
    print("lane       ", *(f"{lane:<8}" for lane in range(8)))
    for distances in ((4,), (4, 2), (4, 2, 1)):
        totals[1, 32](out, numbers, distances, xor)
        print(f"distance {distances[-1]}:", *(f"{letters(number):8}" for number in out[:8]))


show_letters(xor=False)

# %%
# With ``shfl_xor`` two lanes trade, such as 0 and 4 at distance 4, and have the same afterwards. It is a
# :term:`butterfly`, named after the wings in its picture: it takes no more steps, and leaves the sum in all lanes.

show_letters(xor=True)
accesses = lockstep.trace(totals, 1, 32, np.zeros(32), np.ones(32), FIVE_STEPS, True)
draw.Tree.of_shuffles(accesses, title="A butterfly of 32 lanes").show("11_butterfly.svg")

# %%
# Now to decode, with a warp for each head: lane ``l`` has dimensions ``l`` and ``l + 32`` of the query, of each key
# and value, and of the result. A score is a sum over all lanes, in one of three ways: TREE with barriers, DOWN and
# BUTTERFLY with shuffles. The rest is the online softmax of lesson 08.

TREE, DOWN, BUTTERFLY = 0, 1, 2


@cuda.jit
def attention(out, query, key_cache, value_cache, block_table, seq_len, way):
    scratch = cuda.shared.array(32, float32)
    head, lane = cuda.blockIdx.x, cuda.threadIdx.x
    largest, total, low, high = float32(-np.inf), float32(0), float32(0), float32(0)
    for token in range(seq_len):
        block, offset = block_table[token // key_cache.shape[1]], token % key_cache.shape[1]
        key, value = key_cache[block, offset, head], value_cache[block, offset, head]
        x = query[head, lane] * key[lane] + query[head, lane + 32] * key[lane + 32]
        score = segment_sum(x, scratch, 32) if way == TREE else warp_sum(x, FIVE_STEPS, way == BUTTERFLY)
        previous, largest = largest, max(largest, score)
        rescale, weight = math.exp(previous - largest), math.exp(score - largest)
        total = total * rescale + weight
        low = low * rescale + weight * value[lane]
        high = high * rescale + weight * value[lane + 32]
    out[head, lane], out[head, lane + 32] = low / total, high / total


# %%
# We run it for 100 tokens and 2 heads. **DOWN is broken**: each lane weighs the values by scores of its own.
#
# .. dropdown:: Predict: how many barriers and memory requests to shared memory do TREE and BUTTERFLY make?
#
#    TREE, for each token and head: 7 barriers, after the store, each of 5 rounds, and the load of the result: 1,400.
#    A store, two loads and a store in each round, and a load are 17 requests: 3,400. BUTTERFLY makes none.

rng = np.random.default_rng(11)
query = rng.standard_normal((2, 64), dtype=np.float32) / 8  # scaled by 1 / sqrt(64)
key_cache, value_cache = rng.standard_normal((2, 10, 16, 2, 64), dtype=np.float32)
block_table = np.array([4, 9, 0, 7, 2, 5, 1])
key, value = (cache[block_table].reshape(112, 2, 64)[:100] for cache in (key_cache, value_cache))
oracle, out = reference.attention(query[None], key, value, scale=1)[0], np.zeros_like(query)
for name, way in {"TREE": TREE, "DOWN": DOWN, "BUTTERFLY": BUTTERFLY}.items():
    attention[2, 32](out, query, key_cache, value_cache, block_table, 100, way)
    report = lockstep.profile(attention, 2, 32, out, query, key_cache, value_cache, block_table, 100, way)
    right, requests = np.isclose(out, oracle, rtol=1e-4, atol=1e-5).mean(), report.memory("shared").requests
    print(f"{name:9} {right:4.0%} right, {report.work().barriers:5,} barriers, {requests:5,} shared requests")
np.testing.assert_allclose(out, oracle, rtol=1e-4, atol=1e-5)

# %%
# What DOWN has right are the dimensions of lane 0. All three read NHD coalesced, with no tile: a warp reads one key.
#
# Lanes of a warp may take different branches: :term:`divergence`. So they do at the guard of ``totals``, but ``ALL``
# promises 32 lanes. **For 24 numbers it is broken**: a GPU may return anything. Cure: all 32 lanes call, 8 with 0.

print(lockstep.sanitize(totals, 1, 32, np.zeros(24), np.ones(24), FIVE_STEPS, True))

# %%
# **In two sentences.** By shuffles, lanes read each other's registers, with neither memory nor barrier. A butterfly
# leaves the sum in all lanes after 5 steps, if all lanes of the mask take part.
#
# **Check yourself.**
#
# 1. How many steps, and which, if a warp computes two scores at once, with 16 lanes for each?
# 2. Addition rounds. Do all lanes of a butterfly get the same sum, to the last bit?
# 3. How do 4 warps add up 128 numbers?
#
# .. dropdown:: Answers
#
#    1. Four, at the distances 8, 4, 2 and 1. No lane trades with one of the other half.
#    2. Yes: partners add the same two numbers. So all lanes agree on ``largest``, and on each weight.
#    3. Each by a butterfly, then through shared memory, one number for each warp and one barrier.
#
# **Try next.** Show the letters with growing distances, 1, 2, 4. Which has lane 3 after each step?
#
# **In the engines.** Our rung is ``attention_warp``. vLLM (``csrc/libtorch_stable/attention/``): ``qk_dot_`` in
# ``attention_utils.cuh`` is answer 1, ``block_sum`` in ``attention_kernels.cuh`` is answer 3. FlashInfer:
# ``compute_qk`` (``include/flashinfer/attention/decode.cuh``) adds up scores by butterflies.

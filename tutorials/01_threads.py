"""
01 · A thread is an index and a guard
=====================================

**How can a function without a loop double forty numbers?** Forty threads run it, and each doubles one. You will see
your first kernel run, the mistake that most first kernels make, a tool that names it, and who does what as a picture.
"""

# %%
# A :term:`kernel` is a function that a GPU, a processor made for this, runs many times at once. Each run is a
# :term:`thread`. All threads execute the same lines; the one thing in which they differ is their number. A kernel
# returns nothing: what it computes, it writes into an array.

import numpy as np

import paged_numba as pn
from paged_numba import cuda, lockstep


@cuda.jit
def double(out, x):
    i = cuda.threadIdx.x  # my number: 0 in the first thread, 1 in the second
    out[i] = 2 * x[i]


x, out = np.arange(8.0), np.zeros(8)
double[1, 8](out, x)  # one group of 8 threads
print(out)

# %%
# That was a :term:`launch`, with 1 group of 8 threads. If this computer has an NVIDIA GPU, it ran there, and the two
# :term:`host arrays <host array>`, arrays in the computer's own memory, were copied to the GPU and back. If not, it
# ran on :term:`lockstep`, a machine in this package that runs kernels with NumPy: line after line, each for all
# threads together. The kernel and the launch are the same. :doc:`GPUs in twenty minutes </gpus>` draws the machine.
#
# More elements than threads
# --------------------------
# The groups are called :term:`thread blocks <thread block>`, and have at most 1,024 threads. (With the blocks of
# lesson 00 they share only the name.) All thread blocks of a launch are its :term:`grid`. In each of them the numbers
# of the threads start from 0 again. So a thread's place in the grid is ``blockIdx.x * blockDim.x + threadIdx.x``: the
# thread blocks before mine, times the threads in each, plus the threads before me in mine.
#
# Forty elements, with 16 threads in a thread block, take 3 thread blocks. **This kernel is broken.** We do not launch
# it but give it to the :term:`sanitizer`, a tool that runs a kernel on lockstep and reports its mistakes.
#
# .. dropdown:: Predict: which threads do something that they should not?
#
#    3 thread blocks of 16 threads are 48 threads, 8 too many. Thread block 2 begins at element 32, and the last
#    element is 39, so its threads 8 to 15 read and write behind the end of the arrays.


@cuda.jit
def double_unguarded(out, x):
    i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    out[i] = 2 * x[i]


x, out = np.arange(40.0), np.zeros(40)
print(lockstep.sanitize(double_unguarded, 3, 16, out, x))

# %%
# Both :term:`findings <finding>`, as its reports are called, are :term:`out of bounds`: an index beyond the array. A
# GPU says nothing. It reads what lies there, and writes over it, perhaps over the keys of somebody else's sequence.
# The cure is a :term:`guard`, a test of the index before it is used.


@cuda.jit
def double(out, x):
    i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if i < out.size:
        out[i] = 2 * x[i]


double[3, 16](out, x)
np.testing.assert_allclose(out, 2 * x)
print(lockstep.sanitize(double, 3, 16, out, x))

# %%
# Who takes which element
# -----------------------
# Why not launch 40 threads and need no guard? The size of a thread block is chosen once, for speed; the number of
# elements changes from launch to launch. So the number of thread blocks is rounded up, and the guard stops the rest.
#
# .. dropdown:: Predict: which thread of which thread block takes element 37?
#
#    37 = 2 * 16 + 5, so thread 5 of thread block 2. See the picture; below it, the threads say so themselves.

pn.draw.Threads(3, 16, 40, title="40 elements, 3 thread blocks of 16 threads").show("01_elements.svg")

# %%
# ``cuda.grid(1)`` is short for the long expression.


@cuda.jit
def sign(thread_block, thread):
    i = cuda.grid(1)
    if i < thread.size:
        thread_block[i], thread[i] = cuda.blockIdx.x, cuda.threadIdx.x


thread_block, thread = np.zeros((2, 40), dtype=np.int64)
sign[3, 16](thread_block, thread)
print(f"element 37 was taken by thread {thread[37]} of thread block {thread_block[37]}")

# %%
# Rows and columns
# ----------------
# Keys are rows of numbers, one row for each token, so an array of keys has two dimensions. Thread blocks and grids
# can have two as well: ``x``, always named first, counts along a row, ``y`` the rows. Each needs its guard.
#
# .. dropdown:: Predict: with 8 by 4 threads in a thread block, who takes ``keys[4, 9]``?
#
#    Column 9 is x = 1 * 8 + 1 and row 4 is y = 1 * 4 + 0: thread (1, 0) of thread block (1, 1).


@cuda.jit
def scale(out, keys, factor):
    column, token = cuda.grid(2)
    if token < keys.shape[0] and column < keys.shape[1]:
        out[token, column] = factor * keys[token, column]


keys = np.arange(60.0).reshape(5, 12)  # 5 tokens, 12 numbers for each
out = np.zeros_like(keys)
scale[(2, 2), (8, 4)](out, keys, 0.5)
np.testing.assert_allclose(out, 0.5 * keys)
pn.draw.Threads((2, 2), (8, 4), (5, 12), title="Keys of 5 tokens, 2 by 2 thread blocks").show("01_keys.svg")

# %%
# **In two sentences.** A thread computes its index from the number of its thread block and its own number in it, and
# touches the element only if there is one. Which thread takes which element is your choice: it is the formula.
#
# **Check yourself.**
#
# 1. What does ``double`` write if ``cuda.blockIdx.x * cuda.blockDim.x`` is left out?
# 2. 1,000 elements, 256 threads in a thread block: how many thread blocks, and how many threads without an element?
# 3. In ``scale``, the guard tests only the token. Which element would a GPU read for ``keys[0, 12]``?
#
# .. dropdown:: Answers
#
#    1. Elements 0 to 15, each three times, once from each thread block. The other 24 stay 0.
#    2. 4 thread blocks, since 3 have only 768 threads; and 1,024 - 1,000 = 24 threads.
#    3. ``keys[1, 0]``: rows lie one after the other in memory. It is in the array and yet wrong. The sanitizer tells.
#
# **Try next.** Launch ``double[1, 16]`` with ``out = np.zeros(40)`` and look at it. Then let each thread take several
# elements, with ``for i in range(cuda.grid(1), out.size, cuda.gridsize(1))``. Where is the guard now?
#
# **In the engines.** Our ``write_kv_kernel`` (``paged_numba/kernels/write_kv.py``) is ``scale`` with one dimension
# more and a list that says where each row goes (lesson 05). In vLLM 0.6, ``reshape_and_cache_flash_kernel``
# (``csrc/cache_kernels.cu``) gives each token a thread block, whose threads walk along the row in such a loop.

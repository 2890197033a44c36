"""
03 · Why decode is bound by memory
==================================

**What keeps a GPU from answering more requests at once?** Not its arithmetic. You will see how many bytes a token
leaves behind in a real model, why the next token waits for them, and how much memory stays empty where it is reserved,
for requests as long as 19,366 real ones.
"""

# %%
# A token costs 128 KiB
# ---------------------
# The model is Llama 3 8B. It has 32 layers, one after the other, and 32 heads in each. Four heads share their keys
# and values, so a layer has 8 :term:`KV heads <KV head>`. A key is 128 numbers, and so is a value; a number takes 2
# bytes.
#
# .. dropdown:: Predict: how many bytes does one token leave behind?
#
#    32 layers, times a key and a value, times 8 KV heads, times 128 numbers, times 2 bytes: 131,072 bytes, 128 KiB.

import os

import numpy as np

import paged_numba as pn
from paged_numba.lockstep.profiler import GPUS

# config.json of Meta-Llama-3-8B: num_hidden_layers, num_attention_heads, num_key_value_heads, hidden_size / 32
layers, heads, kv_heads, head_dim = 32, 32, 8, 128
bytes_of_token = layers * 2 * kv_heads * head_dim * 2
operations = layers * heads * 4 * head_dim  # multiply and add, for the score and for the weighted value
print(f"a token leaves {bytes_of_token:,} bytes; a new token spends {operations:,} operations on it")

# %%
# Bytes and operations
# --------------------
# A step of :term:`decode` computes one new token of a sequence. Its queries need the keys and values of all tokens
# before it, and these lie in :term:`global memory`, the large memory of the GPU. A step of :term:`prefill` computes
# all tokens of a prompt: there, a key that is read once serves the queries of many tokens. Both also need the
# parameters, the fixed numbers of the model. They are read once in a step and serve all sequences in it.
#
# Operations divided by bytes are the :term:`arithmetic intensity`. A GPU has a rate of arithmetic and a
# :term:`bandwidth`, the bytes that its memory delivers per second. With few operations for each byte, arithmetic
# waits for memory: such work is :term:`memory-bound`. The :term:`roofline` is the highest rate at each intensity,
# here on an H100, NVIDIA's large GPU of 2022, by its data sheets (``gpu.source`` names them).
#
# .. dropdown:: Predict: what is the intensity of decode attention for 1,000 tokens, and for 2,000?
#
#    4 operations for each byte, for both. Twice the tokens are twice the operations and twice the bytes. It is 4
#    since 4 heads share a KV head: each number that is read is used in 4 heads, twice in each, and has 2 bytes.

gpu, parameters = GPUS["H100"], 8.03e9  # Llama 3 model card
prompt, pairs = 1024, 1024 * 1025 / 2  # pairs of a token with itself or with one before it
intensities = {
    "parameters, 1 sequence": 1 * 2 * parameters / (2 * parameters),  # multiply and add, by bytes
    "parameters, 64 sequences": 64 * 2 * parameters / (2 * parameters),
    "attention, decode": operations / bytes_of_token,  # queries and results are few bytes, and left out
    "attention, prefill of 1,024": operations * pairs / (prompt * bytes_of_token),
}
roofline = pn.draw.Roofline(gpu.bandwidth, gpu.float16, intensities, title="Llama 3 8B on an H100")
roofline.show("03_roofline.svg")

# %%
# More sequences in a step make better use of the parameters. Keys and values are each sequence's own: decode
# attention stays at 4. (Tensor cores, units for matrix products, raise the roof to 989e12 operations per second. On
# the slope nothing changes.) So a server wants many sequences in a step. How many fit? Of 80 GB, the parameters leave
# room for this many :term:`slots <slot>`:

slots = int((80e9 - 2 * parameters) / bytes_of_token)
milliseconds = 1e3 * slots * bytes_of_token / gpu.bandwidth
print(f"{slots:,} slots; to read them all takes {milliseconds:.0f} ms, in every step")

# %%
# What reserving wastes
# ---------------------
# A table of :term:`quantiles <quantile>` describes the requests: 10 % of the prompts have up to 207 tokens, 20 % up
# to 387, and so on. From a random number between 0 and 100 it gives a length. Its source is the Azure LLM inference
# trace 2023, conversations (Azure Public Dataset, CC-BY; Patel et al., "Splitwise", ISCA 2024). If you have the file,
# say where: ``AZURE_TRACE=AzureLLMInferenceTrace_conv.csv python 03_bound_by_memory.py``.

percent = [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 100]
prompt_quantiles = [2, 207, 387, 403, 703, 1020, 1071, 1130, 1315, 2735, 4083, 4142, 14050]
answer_quantiles = [7, 54, 77, 91, 103, 129, 177, 384, 400, 424, 451, 601, 1000]
draws = 100 * np.random.default_rng(3).random((2, 2000))
prompts = np.interp(draws[0], percent, prompt_quantiles).astype(int)
answers = np.interp(draws[1], percent, answer_quantiles).astype(int)
if "AZURE_TRACE" in os.environ:
    prompts, answers = np.loadtxt(os.environ["AZURE_TRACE"], int, delimiter=",", skiprows=1, usecols=(1, 2)).T

# %%
# The paper on paged attention (Kwon et al., SOSP 2023) counts the slots in each step. Some hold tokens. Some are
# reserved: empty now, filled later. Some will never be filled, which shows only at the end: :term:`internal
# fragmentation`. And some are left over, in a piece too small for anybody: :term:`external fragmentation`. A
# reservation, here of 16,384 slots, is just a very large block, so one formula does for both.
#
# .. dropdown:: Predict: how many reservations of that size fit, and how many sequences in blocks of 16?
#
#    29 reservations, and about 12 times as many with small blocks: the reserved memory is almost empty.

step = np.concatenate([np.arange(1, answer + 1) for answer in answers])  # all steps of each request in turn
held = np.repeat(prompts, answers) + step
final = np.repeat(prompts + answers, answers)
print("block_size  sequences   tokens  reserved  internal  external")
for block_size in (16384, 256, 16):
    usable = slots // block_size * block_size
    taken = -(-held // block_size) * block_size
    filled = np.minimum(taken, final)  # when the request ends
    at_once = usable / taken.mean()  # sequences
    kinds = [at_once * kind.mean() for kind in (held, filled - held, taken - filled)] + [slots - usable]
    print(f"{block_size:10}  {at_once:9.0f}", *(f"{100 * kind / slots:7.1f} %" for kind in kinds))

# %%
# Kwon et al. measured tokens in 20.4 % of the memory for a server that reserves 2,048 slots, and in 96.3 % for vLLM.
#
# **In two sentences.** Decode attention spends 4 operations on a byte where the GPU could do 40, so it runs at the
# pace of memory, and only more sequences in a step make better use of the rest. They fit in if no memory is set aside
# for tokens that may never come.
#
# **Check yourself.**
#
# 1. Would a GPU with twice the rate of arithmetic decode faster?
# 2. Llama 2 7B has 32 layers, too, but 32 KV heads. How many bytes has a token, and what is the intensity?
# 3. Why is almost nothing lost to internal fragmentation with blocks of 16?
#
# .. dropdown:: Answers
#
#    1. Its attention would not: point 3 of the picture lies on the slope, which only bandwidth moves.
#    2. Four times as many, 524,288 bytes, for the same operations: 1 operation for each byte.
#    3. The empty slots of a last block are filled by the next tokens; only what the very last one leaves is lost.
#
# **Try next.** Add blocks of 1 and of 2,048 to the loop. Which one would you choose, and what speaks against it?
#
# **In the engines.** Our ``paged-numba replay`` runs whole traces against a pool. In vLLM,
# ``AttentionSpec.page_size_bytes`` (``vllm/v1/kv_cache_interface.py``) is the size of a block in one layer, and
# ``get_num_blocks`` (``vllm/v1/core/kv_cache_utils.py``) divides the memory that is left by it.

"""A trace of real requests replayed against a pool of KV blocks, beside contiguous reservations.

The trace says when requests came and how many tokens each has; what is replayed is the memory (see `simulation`
for time, `recording` for what counts as waste). Blocks come from `BlockAllocator`, the same that serves a model.

Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention", SOSP 2023, reported
that tokens fill 20.4 % of the memory where the maximum length is reserved, 26.8 % with the next power of two, 38.2 %
with the exact length and 96.3 % with paging (figure 2), and 2 to 4 times the throughput. Replayed here, with the
same pool for all, Mooncake's trace: 10.4 %, 74.6 %, 75.0 % and, with blocks of 16, 99.94 %; paging runs 10.2, 1.32
and 1.31 times as many requests at once as the three reservations.
"""

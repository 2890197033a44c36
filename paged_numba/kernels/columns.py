"""Columns of the arrays `rows` and `tiles`, which tell attention kernels what to compute.

A row stands for a query token and the keys that it sees, or part of them: the token, its sequence, its position in
the sequence, and the keys from ``ROW_FIRST`` up to but not including ``ROW_END``. A tile is a group of rows that one
thread block computes: the first row, the number of rows, the keys that any row sees, and the keys that all rows see.
"""

ROW_TOKEN, ROW_SEQ, ROW_POSITION, ROW_FIRST, ROW_END = range(5)
NUM_ROW_COLUMNS = 5

TILE_ROW, TILE_SIZE, TILE_ANY_FIRST, TILE_ANY_END, TILE_ALL_FIRST, TILE_ALL_END = range(6)
NUM_TILE_COLUMNS = 6

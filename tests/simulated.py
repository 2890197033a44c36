"""Script of `test_cudasim.py`: runs every operation on tiny ragged batches, on Numba's simulator or on lockstep.

``python simulated.py FILE PART`` saves the results of one part of the batches on the process's target.
"""

import os
import sys

import ml_dtypes
import numpy as np

import paged_numba as pn
from paged_numba.ops import layouts

# Without "warp": Numba's simulator has no shuffles.
ALGORITHMS = ("naive", "block", "tile", "split", "cascade")
STORAGE = [
    (np.dtype(np.float32), "NHD"),
    (np.dtype(np.float32), "HND"),
    (np.dtype(ml_dtypes.bfloat16), "NHD"),
    (np.dtype(ml_dtypes.float8_e4m3fn), "HND"),
    (np.dtype(np.float16), "packed"),
]
NUM_PARTS = 2  # processes at once
LENS = np.array([3, 0, 5], np.int32)
STARTS = np.array([0, 2, 2, 3], np.int32)
TABLES = np.array([[4, -1, 2**30], [-7, 0, 0], [1, 3, 0]], np.int32)
SLOTS = np.array([12, 13, 14, -1, 3, 4, 5, 9, 10])
BLOCK_SIZE = 3
OPTIONS = {"window": 4, "softcap": 5.0, "alibi_slopes": np.array([0.5, 0.1]), "sinks": np.array([1.0, -2.0])}


def batch(dtype, layout):
    """Return query, key and value, and caches filled with NaN."""
    rng = np.random.default_rng(0)
    head_dim = 8 if layout == "packed" else 3
    key, value = rng.standard_normal((2, len(SLOTS), 1, head_dim)).astype(dtype)
    shapes = layouts.cache_shapes(layout, dtype, 5, BLOCK_SIZE, 1, head_dim)
    caches = [np.full(shape, np.nan, dtype) for shape in shapes]
    query = (3 * rng.standard_normal((3, 2, head_dim))).astype(dtype if dtype.itemsize > 1 else np.float32)
    return query, key, value, caches


def algorithms(dtype, layout):
    """Return the algorithms to run for a storage; cascade is run once, since it launches the kernels of split."""
    if layout == "packed":
        return ("auto",)
    return ALGORITHMS if dtype == np.float32 else ALGORITHMS[:-1]


def run(target="auto", part=None):
    """Yield the name and the value of each result, of all batches or of one of `NUM_PARTS` parts."""
    for dtype, layout in STORAGE if part is None else STORAGE[part::NUM_PARTS]:
        name = f"{dtype.name} {layout}"
        where = {"layout": layout, "target": target}
        query, key, value, caches = batch(dtype, layout)
        # The first sequence lies in block 4, the last one in blocks 1 and 3.
        pn.write_kv(key, value, *caches, SLOTS, **where)
        pn.copy_blocks(*caches, np.array([[4, 2]]), **where)
        for what, cache in zip(("keys", "values"), caches, strict=True):
            yield f"{name} cached {what}", cache
        yield f"{name} gathered", np.stack(pn.gather_kv(*caches, TABLES[2], 5, **where))
        for algorithm in algorithms(dtype, layout):
            options = {"causal": False, "scale": 0.3} if layout == "HND" else OPTIONS
            if dtype.itemsize == 1:
                options = {**options, "k_scale": 0.5, "v_scale": np.array([2.0])}
            results = pn.paged_attention(
                query, *caches, TABLES, LENS, cu_seqlens_q=STARTS, **options, return_lse=True,
                algorithm=algorithm, num_splits=2 if algorithm == "split" else None, **where,
            )  # fmt: skip
            for what, result in zip(("out", "lse"), results, strict=True):
                yield f"{name} {algorithm} {what}", result
        if layout == "NHD" and dtype.itemsize > 1:
            out, lse = results
            merged = pn.merge_states(out, lse, out[::-1].copy(), lse[::-1].copy(), target=target)
            for what, result in zip(("out", "lse"), merged, strict=True):
                yield f"{name} merged {what}", result


if __name__ == "__main__":
    from paged_numba import targets

    assert targets.resolve() == "cudasim", targets.resolve()
    if hasattr(os, "sched_setaffinity"):
        # The simulator's threads run one at a time. On one core they take turns four times as fast as across cores.
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(sys.argv[2]) % len(cores)]})
    # As bits: NumPy's files cannot store ml_dtypes.
    results = run(part=int(sys.argv[2]))
    np.savez(sys.argv[1], **{name: result.view(f"u{result.itemsize}") for name, result in results})

"""Attention over the sizes of real models, and over sizes that no model has, within fixed tolerances.

The default profile draws a few cells of the grid; with ``--hypothesis-profile=thorough`` each cell is a separate test.
"""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paged_numba.testing import properties
from paged_numba.testing.strategies import STORAGE, grid_batches

TARGET = "lockstep"
GRID = list(
    itertools.product(
        STORAGE,
        (64, 80, 96, 112, 120, 128, 192, 256),
        (8, 16, 32),
        ((40, 40), (64, 8), (8, 2), (5, 1)),
    )
)
DRAWN = settings.default.max_examples
THOROUGH = DRAWN > 100


def cell_name(places):
    if len(places) > 1:
        return "any"
    storage, head_dim, block_size, (num_q_heads, num_kv_heads) = GRID[places[0]]
    return f"{storage.name}-{head_dim}-{block_size}-{num_q_heads}x{num_kv_heads}"


def every_algorithm(data):
    splits = data.draw(st.integers(1, 5), label="num_splits")
    return [*((name, None) for name in ("naive", "warp", "block", "tile", "cascade")), ("split", splits)]


@pytest.mark.parametrize(
    "places", [[place] for place in range(len(GRID))] if THOROUGH else [range(len(GRID))], ids=cell_name
)
@settings(max_examples=DRAWN // 200 if THOROUGH else DRAWN // 5)
@given(data=st.data())
def test_attention_is_as_exact_as_dense_attention(places, data):
    storage, head_dim, block_size, heads = GRID[data.draw(st.sampled_from(places), label="cell")]
    batch = data.draw(grid_batches(storage, head_dim, block_size, *heads), label="batch")
    properties.attention_is_as_exact_as_dense_attention(batch, every_algorithm(data), TARGET)


# Few examples for each group, so that every one is met.
@pytest.mark.parametrize("group", [1, 3, 5, 7, 16, 64])
@settings(max_examples=DRAWN // 8 if THOROUGH else DRAWN // 10)
@given(data=st.data())
def test_any_group_head_dim_and_block_size(group, data):
    storage = data.draw(st.sampled_from(STORAGE), label="dtype of the cache")
    head_dim = data.draw(st.sampled_from((13, 40)) | st.integers(1, 256), label="head_dim")
    block_size = data.draw(st.integers(1, 256), label="block_size")
    num_kv_heads = data.draw(st.integers(1, 2 if group < 16 else 1), label="num_kv_heads")
    batch = data.draw(
        grid_batches(storage, head_dim, block_size, group * num_kv_heads, num_kv_heads), label="batch"
    )
    properties.attention_is_as_exact_as_dense_attention(batch, every_algorithm(data), TARGET)

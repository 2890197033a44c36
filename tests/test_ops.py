"""The operations against oracles that share no code with the kernels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba import lockstep
from paged_numba.kernels.columns import TILE_ROW
from paged_numba.testing import properties
from paged_numba.testing.large_scores import large_score_batches, large_scores_lose_no_digit
from paged_numba.testing.strategies import paged_batches, seeds, tokens_to_write

TARGET = "lockstep"
algorithms = pytest.mark.parametrize("algorithm", ["naive", "warp", "block", "tile", "split", "cascade"])
orders = st.sampled_from(("together", "forward", "reverse"))


@algorithms
@given(batch=paged_batches(), order=orders)
def test_attention_agrees_with_the_oracle(batch, order, algorithm):
    with lockstep.options(order=order):
        properties.attention_agrees_with_the_oracle(batch, algorithm, TARGET)


@algorithms
@given(batch=paged_batches(infinite_keys=True))
def test_scores_of_minus_infinity_weigh_nothing(batch, algorithm):
    properties.attention_agrees_with_the_oracle(batch, algorithm, TARGET)


@given(batch=paged_batches(plain=True, infinite_keys=True), cut=st.floats(0, 1))
def test_merging_parts_of_scores_of_minus_infinity_is_attention_to_the_whole(batch, cut):
    properties.merging_parts_is_attention_to_the_whole(batch, cut, TARGET)


@algorithms
@settings(max_examples=settings.default.max_examples // 2)
@given(batch=paged_batches(), positions=st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_no_token_notices_what_it_does_not_see(batch, positions, algorithm):
    places = positions[: len(batch.seq_lens)]
    properties.no_token_notices_what_it_does_not_see(batch, places, algorithm, TARGET)


def test_a_row_that_sees_no_key_of_a_tile_stays_as_it_was():
    properties.a_row_that_sees_no_key_of_a_tile_stays_as_it_was(TARGET)


splitting = pytest.mark.parametrize("algorithm", ["split", "block"])


@splitting
@given(batch=paged_batches(), num_splits=st.integers(1, 9))
def test_attention_agrees_with_the_oracle_for_any_number_of_splits(batch, num_splits, algorithm):
    properties.attention_agrees_with_the_oracle(batch, algorithm, TARGET, num_splits)


@algorithms
@settings(max_examples=settings.default.max_examples // 2)
@given(batch=large_score_batches())
def test_large_scores_lose_no_digit(batch, algorithm):
    large_scores_lose_no_digit(batch, algorithm, TARGET)


@settings(max_examples=settings.default.max_examples // 2)
@given(batch=large_score_batches(layout="packed"))
def test_large_scores_lose_no_digit_in_packed_caches(batch):
    large_scores_lose_no_digit(batch, "auto", TARGET)


@splitting
@settings(max_examples=settings.default.max_examples // 2)
@given(batch=large_score_batches(), num_splits=st.integers(1, 9))
def test_large_scores_lose_no_digit_in_any_number_of_splits(batch, num_splits, algorithm):
    large_scores_lose_no_digit(batch, algorithm, TARGET, num_splits)


@given(tokens=tokens_to_write())
def test_write_puts_each_token_into_its_slot(tokens):
    properties.write_puts_each_token_into_its_slot(tokens, TARGET)


@given(batch=paged_batches())
def test_gather_returns_what_was_written(batch):
    properties.gather_returns_what_was_written(batch, TARGET)


@given(tokens=tokens_to_write(), seed=seeds)
def test_copy_duplicates_blocks(tokens, seed):
    order = np.random.default_rng(seed).permutation(tokens.caches.shape[1])
    properties.copy_duplicates_blocks(tokens, order, TARGET)


@algorithms
def test_attention_by_hand(algorithm):
    # Two tokens, scores 0 and ln 3: weights 1/4 and 3/4, so 1/4 * 8 + 3/4 * 4 = 5; LSE = ln(1 + 3).
    key_cache = np.array([[[[np.log(3)]]], [[[np.nan]]], [[[0.0]]]], np.float32)
    value_cache = np.array([[[[4.0]]], [[[np.nan]]], [[[8.0]]]], np.float32)
    out, lse = pn.paged_attention(
        np.ones((1, 1, 1), np.float32),
        key_cache,
        value_cache,
        np.array([[2, 0]], np.int32),
        np.array([2], np.int32),
        return_lse=True,
        algorithm=algorithm,
        target=TARGET,
    )
    np.testing.assert_allclose(out, [[[5.0]]], rtol=1e-6)
    np.testing.assert_allclose(lse, [[np.log(4)]], rtol=1e-6)


@algorithms
def test_huge_scores_do_not_overflow(algorithm):
    # exp(1000) is infinite in float32: only differences of scores may be exponentiated.
    key_cache = np.array([1000.0, 999.0], np.float32).reshape(1, 2, 1, 1)
    value_cache = np.array([1.0, 0.0], np.float32).reshape(1, 2, 1, 1)
    out, lse = pn.paged_attention(
        np.ones((1, 1, 1), np.float32),
        key_cache,
        value_cache,
        np.zeros((1, 1), np.int32),
        np.array([2], np.int32),
        return_lse=True,
        algorithm=algorithm,
        target=TARGET,
    )
    np.testing.assert_allclose(out, [[[1 / (1 + np.exp(-1))]]], rtol=1e-6)
    np.testing.assert_allclose(lse, [[1000 + np.log1p(np.exp(-1))]], rtol=1e-6)


@algorithms
def test_empty_sequence_gives_zero_and_minus_infinity(algorithm):
    out, lse = pn.paged_attention(
        np.full((1, 2, 3), 5, np.float32),
        *np.full((2, 1, 4, 1, 3), np.nan, np.float32),
        np.array([[-1]], np.int32),
        np.array([0], np.int32),
        return_lse=True,
        algorithm=algorithm,
        target=TARGET,
    )
    np.testing.assert_array_equal(out, np.zeros((1, 2, 3)))
    np.testing.assert_array_equal(lse, np.full((1, 2), -np.inf))


def test_options_by_hand():
    # One head of one dimension, query 1 at position 2, keys 0, ln 2, 0 at positions 0 to 2, values 1, 10, 100.
    key_cache = np.array([0, np.log(2), 0], np.float32).reshape(1, 3, 1, 1)
    value_cache = np.array([1, 10, 100], np.float32).reshape(1, 3, 1, 1)

    def attend(**options):
        out, lse = pn.paged_attention(
            np.ones((1, 1, 1), np.float32),
            key_cache,
            value_cache,
            np.zeros((1, 1), np.int32),
            np.array([3], np.int32),
            return_lse=True,
            target=TARGET,
            **options,
        )
        return float(out[0, 0, 0]), float(np.exp(lse[0, 0]))

    # Weights 1, 2, 1.
    assert attend() == pytest.approx((121 / 4, 4))
    # The last two keys: 2, 1.
    assert attend(window=2) == pytest.approx((120 / 3, 3))
    # A slope of ln 2 divides a weight by 2 for each position back: 1/4, 2/2, 1.
    assert attend(alibi_slopes=np.array([np.log(2)])) == pytest.approx(((0.25 + 10 + 100) / 2.25, 2.25))
    # A sink of ln 4 has weight 4.
    assert attend(sinks=np.array([np.log(4)])) == pytest.approx((121 / 8, 8))
    # softcap c turns ln 2 into c tanh(ln 2 / c): for c = ln 2 into 0.7616 ln 2.
    weight = 2 ** np.tanh(1)
    assert attend(softcap=float(np.log(2))) == pytest.approx(((101 + 10 * weight) / (2 + weight), 2 + weight))


def test_cascade_loads_what_sequences_share_once_for_all_of_them():
    # 4 sequences of 64 tokens in 4 shared blocks and 16 of their own; one KV head, 4 query heads: 16 rows, one tile.
    rng = np.random.default_rng(0)
    keys, values = rng.standard_normal((2, 8, 16, 1, 32)).astype(np.float32)
    query = rng.standard_normal((4, 4, 32)).astype(np.float32)
    tables = np.array([[0, 1, 2, 3, own] for own in (4, 5, 6, 7)], np.int32)
    lens = np.full(4, 80, np.int32)
    loaded, results = {}, {}
    for algorithm in ("tile", "cascade"):
        with lockstep.profiling() as report:
            results[algorithm] = pn.paged_attention(
                query, keys, values, tables, lens, algorithm=algorithm, target=TARGET
            )
        loaded[algorithm] = [report.memory(array=name).bytes_asked for name in ("key_cache", "value_cache")]
    np.testing.assert_allclose(results["cascade"], results["tile"], rtol=1e-5, atol=1e-6)
    token = 32 * 4
    assert loaded["tile"] == [4 * (64 + 16) * token] * 2
    assert loaded["cascade"] == [(64 + 4 * 16) * token] * 2


def test_auto_splits_long_sequences_of_small_batches_and_says_why():
    def choose(chunks, length, **options):
        starts = np.cumsum([0, *chunks])
        sizes = {"num_q_heads": 32, "num_kv_heads": 8, "multiprocessors": 132}
        return pn.plan.choose(np.full(len(chunks), length), starts, **sizes, **options)

    assert choose([1] * 33, 4096).why == "33 tiles of query tokens x 8 KV heads occupy 132 multiprocessors"
    assert choose([1], 100).why.endswith("and each token sees at most 100 keys, too few to split")
    # 8 thread blocks for 264 wanted: 33 splits, of which 4,096 tokens allow 16.
    choice = choose([1], 4096)
    assert (choice.algorithm, choice.num_splits) == ("split", 16)
    assert (
        choice.why == "1 tile of query tokens x 8 KV heads, too few for 132 multiprocessors: 16 splits each"
    )
    # A window leaves fewer keys to split.
    assert choose([1], 4096, window=1024).num_splits == 4
    # 16 rows to a tile are 4 query tokens x 4 heads: 129 tokens are 33 tiles.
    assert choose([129], 4096) == choose([1] * 33, 4096)


def test_auto_takes_what_is_fastest_on_its_target_and_says_why():
    sizes = {"num_q_heads": 32, "num_kv_heads": 8, "multiprocessors": 132}
    for target, algorithm in {"lockstep": "block", "cudasim": "naive"}.items():
        choice = pn.plan.choose([100], [0, 1], **sizes, target=target)
        assert choice[:2] == (algorithm, 1)
        assert choice.why == f"{algorithm} is the fastest algorithm on the target {target}"
    with pytest.raises(ValueError, match="target must be one of cuda, lockstep, cudasim, got target='auto'"):
        pn.plan.choose([4096], [0, 1], **sizes, target="auto")
    with lockstep.profiling() as report:
        pn.paged_attention(
            np.ones((1, 4, 8), np.float32),
            *np.zeros((2, 4, 4, 2, 8), np.float32),
            [[1, 0]],
            [6],
            target=TARGET,
        )
    assert [kernel["kernel"] for kernel in report.kernels] == ["attention_block_kernel"]


def test_on_lockstep_small_batches_of_long_sequences_are_split():
    def choose(chunks, length, **options):
        starts = np.cumsum([0, *chunks])
        sizes = {"num_q_heads": 9, "num_kv_heads": 3, "multiprocessors": 1, "head_dim": 64}
        return pn.plan.choose(np.full(len(chunks), length), starts, **sizes, target="lockstep", **options)

    # A thread block of 64 threads takes 64 keys a turn: 4 turns for 256 keys. 9 x 64 threads allow 28 splits.
    assert choose([1], 256)[:2] == ("block", 4)
    assert choose([1], 256).why == (
        "block is the fastest algorithm on the target lockstep; 576 threads are few: 4 splits each"
    )
    # 63 turns, 3 in each of 21 splits.
    assert choose([1], 4000).num_splits == 21
    assert choose([1], 4000, window=100).num_splits == 2
    assert choose([1] * 8, 256).num_splits == 2
    # Enough threads, or a single turn.
    assert choose([1] * 15, 256).num_splits == choose([64], 256).num_splits == choose([1], 64).num_splits == 1
    # Blocks of 48 tokens leave a quarter of the threads without a key: 5 turns for 240 keys, 6 for 241.
    assert choose([1], 240, block_size=48).num_splits == 5
    assert choose([1], 241, block_size=48).num_splits == 6
    assert choose([], 256).num_splits == 1


def test_a_plan_says_what_runs_and_why():
    lens, starts, tables = np.array([300, 40]), np.array([0, 1, 18]), np.arange(40).reshape(2, 20)
    rows = pn.plan.query_rows(lens, starts, True, None)

    def plan(algorithm, num_splits=None, layout="NHD"):
        return pn.plan.plan_attention(
            rows, lens, starts, tables, block_size=16, num_q_heads=4, num_kv_heads=2, head_dim=64,
            value_head_dim=64, window=None, algorithm=algorithm, num_splits=num_splits, layout=layout,
            target=TARGET,
        )  # fmt: skip

    block = plan("block")
    assert (block.algorithm, block.tiles, block.num_parts) == ("block", None, 1)
    assert block.why == "algorithm='block' was requested"
    assert block.rows is rows
    # 18 tokens x 4 heads x 64 threads allow 3 splits, 300 keys are 5 turns of 64: 2 in each split.
    auto = plan("auto")
    assert (auto.algorithm, auto.tiles, auto.num_parts, len(auto.rows)) == ("block", None, 3, 3 * 18)
    assert auto.why.endswith("4608 threads are few: 3 splits each")
    assert plan("block", 3).rows.tolist() == auto.rows.tolist() == plan("split", 3).rows.tolist()
    tile = plan("tile")
    # 8 tokens of 2 heads fill a tile of 16 rows: 1 token, then 17 in three tiles.
    assert tile.tiles[:, TILE_ROW].tolist() == [0, 1, 9, 17]
    assert (tile.num_parts, tile.why) == (1, "algorithm='tile' was requested")
    split = plan("split", 3)
    assert (split.num_parts, len(split.rows), len(split.tiles)) == (3, 3 * 18, 3 * 4)
    assert plan("split").num_parts == 2
    assert plan("cascade").num_parts == 2
    assert plan("auto", layout="packed").algorithm == "packed"


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"num_kv_heads": 0}, ValueError, "num_kv_heads must be positive, got num_kv_heads=0"),
        (
            {"num_kv_heads": 3},
            ValueError,
            "num_q_heads must be a multiple of num_kv_heads=3, got num_q_heads=32",
        ),
        (
            {"multiprocessors": 1.5},
            TypeError,
            r"multiprocessors must be an integer, got multiprocessors=1\.5",
        ),
        ({"window": 0}, ValueError, "window must be positive, got window=0"),
        (
            {"seq_lens": [1, 2]},
            ValueError,
            r"cu_seqlens_q must have shape \[3\], got cu_seqlens_q.shape=\(2,\)",
        ),
        ({"seq_lens": 9}, ValueError, r"seq_lens must have shape \[num_seqs\], got seq_lens.shape=\(\)"),
        ({"seq_lens": [9.0]}, TypeError, "seq_lens must hold integers, got seq_lens.dtype=float64"),
        ({"seq_lens": [-1]}, ValueError, r"seq_lens must lie in 0 \.\. 2147483647 .*, got seq_lens\[0\]=-1"),
        ({"seq_lens": [2**31]}, ValueError, r"got seq_lens\[0\]=2147483648"),
        ({"seq_lens": None}, TypeError, "seq_lens must be an array, got NoneType"),
        ({"cu_seqlens_q": None}, TypeError, "cu_seqlens_q must be an array, got NoneType"),
        ({"cu_seqlens_q": [1, 2]}, ValueError, r"cu_seqlens_q must begin with 0, got cu_seqlens_q\[0\]=1"),
        ({"cu_seqlens_q": [0, -1]}, ValueError, r"must not decrease, got cu_seqlens_q\[0\]=0 and .*\[1\]=-1"),
        (
            {"cu_seqlens_q": np.array([0, 2, 1]), "seq_lens": [9, 9]},
            ValueError,
            r"\[1\]=2 and cu_seqlens_q\[2\]=1",
        ),
        (
            {"cu_seqlens_q": [0, 0.5]},
            TypeError,
            "cu_seqlens_q must hold integers, got cu_seqlens_q.dtype=float64",
        ),
    ],
)
def test_a_plan_of_nonsense_is_refused_by_name(wrong, error, message):
    right = {
        "seq_lens": [9],
        "cu_seqlens_q": [0, 1],
        "num_q_heads": 32,
        "num_kv_heads": 8,
        "multiprocessors": 132,
    }
    assert pn.plan.choose(**right).algorithm == "tile"
    with pytest.raises(error, match=message):
        pn.plan.choose(**{**right, **wrong})


def test_batch_without_sequences_gives_empty_arrays():
    out, lse = pn.paged_attention(
        np.zeros((0, 2, 3), np.float32),
        *np.zeros((2, 1, 4, 1, 3), np.float32),
        np.zeros((0, 1), np.int32),
        np.zeros(0, np.int32),
        return_lse=True,
        target=TARGET,
    )
    assert out.shape == (0, 2, 3)
    assert lse.shape == (0, 2)


@given(batch=paged_batches(plain=True))
def test_out_receives_the_result_and_tables_of_any_integers_are_taken(batch):
    expected = pn.paged_attention(
        batch.query, batch.key_cache, batch.value_cache, batch.block_tables, batch.seq_lens, target=TARGET
    )
    out = np.full_like(batch.query, np.nan)
    returned = pn.paged_attention(
        batch.query,
        batch.key_cache,
        batch.value_cache,
        batch.block_tables.astype(np.int64).tolist(),
        batch.seq_lens.astype(np.uint8),
        out=out,
        target=TARGET,
    )
    assert returned is out
    np.testing.assert_array_equal(out, expected)


def test_slot_45_is_offset_13_of_block_2():
    key, value = np.ones((1, 1, 1), np.float32), np.full((1, 1, 1), 2, np.float32)
    caches = np.zeros((2, 4, 16, 1, 1), np.float32)
    pn.write_kv(key, value, *caches, np.array([45]), target=TARGET)
    assert np.argwhere(caches).tolist() == [[0, 2, 13, 0, 0], [1, 2, 13, 0, 0]]

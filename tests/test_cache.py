"""The cache: allocator, kernels and dense attention in step, and failures that change nothing."""

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.ops import checks
from paged_numba.ops.attention import AttentionOptions
from paged_numba.testing.machines import cache_machine
from paged_numba.testing.properties import assert_same_bits

TestCache = cache_machine().TestCase


def tokens(count, seed=0):
    return np.random.default_rng(seed).standard_normal((2, count, 2, 3)).astype(np.float32)


def cache(num_blocks=3):
    return pn.PagedKVCache(num_blocks, 4, num_kv_heads=2, head_dim=3, target="lockstep")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: c.add("a", *tokens(1)), pn.DuplicateSequenceError, "already has the id 'a'"),
        (lambda c: c.add("b", *tokens(5)), pn.OutOfBlocksError, "needs 2 blocks, 1 is free"),
        (lambda c: c.append("b", *tokens(1)), pn.UnknownSequenceError, "no sequence has the id 'b'"),
        (lambda c: c.append("a", *tokens(0)), ValueError, "tokens must be positive"),
        (lambda c: c.add("b", *tokens(1).astype(float)), TypeError, "key must have dtype float32"),
        (lambda c: c.append("a", tokens(2)[0], tokens(1)[1]), ValueError, "value must have shape"),
        (lambda c: c.append("a", *tokens(1)[..., :2]), ValueError, "key must have shape"),
        (lambda c: c.fork("b", "c"), pn.UnknownSequenceError, "'b'"),
        (lambda c: c.free("b"), pn.UnknownSequenceError, "'b'"),
        (lambda c: c.attend(["b"], tokens(1)[0]), pn.UnknownSequenceError, "'b'"),
        (lambda c: c.gather("b"), pn.UnknownSequenceError, "'b'"),
    ],
)
def test_call_that_fails_changes_nothing(call, error, message):
    subject = cache()
    subject.add("a", *tokens(6))
    key_cache, value_cache = subject.key_cache.copy(), subject.value_cache.copy()
    with pytest.raises(error, match=message):
        call(subject)
    np.testing.assert_array_equal(subject.key_cache, key_cache)
    np.testing.assert_array_equal(subject.value_cache, value_cache)
    assert list(subject.allocator) == ["a"]
    assert subject.allocator.num_free_blocks == 1
    subject.allocator.check()


def test_sizes_must_be_positive():
    with pytest.raises(ValueError, match=r"num_kv_heads must lie in 1 .. 65535, got num_kv_heads=0"):
        pn.PagedKVCache(1, 1, 0, 1, target="lockstep")
    with pytest.raises(ValueError, match="num_blocks must be positive, got num_blocks=0"):
        pn.PagedKVCache(0, 1, 1, 1, target="lockstep")


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ((4, 65536, 1, 1), ValueError, r"block_size must lie in 1 \.\. 65535, got block_size=65536"),
        ((4, 4, 1, 1025), ValueError, r"head_dim must lie in 1 \.\. 1024, got head_dim=1025"),
        ((4, 4, "2", 1), TypeError, "num_kv_heads must be an integer, got num_kv_heads='2'"),
        ((4, 4, 1, 2.0), TypeError, r"head_dim must be an integer, got head_dim=2\.0"),
    ],
)
def test_sizes_that_the_kernels_do_not_run_are_refused(sizes, error, message):
    with pytest.raises(error, match=message):
        pn.PagedKVCache(*sizes, target="lockstep")


class Fake:
    """An object that has a shape and a dtype, but no memory."""

    shape, dtype = (1, 2, 3), np.dtype(np.float32)


def test_tokens_that_are_no_array_take_no_block():
    subject = cache()
    subject.add("a", *tokens(3))
    with pytest.raises(TypeError, match="key must be an array, got Fake"):
        subject.append("a", Fake(), Fake())
    assert subject.allocator.seq_len("a") == 3


def test_query_needs_a_row_for_each_sequence():
    subject = cache()
    subject.add("a", *tokens(3))
    with pytest.raises(
        ValueError, match=r"query must have a row for each of the 1 seq_ids, got query\.shape=\(2, 2, 3\)"
    ):
        subject.attend(["a"], np.ones((2, 2, 3), np.float32))
    assert subject.attend((name for name in "a"), np.ones((1, 2, 3), np.float32)).shape == (1, 2, 3)


def test_sequence_may_occur_twice_in_a_batch():
    subject = cache()
    subject.add("a", *tokens(6))
    query = np.ones((2, 2, 3), np.float32)
    out = subject.attend(["a", "a"], query)
    np.testing.assert_array_equal(out[0], out[1])


def test_swap_keeps_every_bit_and_only_free_and_swap_in_take_a_swapped_sequence():
    subject = cache(4)
    key, value = tokens(6)
    key[0, 0, 0], value[5, 1, 2] = np.nan, -0.0
    subject.add("a", key, value)
    subject.fork("a", "b")
    subject.swap_out("a")
    assert subject.allocator.num_free_blocks == 2
    for call in (
        lambda: subject.attend(["a"], tokens(1)[0]),
        lambda: subject.append("a", *tokens(1)),
        lambda: subject.fork("a", "c"),
        lambda: subject.gather("a"),
        lambda: subject.preempt("a"),
        lambda: subject.swap_out("a"),
        lambda: subject.release("a", 1),
    ):
        with pytest.raises(pn.SwappedSequenceError, match="the sequence 'a' is swapped out"):
            call()
    with pytest.raises(ValueError, match="must name a sequence that is swapped out, got seq_id='b'"):
        subject.swap_in("b")
    subject.add("c", *tokens(1))
    with pytest.raises(pn.OutOfBlocksError, match="swap_in of 6 tokens needs 2 blocks, 1 is free"):
        subject.swap_in("a")
    subject.free("c")
    subject.swap_in("a")
    # b keeps the blocks that both had, a has its own.
    assert not set(subject.allocator.block_table("a")) & set(subject.allocator.block_table("b"))
    for gathered, written in zip(subject.gather("a"), (key, value), strict=True):
        np.testing.assert_array_equal(gathered.view(np.uint32), written.view(np.uint32))
    subject.allocator.check()


def test_released_tokens_are_not_gathered_and_survive_a_swap():
    subject = cache(4)
    key, value = tokens(11)
    subject.add("a", key, value)
    # Token 10 sees 7 to 10: of 4 + 4 + 3 tokens the first 4 are released.
    assert subject.release("a", 4) == 1
    assert subject.block_tables(["a"]).tolist() == [[-1, 1, 2]]
    subject.swap_out("a")
    subject.swap_in("a")
    assert subject.allocator.block_table("a").tolist()[0] == -1
    np.testing.assert_array_equal(subject.gather("a"), np.stack([key, value])[:, 4:])
    with pytest.raises(ValueError, match=r"4 <= start <= stop <= 11 .*got start=3 stop=5"):
        subject.allocator.slots("a", 3, 5)


@given(
    dtype=st.sampled_from(["float32", "float16", "bfloat16", "float8_e4m3fn"]),
    layout=st.sampled_from(["NHD", "HND", "packed"]),
    num_layers=st.integers(1, 3),
    lens=st.lists(st.integers(1, 11), min_size=1, max_size=3),
    scales=st.booleans(),
    seed=st.integers(0, 99),
)
def test_layers_hold_their_own_tokens_in_any_dtype_and_layout(dtype, layout, num_layers, lens, scales, seed):
    rng = np.random.default_rng(seed)
    head_dim = 16 if layout == "packed" else 3  # keys of whole pieces of 16 bytes
    factors = {"k_scale": np.array([0.5, 2.0]), "v_scale": 0.25} if scales else {}
    subject = pn.PagedKVCache(
        16,
        4,
        2,
        head_dim,
        num_layers=num_layers,
        dtype=dtype,
        layout=layout,
        **factors,
        target="lockstep",
        debug=True,
    )
    whole = {}
    for name, length in enumerate(lens):
        whole[name] = rng.standard_normal((2, num_layers, length, 2, head_dim)).astype(
            subject.key_cache.dtype
        )
        first = whole[name][:, :, : length // 2]
        subject.add(name, *(first if num_layers > 1 else first[:, 0]))
        # The others come layer by layer, as a model computes them.
        slots = subject.reserve(name, length - length // 2).slots
        for layer in range(num_layers):
            subject.write_layer(layer, *whole[name][:, layer, length // 2 :], slots)
        subject.commit(name)
    subject.fork(0, "fork")
    extra = whole[0][:, :, :1]
    whole["fork"] = np.concatenate([whole[0], extra], axis=2)
    subject.append("fork", *(extra if num_layers > 1 else extra[:, 0]))
    subject.swap_out(0)
    subject.swap_in(0)
    query = rng.standard_normal((len(whole), 4, head_dim)).astype(np.float32)
    for layer in range(num_layers):
        out = subject.attend(list(whole), query, layer=layer)
        for row, (name, parts) in enumerate(whole.items()):
            key, value = parts[:, layer]
            assert_same_bits(subject.gather(name, layer=layer)[0], key)
            assert_same_bits(subject.gather(name, layer=layer)[1], value)
            expected = pn.reference.attention(query[row : row + 1], key, value, **factors)
            np.testing.assert_allclose(out[row], expected[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"dtype": "float64"},
            TypeError,
            "dtype must be one of float32, float16, bfloat16, .*got dtype='float64'",
        ),
        ({"dtype": "fp8"}, TypeError, "got dtype='fp8'"),
        ({"layout": "DNH"}, ValueError, "layout must be one of NHD, HND, packed, got layout='DNH'"),
        (
            {"layout": "packed"},
            ValueError,
            "head_dim must be a multiple of 4 for layout='packed' in float32, got head_dim=3",
        ),
        ({"num_layers": 0}, ValueError, "num_layers must be positive, got num_layers=0"),
        ({"num_layers": 1.5}, TypeError, "num_layers must be an integer"),
        ({"k_scale": -1.0}, ValueError, "k_scale must be positive and finite in float32, got k_scale=-1.0"),
        ({"v_scale": np.ones(3)}, ValueError, r"v_scale must be a number or have shape \[2\]"),
    ],
)
def test_wrong_storage_is_refused_by_name(options, error, message):
    with pytest.raises(error, match=message):
        pn.PagedKVCache(3, 4, 2, 3, **options)


def test_layers_that_are_not_there_are_refused():
    subject = pn.PagedKVCache(3, 4, 2, 3, num_layers=2, target="lockstep")
    with pytest.raises(
        ValueError, match=r"key must have shape \[2, num_tokens, num_kv_heads, head_dim\], got"
    ):
        subject.add("a", *tokens(3))
    slots = subject.reserve("a", 3).slots
    with pytest.raises(ValueError, match=r"layer must lie in 0 .. 1 \(num_layers - 1\), got layer=2"):
        subject.write_layer(2, *tokens(3), slots)
    with pytest.raises(TypeError, match="layer must be an integer, got layer=None"):
        subject.attend(["a"], tokens(1)[0], layer=None)
    with pytest.raises(ValueError, match="got layer=-1"):
        subject.gather("a", layer=-1)


def test_tokens_that_are_reserved_but_not_committed_are_no_prefix():
    subject = pn.PagedKVCache(8, 4, 2, 3, num_layers=2, prefix_caching=True, target="lockstep")
    ids = list(range(9))
    subject.reserve("a", ids)
    assert subject.reserve("b", ids).num_cached_tokens == 0
    subject.free("b")
    subject.commit("a")
    assert subject.reserve("c", ids).num_cached_tokens == 8


@pytest.mark.parametrize("end", ["free", "preempt"])
def test_an_id_used_again_after_a_reservation_is_a_prefix_when_it_is_written(end):
    subject = pn.PagedKVCache(8, 4, 2, 3, prefix_caching=True, target="lockstep")
    ids = list(range(9))
    subject.reserve("a", ids)
    getattr(subject, end)("a")
    assert subject.add("a", *tokens(9), ids) == 0
    assert subject.add("b", *tokens(9), ids) == 8


def test_the_watermark_is_that_of_the_allocator():
    subject = pn.PagedKVCache(10, 4, 2, 3, watermark=0.2, target="lockstep")
    with pytest.raises(
        pn.OutOfBlocksError,
        match="add of 33 tokens needs 9 blocks above a watermark of 2, 10 are free",
    ):
        subject.add("a", *tokens(33))
    assert subject.add("a", *tokens(32)) == 0


def test_a_name_is_no_list_of_ids():
    subject = cache()
    subject.add("a", *tokens(1))
    with pytest.raises(TypeError, match="seq_ids must be a sequence of ids, got seq_ids='a'"):
        subject.attend("a", tokens(1)[0])


def test_the_prefix_cache_needs_token_ids():
    subject = pn.PagedKVCache(4, 4, 2, 3, prefix_caching=True, target="lockstep")
    with pytest.raises(
        TypeError, match="token_ids must be given with prefix_caching=True, got token_ids=None"
    ):
        subject.add("a", *tokens(3))
    assert subject.allocator.num_free_blocks == 4


@pytest.mark.parametrize("name", ["prefix_caching", "debug"])
def test_switches_are_truth_values(name):
    with pytest.raises(TypeError, match=f"{name} must be True or False, got {name}='no'"):
        pn.PagedKVCache(4, 4, 2, 3, target="lockstep", **{name: "no"})


def test_decode_with_a_window_goes_on_when_what_slid_out_is_released():
    subject = pn.PagedKVCache(4, 4, 2, 3, target="lockstep", debug=True)
    key, value = tokens(40)
    query = np.random.default_rng(1).standard_normal((40, 4, 3)).astype(np.float32)
    subject.add("a", key[:1], value[:1])
    for position in range(1, 40):  # 10 blocks through a pool of 4
        subject.append("a", key[position : position + 1], value[position : position + 1])
        out = subject.attend(["a"], query[position : position + 1], window=6)
        seen = slice(max(0, position - 5), position + 1)
        expected = pn.reference.attention(query[position : position + 1], key[seen], value[seen])
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
        subject.release("a", 6)
    with pytest.raises(ValueError, match="window must hide the 32 released tokens of sequence 'a'"):
        subject.attend(["a"], query[:1])


@given(path=st.sampled_from(["swap", "fork", "append"]))
def test_reserved_tokens_are_no_prefix_whatever_else_is_written(path):
    subject = pn.PagedKVCache(16, 4, 2, 3, prefix_caching=True, target="lockstep")
    ids = [1, 2, 3, 4, 5]
    slots = subject.reserve("a", ids).slots
    if path == "swap":
        subject.swap_out("a")
        subject.swap_in("a")
    elif path == "fork":
        subject.fork("a", "b")
        subject.append("b", *tokens(1), [6])
    else:
        subject.append("a", *tokens(1), [6])
    assert subject.add("c", *tokens(5), ids) == 0
    subject.free("c")
    if path == "append":
        subject.write_layer(0, *tokens(5), slots)
        subject.commit("a")
        assert subject.add("d", *tokens(5), ids) == 4


def test_layers_given_as_a_list_are_refused_and_take_no_block():
    subject = pn.PagedKVCache(8, 4, 2, 3, num_layers=2, target="lockstep")
    for key in ([*tokens(5)], [], [tokens(5)[0], tokens(3)[0]]):
        with pytest.raises(TypeError, match="key must be an array, got list"):
            subject.add("a", key, key)
    assert subject.allocator.num_free_blocks == 8
    assert "a" not in subject.allocator


def test_arrays_that_only_speak_dlpack_are_taken():
    class Foreign:
        def __init__(self, array):
            self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    subject, (key, value) = cache(), tokens(6)
    subject.add("a", Foreign(key), Foreign(value))
    np.testing.assert_array_equal(subject.gather("a")[0], key)


def test_a_sequence_that_the_allocator_swapped_out_is_refused():
    subject = cache()
    subject.add("a", *tokens(6))
    subject.allocator.swap_out("a")
    with pytest.raises(
        ValueError,
        match="seq_id must be swapped out by this cache, not by its allocator alone, got seq_id='a'",
    ):
        subject.swap_in("a")
    assert subject.allocator.is_swapped("a")


def test_a_write_is_checked_once_and_nothing_is_launched_for_nothing(monkeypatch):
    launched, checked = [], []

    def launch(kernel, *_, target):
        launched.append(kernel.py_func.__name__)

    right = checks.check_tokens

    def check(*tokens):
        checked.append(tokens)
        right(*tokens)

    cache = pn.PagedKVCache(8, 4, 1, 2, num_layers=2, target="lockstep")
    monkeypatch.setattr(pn.targets, "launch", launch)
    monkeypatch.setattr(checks, "check_tokens", check)
    tokens = np.ones((2, 5, 1, 2), np.float32)
    cache.add("a", tokens, tokens)
    assert launched == ["write_kv_kernel"] * 2
    assert len(checked) == 2
    launched.clear()
    cache.add("nothing", tokens[:, :0], tokens[:, :0])
    cache.gather("nothing")
    pn.copy_blocks(cache.key_cache, cache.value_cache, np.zeros((0, 2), np.int64), target="lockstep")
    cache.attend([], np.ones((0, 1, 2), np.float32))
    assert launched == []
    cache.fork("a", "b")
    cache.append("b", tokens[:, :1], tokens[:, :1])
    assert launched == ["copy_blocks_kernel"] * 2 + ["write_kv_kernel"] * 2


def test_attend_takes_the_options_of_paged_attention():
    options = set(inspect.signature(pn.paged_attention).parameters)
    inputs = {"query", "key_cache", "value_cache", "block_tables", "seq_lens", "cu_seqlens_q"}
    of_the_cache = {"k_scale", "v_scale", "layout", "target"}
    assert set(AttentionOptions.__annotations__) == options - inputs - of_the_cache


def test_a_notebook_shows_the_pool():
    cache = pn.PagedKVCache(4, 2, 1, 2, target="lockstep")
    cache.add("<a>", *np.ones((2, 3, 1, 2), np.float32))
    shown = cache._repr_html_()
    assert "PagedKVCache(4 blocks of 2 tokens" in shown
    assert "<svg" in shown
    assert "&lt;a&gt;" in shown
    assert pn.PagedKVCache(4096, 2, 1, 2, target="lockstep")._repr_html_() is None


def test_repr_says_what_a_reader_wants():
    cache = pn.PagedKVCache(64, 16, 2, 64, target="lockstep")
    tokens = np.ones((40, 2, 64), np.float32)
    cache.add("a", tokens, tokens)
    assert repr(cache) == (
        "PagedKVCache(64 blocks of 16 tokens, 2 KV heads x 64, float32, 61 free, target lockstep)"
    )
    many = pn.PagedKVCache(1, 8, 1, 32, num_layers=3, dtype="bfloat16", layout="HND", target="lockstep")
    assert repr(many) == (
        "PagedKVCache(1 block of 8 tokens, 1 KV head x 32, 3 layers, bfloat16, HND, 1 free, target lockstep)"
    )
    watched = pn.PagedKVCache(2, 8, 1, 32, prefix_caching=True, debug=True, target="lockstep")
    assert repr(watched).endswith("2 free, prefix caching, debug, target lockstep)")

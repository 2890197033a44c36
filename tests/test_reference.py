"""The oracle: compared with plain Python that computes one number at a time, and its laws."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paged_numba import reference
from paged_numba.testing.strategies import seeds


def witness(query, key, value, *, scale, causal, window, softcap, slopes, sinks, k_scale, v_scale):
    """Return attention as the oracle's docstring defines it, with NumPy operations on single numbers only."""
    num_queries, num_q_heads, head_dim = query.shape
    seq_len, num_kv_heads, _ = key.shape
    out, lse = np.zeros(query.shape), np.zeros((num_queries, num_q_heads))
    for i in range(num_queries):
        position = seq_len - num_queries + i
        for head in range(num_q_heads):
            kv_head = head // (num_q_heads // num_kv_heads)
            weights = {}
            for j in range(seq_len):
                if (causal and j > position) or (window is not None and j <= position - window):
                    continue
                dot = sum(float(query[i, head, d]) * float(key[j, kv_head, d]) for d in range(head_dim))
                score = dot * k_scale * scale
                if softcap is not None:
                    score = softcap * math.tanh(score / softcap)
                if slopes is not None:
                    score += slopes[head] * (j - position)
                weights[j] = math.exp(score)
            total = sum(weights.values()) + (0 if sinks is None else math.exp(sinks[head]))
            lse[i, head] = math.log(total) if total else -math.inf
            for d in range(head_dim):
                weighted = sum(w * float(value[j, kv_head, d]) * v_scale for j, w in weights.items())
                out[i, head, d] = weighted / total if total else 0
    return out, lse


@given(data=st.data())
def test_reference_agrees_with_the_witness(data):
    num_kv_heads = data.draw(st.integers(1, 2))
    num_q_heads = num_kv_heads * data.draw(st.integers(1, 3))
    seq_len, head_dim = data.draw(st.integers(0, 6)), data.draw(st.integers(1, 4))
    num_queries = data.draw(st.integers(0, 8))
    rng = np.random.default_rng(data.draw(seeds))
    query = rng.standard_normal((num_queries, num_q_heads, head_dim))
    key, value = rng.standard_normal((2, seq_len, num_kv_heads, head_dim))
    causal = data.draw(st.booleans())
    window = data.draw(st.sampled_from((None, 1, 2, 5)))
    softcap = data.draw(st.sampled_from((None, 0.5, 20.0)))
    slopes = data.draw(st.sampled_from((None, rng.random(num_q_heads))))
    sinks = data.draw(st.sampled_from((None, rng.standard_normal(num_q_heads))))
    scale = data.draw(st.sampled_from((0.3, 2.0, -1.0)))
    k_scale, v_scale = data.draw(st.sampled_from(((1.0, 1.0), (0.5, 3.0))))
    actual = reference.attention(
        query, key, value, scale=scale, causal=causal, window=window, softcap=softcap, alibi_slopes=slopes,
        sinks=sinks, k_scale=k_scale, v_scale=v_scale, return_lse=True,
    )  # fmt: skip
    expected = witness(
        query, key, value, scale=scale, causal=causal, window=window, softcap=softcap, slopes=slopes,
        sinks=sinks, k_scale=k_scale, v_scale=v_scale,
    )  # fmt: skip
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(actual[1], expected[1], rtol=1e-12, atol=1e-12)


def example(num_queries=3, seq_len=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((num_queries, 4, 3)), *rng.standard_normal((2, seq_len, 2, 3))


def test_scale_is_one_over_the_root_of_head_dim():
    arrays = example()
    np.testing.assert_array_equal(
        reference.attention(*arrays), reference.attention(*arrays, scale=1 / math.sqrt(3))
    )


def test_factors_by_kv_head_scale_keys_and_values():
    query, key, value = example()
    factors = np.array([2.0, 0.5])
    np.testing.assert_allclose(
        reference.attention(query, key, value, k_scale=factors, v_scale=factors),
        reference.attention(query, key * factors[:, None], value * factors[:, None]),
    )


def test_hidden_keys_and_values_may_be_nan():
    query, key, value = example()
    expected = reference.attention(query[:1], key[:3], value[:3])
    # The first of 3 queries of a sequence of 5 sees keys 0 .. 2.
    key[3:], value[3:] = np.nan, np.nan
    np.testing.assert_array_equal(reference.attention(query, key, value)[:1], expected)


@pytest.mark.filterwarnings("error")
def test_query_that_sees_no_key_gives_zero_and_minus_infinity():
    query, key, value = example(num_queries=5, seq_len=3)
    out, lse = reference.attention(query, key, value, return_lse=True)
    # Queries 0 and 1 stand at positions -2 and -1.
    assert not out[:2].any()
    assert (lse[:2] == -np.inf).all()
    assert np.isfinite(lse[2:]).all()


@given(st.integers(0, 6), st.integers(0, 6), seeds)
def test_merging_two_parts_is_attention_over_the_whole(first, second, seed):
    query, key, value = example(1, first + second, seed)
    parts = [
        reference.attention(query, key[part], value[part], causal=False, return_lse=True)
        for part in (slice(first), slice(first, None))
    ]
    out, lse = reference.merge_states(*parts[0], *parts[1])
    expected, expected_lse = reference.attention(query, key, value, causal=False, return_lse=True)
    np.testing.assert_allclose(out, expected, atol=1e-12)
    np.testing.assert_allclose(lse, expected_lse, atol=1e-12)


def test_merging_with_nothing_is_the_identity():
    query, key, value = example(1)
    out, lse = reference.attention(query, key, value, return_lse=True)
    empty = np.zeros_like(out), np.full_like(lse, -np.inf)
    for merged in (reference.merge_states(out, lse, *empty), reference.merge_states(*empty, out, lse)):
        np.testing.assert_array_equal(merged[0], out)
        np.testing.assert_array_equal(merged[1], lse)
    both = reference.merge_states(*empty, *empty)
    assert not both[0].any()
    assert (both[1] == -np.inf).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, k, v: (q[0], k, v), r"query must have shape \[num_queries, num_q_heads, head_dim\]"),
        (lambda q, k, v: (q, k[:2], v), r"got \(3, 4, 3\), \(2, 2, 3\) and \(5, 2, 3\)"),
        (lambda q, k, v: (q[:, :3], k, v), "num_q_heads must be a multiple of num_kv_heads, got 3 and 2"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        reference.attention(*change(*example()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window must be positive, got window=0"),
        ({"softcap": 0}, "softcap must be positive, got softcap=0"),
        (
            {"alibi_slopes": np.ones(2)},
            r"alibi_slopes must have shape \(4,\), got alibi_slopes\.shape=\(2,\)",
        ),
        ({"sinks": 1.0}, r"sinks must have shape \(4,\), got sinks\.shape=\(\)"),
        ({"k_scale": np.ones(4)}, r"k_scale must have shape \(\) or \(2,\), got k_scale\.shape=\(4,\)"),
    ],
)
def test_option_that_does_not_fit_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        reference.attention(*example(), **options)


NO_NUMBER = ["1", "x", 1j, [1.0], np.ones(1), True, np.timedelta64(1), np.datetime64(1, "s"), object()]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["scale", "window", "softcap"])
@pytest.mark.parametrize("no_number", NO_NUMBER, ids=lambda value: type(value).__name__)
def test_an_option_that_is_no_number_is_refused_by_name(name, no_number):
    with pytest.raises(TypeError, match=f"{name} must be (a number or None|an integer), got {name}="):
        reference.attention(*example(), **{name: no_number})


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["scale", "softcap"])
@pytest.mark.parametrize(
    "number", [10**400, -(10**400), math.inf, -math.inf, math.nan, np.float64(np.inf)], ids=str
)
def test_a_number_beyond_float64_is_refused_by_name(name, number):
    with pytest.raises(ValueError, match=f"{name} must be finite in float64, got {name}="):
        reference.attention(*example(), **{name: number})


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("window", [5, 10**400, np.uint8(5), np.int64(2**63 - 1), np.array(7)], ids=str)
def test_a_window_of_any_size_is_taken(window):
    np.testing.assert_array_equal(
        reference.attention(*example(), window=window), reference.attention(*example())
    )


ARRAYS = ("query", "key", "value", "alibi_slopes", "sinks", "k_scale", "v_scale")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize(
    "dtype", [complex, bool, "U3", "S3", object, "m8[s]", "M8[s]", [("a", "f4")]], ids=str
)
def test_an_array_that_holds_no_real_numbers_is_refused_by_name(name, dtype):
    arguments = dict(zip(ARRAYS[:3], example(), strict=True))
    shape = arguments[name].shape if name in arguments else {"k": (2,), "v": (2,)}.get(name[0], (4,))
    with pytest.raises(TypeError, match=f"{name} must hold real numbers, got {name}.dtype="):
        reference.attention(**{**arguments, name: np.zeros(shape, dtype)})


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_that_is_none_is_refused_by_name(name):
    arguments = dict(zip(ARRAYS[:3], example(), strict=True))
    for wrong in ([[1.0], [1.0, 2.0]], [10**400], "text", np.ma.masked_all((2,)), object()):
        with pytest.raises(TypeError, match=f"{name} must "):
            reference.attention(**{**arguments, name: wrong})


@pytest.mark.parametrize(
    "dtype", [">f4", "g", np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.int8, "u8"]
)
def test_real_numbers_of_any_dtype_are_taken(dtype):
    arrays = [np.round(4 * np.abs(array)).astype(dtype) for array in example()]
    expected = reference.attention(
        *(array.astype(np.float64) for array in arrays), k_scale=0.5, sinks=np.ones(4)
    )
    actual = reference.attention(*arrays, k_scale=np.array(0.5, np.float16), sinks=np.ones(4, dtype))
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("flag", ["causal", "return_lse"])
@pytest.mark.parametrize("value", [None, 1, "yes", np.array(True), np.zeros(0)], ids=repr)
def test_a_flag_that_is_neither_true_nor_false_is_refused_by_name(flag, value):
    with pytest.raises(TypeError, match=f"{flag} must be True or False, got {flag}="):
        reference.attention(*example(), **{flag: value})


def test_states_that_do_not_fit_are_named():
    out, lse = reference.attention(*example(), return_lse=True)
    assert reference.merge_states([1.0], 0, [2.0], 0)[0] == 1.5
    for wrong in (
        (out, lse, out[:2], lse[:2]),
        (out, lse, out, lse[:, :1]),
        (1.0, 1.0, 1.0, 1.0),
        (out, lse, out[..., :1], lse),
    ):
        with pytest.raises(ValueError, match=r"out_a and out_b must have one shape \[\.\.\., head_dim\]"):
            reference.merge_states(*wrong)
    for place, name in enumerate(("out_a", "lse_a", "out_b", "lse_b")):
        states = [out, lse, out, lse]
        states[place] = states[place] * 1j
        with pytest.raises(TypeError, match=f"{name} must hold real numbers, got {name}.dtype=complex128"):
            reference.merge_states(*states)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan, 1e308, -1e308, 5e-324, 0.0])
@pytest.mark.parametrize("name", [*ARRAYS, "out_a", "lse_a", "out_b", "lse_b"])
def test_any_number_is_computed_with_and_gives_no_warning(name, number):
    arguments = dict(zip(ARRAYS[:3], example(), strict=True))
    arguments |= {
        "alibi_slopes": np.ones(4),
        "sinks": np.ones(4),
        "k_scale": np.ones(2),
        "v_scale": np.ones(2),
    }
    states = dict(zip(("out_a", "lse_a"), reference.attention(**arguments, return_lse=True), strict=True))
    states |= {"out_b": states["out_a"].copy(), "lse_b": states["lse_a"].copy()}
    for function, numbers in ((reference.attention, arguments), (reference.merge_states, states)):
        if name in numbers:
            for place in (np.s_[:1], np.s_[:]):
                numbers[name][place] = number
                function(**numbers)

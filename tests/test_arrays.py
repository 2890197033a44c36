"""Arrays of other libraries. Those of torch and JAX are tested where these are installed; see CONTRIBUTING.md."""

import ml_dtypes
import numpy as np
import pytest

import paged_numba as pn
from paged_numba import arrays, targets

TARGET = "lockstep"
STORAGE = ("float32", "float16", "bfloat16", "float8_e4m3fn")

needs_storage = pytest.mark.parametrize("storage", STORAGE)
needs_layout = pytest.mark.parametrize("layout", ["NHD", "HND", "packed"])


def numpy_dtype(name):
    return np.dtype(getattr(ml_dtypes, name, name))


def query_dtype(storage):
    return "float32" if storage == "float8_e4m3fn" else storage


def operands(storage, layout):
    """Return a query, keys, values and empty caches of NumPy."""
    rng = np.random.default_rng(0)
    pool = pn.PagedKVCache(3, 4, 2, 16, dtype=storage, layout=layout, target=TARGET)
    key, value = rng.standard_normal((2, 6, 2, 16)).astype(numpy_dtype(storage))
    # A strided view, too.
    query = rng.standard_normal((16, 4, 1)).astype(numpy_dtype(query_dtype(storage))).transpose(2, 1, 0)
    return query, key, value, pool.key_cache, pool.value_cache


def use(query, key, value, key_cache, value_cache, layout, integers):
    """Use every operation; return the results."""
    caches, where = (key_cache, value_cache), {"layout": layout, "target": TARGET}
    pn.write_kv(key, value, *caches, integers([8, 9, 10, 11, 0, 1]), **where)
    pn.copy_blocks(*caches, integers([[2, 1]]), **where)
    gathered = pn.gather_kv(*caches, integers([1, 0]), 6, **where)
    out, lse = pn.paged_attention(
        query, *caches, integers([[1, 0]]), integers([6]), k_scale=0.5, return_lse=True, **where
    )
    return [*gathered, out, lse, *pn.merge_states(out, lse, out, lse, target=TARGET)]


def test_what_is_no_array_stays_as_it_is():
    for thing in (None, 3, [1, 2], "text", object):
        assert arrays.as_array(thing) is thing


def test_an_array_that_cannot_be_shared_is_named():
    class Elsewhere:
        shape, dtype = (3, 4, 1, 2), "float32"

        def __dlpack__(self, **options):
            raise BufferError("it lies on another device")

        def __dlpack_device__(self):
            return 99, 0

    value_cache = np.zeros((3, 4, 1, 2), np.float32)
    with pytest.raises(
        TypeError, match="key_cache must share its memory with NumPy or Numba, got Elsewhere: "
    ):
        pn.copy_blocks(Elsewhere(), value_cache, np.array([[0, 1]]), target=TARGET)


def test_an_array_whose_own_code_fails_is_named():
    class Fails:
        def __array__(self, *_, **__):
            raise KeyError("no elements")

    class HasNone:
        @property
        def __array_interface__(self):
            raise KeyError("no shape")

    cache = pn.PagedKVCache(4, 4, 1, 2, target=TARGET)
    kv = np.ones((1, 1, 2), np.float32)
    for array, error in ((Fails(), ValueError), (HasNone(), TypeError)):
        with pytest.raises(error, match="slots must "):
            cache.write_layer(0, kv, kv, array)
        with pytest.raises(error, match="array must "):
            pn.quantize_fp8(array)


def test_an_array_that_only_says_where_it_lies_is_taken():
    class Bare:
        def __init__(self, array):
            self.__array_interface__, self.kept = array.__array_interface__, array

    given = operands("float32", "NHD")
    expected = use(*given, "NHD", np.array)
    for ours, theirs in zip(
        use(*map(Bare, operands("float32", "NHD")), "NHD", np.array), expected, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_an_empty_list_is_one_of_integers():
    caches = np.zeros((2, 3, 4, 1, 2), np.float32)
    nothing = np.zeros((0, 1, 2), np.float32)
    pn.write_kv(nothing, nothing, *caches, [], target=TARGET)
    assert pn.gather_kv(*caches, [], 0, target=TARGET)[0].shape == (0, 1, 2)


ALGORITHMS = ("auto", "naive", "warp", "block", "tile", "split", "cascade")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_empty_list_of_lists_is_one_of_integers(algorithm):
    caches = np.full((2, 3, 4, 1, 2), np.nan, np.float32)

    def attend(num_seqs, *integers, **options):
        query = np.ones((num_seqs, 1, 2), np.float32)
        options = {"algorithm": algorithm, "return_lse": True, "target": TARGET, **options}
        return pn.paged_attention(query, *caches, *integers, **options)

    # No sequence; sequences without blocks, as a list, a tuple, and arrays.
    out, lse = attend(0, [], [])
    assert (out.shape, lse.shape) == ((0, 1, 2), (0, 1))
    assert attend(0, (), (), cu_seqlens_q=[0])[0].shape == (0, 1, 2)
    for tables in ([[], []], ((), ()), np.zeros((2, 0), np.int32), [np.zeros(0, int), []]):
        out, lse = attend(2, tables, [0, 0])
        np.testing.assert_array_equal(out, np.zeros((2, 1, 2)))
        np.testing.assert_array_equal(lse, np.full((2, 1), -np.inf))
        with pytest.raises(ValueError, match=r"seq_lens must lie in 0 \.\. 0 .*, got seq_lens\[1\]=1"):
            attend(2, tables, [0, 1])


def test_an_empty_list_of_pairs_copies_nothing():
    caches = np.ones((2, 3, 4, 1, 2), np.float32)
    for pairs in ([], (), np.zeros((0, 2), int)):
        pn.copy_blocks(*caches, pairs, target=TARGET)
    assert (caches == 1).all()


@pytest.mark.parametrize("empty", [[[]], np.zeros(0, int), np.zeros((0, 3), int), [[], []]], ids=repr)
def test_an_empty_array_of_another_shape_is_no_list_of_pairs(empty):
    caches = np.ones((2, 3, 4, 1, 2), np.float32)
    with pytest.raises(
        ValueError, match=r"block_pairs must have shape \[num_pairs, 2\], got block_pairs.shape="
    ):
        pn.copy_blocks(*caches, empty, target=TARGET)


def test_an_empty_list_for_sequences_that_there_are_is_refused_by_name():
    caches, query = np.ones((2, 3, 4, 1, 2), np.float32), np.ones((1, 1, 2), np.float32)
    with pytest.raises(
        ValueError, match=r"block_tables must have shape \[1, max_blocks\], got .*shape=\(0, 0\)"
    ):
        pn.paged_attention(query, *caches, [], [0], target=TARGET)
    with pytest.raises(TypeError, match=r"block_tables must hold integers, got block_tables.dtype=float64"):
        pn.paged_attention(query, *caches, np.zeros((1, 0)), [0], target=TARGET)


def test_rows_of_different_lengths_are_named():
    caches = np.zeros((2, 3, 4, 1, 2), np.float32)
    query = np.zeros((2, 1, 2), np.float32)
    with pytest.raises(ValueError, match=r"block_tables must be an array, got \[\[0\], \[1, 2\]\]"):
        pn.paged_attention(query, *caches, [[0], [1, 2]], [1, 5], target=TARGET)


@needs_layout
@needs_storage
def test_torch_tensors_are_read_and_written_in_place_and_give_tensors(storage, layout):
    torch = pytest.importorskip("torch")

    def tensor(array):
        bits = array.view(f"int{8 * array.itemsize}")
        return torch.as_tensor(bits).view(getattr(torch, array.dtype.name))

    given = operands(storage, layout)
    expected = use(*given, layout, np.array)
    results = use(*map(tensor, operands(storage, layout)), layout, torch.tensor)
    for ours, theirs in zip(results, expected, strict=True):
        assert isinstance(ours, torch.Tensor)
        assert torch.equal(ours.float(), tensor(theirs).float())

    query, key_cache, value_cache = map(tensor, (given[0], *given[3:]))
    into = torch.empty(query.shape, dtype=query.dtype)
    returned = pn.paged_attention(
        query, key_cache, value_cache, [[1, 0]], [6], k_scale=0.5, out=into, layout=layout, target=TARGET
    )
    assert returned is into
    assert torch.equal(into.float(), results[2].float())


class Foreign:
    """An array of another library, which counts the requests for its memory."""

    def __init__(self, array):
        self.array, self.adopted = array, 0

    @property
    def __array_interface__(self):
        self.adopted += 1
        return self.array.__array_interface__


def test_an_array_without_a_dtype_is_taken_by_its_interface():
    class Shaped(Foreign):
        shape = (3,)

    adopted = arrays.as_array(Shaped(np.arange(3)))
    assert isinstance(adopted, np.ndarray)
    assert adopted.tolist() == [0, 1, 2]


def test_each_array_is_adopted_once():
    query, key, value, *caches = operands("float32", "NHD")
    operations = {
        pn.write_kv: (key, value, *caches, np.array([5, 0, -1, 2, 3, 4])[: len(key)]),
        pn.gather_kv: (*caches, np.array([1, 0], np.int32)),
        pn.copy_blocks: (*caches, np.array([[0, 1]])),
        pn.paged_attention: (query, *caches, np.array([[1, 0]], np.int32), np.array([6], np.int32)),
        pn.merge_states: (query, np.zeros(query.shape[:2], np.float32)) * 2,
    }
    for operation, arrays_given in operations.items():
        foreign = [Foreign(array) for array in arrays_given]
        more = (6,) if operation is pn.gather_kv else ()
        operation(*foreign, *more, target=TARGET)
        # hasattr asks once, NumPy once.
        assert {array.adopted for array in foreign} == {2}, operation


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_torch_tensor_that_needs_a_gradient_is_refused_by_name(storage):
    torch = pytest.importorskip("torch")
    query, *_, key_cache, value_cache = operands(storage, "NHD")
    query = torch.zeros(query.shape, dtype=getattr(torch, storage)).requires_grad_()
    with pytest.raises(
        TypeError, match=r"query must share its memory with NumPy or Numba, got Tensor: .*grad"
    ):
        pn.paged_attention(query, key_cache, value_cache, [[1, 0]], [6], target=TARGET)


def test_torch_integers_are_not_copied(monkeypatch):
    torch = pytest.importorskip("torch")
    launched = []
    monkeypatch.setattr(targets, "launch", lambda *given, **target: launched.extend(given))
    query, *_, key_cache, value_cache = operands("float32", "NHD")
    tables = torch.tensor([[1, 0]], dtype=torch.int32)
    pn.paged_attention(query, key_cache, value_cache, tables, torch.tensor([6]), target=TARGET)
    assert any(
        isinstance(given, np.ndarray) and np.shares_memory(given, tables.numpy()) for given in launched
    )


def test_torch_token_ids_are_taken_as_numpys_are():
    torch = pytest.importorskip("torch")
    pool = pn.BlockAllocator(4, 2, prefix_caching=True)
    pool.add("a", torch.arange(4))
    pool.commit("a")
    assert pool.add("b", np.arange(5)).num_cached_tokens == 4
    for bad in (torch.zeros((2, 1), dtype=torch.int64), torch.tensor([True]), torch.zeros(2)):
        with pytest.raises(TypeError, match=r"tokens must be integers in one dimension, got tokens\.dtype="):
            pool.add("c", bad)


@needs_storage
def test_jax_arrays_are_read_and_refused_as_caches(storage):
    jnp = pytest.importorskip("jax.numpy")
    query, key, value, *caches = operands(storage, "NHD")
    foreign = [jnp.asarray(array) for array in (query, key, value)]
    results = use(*foreign, *caches, "NHD", jnp.array)
    for ours, theirs in zip(results, use(*operands(storage, "NHD"), "NHD", np.array), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match="key_cache must be writable, got a read-only array"):
        pn.copy_blocks(jnp.asarray(caches[0]), caches[1], np.array([[0, 1]]), target=TARGET)

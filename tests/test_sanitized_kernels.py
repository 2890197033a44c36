"""No false alarm: every kernel of the package under the sanitizer, on random pools."""

import ast
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba import lockstep
from paged_numba.kernels import attention_textbook_kernel
from paged_numba.lockstep.observe.observer import Observer, observing

KERNELS = Path(pn.__file__).parent / "kernels"


def all_kernels():
    """Return the names of all functions under ``@cuda.jit`` that are no device functions."""
    return {
        node.name
        for path in KERNELS.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(d) == "cuda.jit" for d in node.decorator_list)
    }


class Seen(Observer):
    """Records the names of the kernels that run."""

    def __init__(self):
        self.kernels = set()

    def begin_launch(self, machine, function, arguments):
        self.kernels.add(function.__name__)


def use_everything(lens, block_size, heads, group, dim, seed):
    """Write, fork, copy on write, gather and attend; return the kernels that ran."""
    seen = Seen()
    with observing(seen):
        rows = "naive", "warp", "block", "tile", "split", "cascade"
        use_layout("NHD", rows, lens, block_size, heads, group, dim, seed)
        # Keys of whole pieces of 16 bytes.
        use_layout("packed", ("auto",), lens, block_size, heads, group, -(-dim // 4) * 4, seed)
    return seen.kernels


def use_layout(layout, algorithms, lens, block_size, heads, group, dim, seed):
    rng = np.random.default_rng(seed)

    def tokens(count):
        return rng.standard_normal((2, count, heads, dim), np.float32)

    cache = pn.PagedKVCache(64, block_size, heads, dim, layout=layout, target="lockstep", debug=True)
    for name, length in enumerate(lens):
        cache.add(name, *tokens(length))
    parent = len(lens) - 1
    cache.fork(parent, "child")
    cache.append("child", *tokens(1))
    cache.append(parent, *tokens(2))
    cache.gather("child")
    everyone = [*range(len(lens)), "child"]
    for algorithm in algorithms:
        query = rng.standard_normal((len(everyone), heads * group, dim), np.float32)
        parts = cache.attend(everyone, query, algorithm=algorithm, return_lse=True)
        # All tokens of the first sequence, with options.
        count = min(len(query), lens[0])
        cache.attend(
            [0],
            query[:count],
            cu_seqlens_q=np.array([0, count]),
            window=5,
            softcap=3.0,
            alibi_slopes=np.ones(heads * group),
            sinks=np.zeros(heads * group),
            algorithm=algorithm,
        )
    pn.merge_states(*parts, *parts, target="lockstep")
    if layout == "NHD":
        out, lens = (
            np.empty_like(query),
            np.array([cache.allocator.seq_len(name) for name in everyone], np.int32),
        )
        arguments = cache.key_cache, cache.value_cache, cache.block_tables(everyone), lens, np.float32(0.5)
        lockstep.launch(attention_textbook_kernel, len(everyone), heads * group, out, query, *arguments)


@settings(max_examples=25 if settings.default.max_examples > 100 else 6)
@given(
    lens=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    block_size=st.sampled_from([3, 4, 16]),
    heads=st.integers(1, 2),
    group=st.integers(1, 2),
    dim=st.sampled_from([4, 33]),
    seed=st.integers(0, 99),
)
def test_no_kernel_of_the_package_is_suspected(lens, block_size, heads, group, dim, seed):
    with lockstep.sanitizing() as findings:
        ran = use_everything([*lens, block_size - 1], block_size, heads, group, dim, seed)
    assert not findings, str(findings)
    assert ran == all_kernels()


def test_attention_is_known_to_store_into_its_outputs_only():
    # An array that a kernel does not store into needs no shadow memory. Storing a number that was loaded from an array
    # into another array must not count as a store into the first.
    from paged_numba.kernels.attention_block import attention_block_kernel
    from paged_numba.lockstep.sanitizer.stores import stored_parameters

    assert stored_parameters(attention_block_kernel.py_func) == {"lse", "out"}

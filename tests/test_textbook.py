"""The first kernel that a learner reads, and launching kernels by hand."""

import inspect
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba import kernels, lockstep, targets
from paged_numba.errors import LaunchError, TargetNameError
from paged_numba.kernels import attention_textbook_kernel, attention_tile_kernel_for, copy_blocks_kernel
from paged_numba.testing import properties
from paged_numba.testing.strategies import paged_batches

TARGET = "lockstep"


@pytest.fixture
def on_lockstep(monkeypatch):
    monkeypatch.setenv(targets.ENVIRONMENT, "lockstep")


orders = st.sampled_from(("together", "forward", "reverse"))


@given(batch=paged_batches(plain=True), order=orders)
def test_attention_agrees_with_the_oracle(batch, order):
    with lockstep.options(order=order):
        properties.textbook_attention_agrees_with_the_oracle(batch, TARGET)


@given(batch=paged_batches(plain=True, infinite_keys=True))
def test_scores_of_minus_infinity_weigh_nothing(batch):
    properties.textbook_attention_agrees_with_the_oracle(batch, TARGET)


def two_tokens():
    """Return arguments of which the result is 5, see `tests/test_ops.py::test_attention_by_hand`."""
    key_cache = np.array([[[[np.log(3)]]], [[[np.nan]]], [[[0.0]]]], np.float32)
    value_cache = np.array([[[[4.0]]], [[[np.nan]]], [[[8.0]]]], np.float32)
    query, tables = np.ones((1, 1, 1), np.float32), np.array([[2, 0]], np.int32)
    out = np.full_like(query, np.nan)
    return out, query, key_cache, value_cache, tables, np.array([2], np.int32), np.float32(1)


@pytest.mark.usefixtures("on_lockstep")
@pytest.mark.parametrize(
    "launch",
    [
        lambda kernel, *arguments: kernel[1, 1](*arguments),
        lambda kernel, *arguments: kernel[(1,), (1, 1), 0, 0](*arguments),
        lambda kernel, *arguments: kernel.forall(1, 1)(*arguments),
        lambda kernel, *arguments: targets.launch(kernel, 1, 1, *arguments),
        lambda kernel, *arguments: targets.launch(kernel, 1, 1, *arguments, target="lockstep"),
        lambda kernel, *arguments: lockstep.launch(kernel, 1, 1, *arguments),
        lambda kernel, *arguments: lockstep.launch(kernel.py_func, 1, 1, *arguments),
        lambda kernel, *arguments: lockstep.profile(kernel, 1, 1, *arguments),
        lambda kernel, *arguments: lockstep.sanitize(kernel, 1, 1, *arguments),
    ],
)
def test_every_way_to_launch_gives_the_result_by_hand(launch):
    out, *arguments = two_tokens()
    launch(attention_textbook_kernel, out, *arguments)
    np.testing.assert_allclose(out, [[[5.0]]], rtol=1e-6)


@pytest.mark.usefixtures("on_lockstep")
def test_a_thread_block_for_each_sequence_and_a_thread_for_each_head():
    rng = np.random.default_rng(0)
    num_seqs, num_q_heads, num_kv_heads, head_dim = 3, 8, 2, 16
    key_cache, value_cache = rng.standard_normal((2, 6, 4, num_kv_heads, head_dim), np.float32)
    query = rng.standard_normal((num_seqs, num_q_heads, head_dim), np.float32)
    block_tables, seq_lens = np.array([[5, 0], [2, 9], [3, 1]], np.int32), np.array([7, 3, 8], np.int32)
    out, scale = np.empty_like(query), np.float32(0.25)
    attention_textbook_kernel[num_seqs, num_q_heads](
        out, query, key_cache, value_cache, block_tables, seq_lens, scale
    )
    expected = pn.paged_attention(query, key_cache, value_cache, block_tables, seq_lens)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("on_lockstep")
def test_a_made_kernel_is_launched_by_hand():
    kernel = attention_tile_kernel_for(1, 64)
    assert kernel is attention_tile_kernel_for(1, 64)
    out, query, key_cache, value_cache, tables, _, scale = two_tokens()
    lse = np.empty((1, 1), np.float32)
    rows, tiles = np.array([[0, 0, 1, 0, 2]], np.int32), np.array([[0, 1, 0, 2, 0, 2]], np.int32)
    zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
    options = zero, zero - np.inf, one, one, scale, np.float32(0)
    kernel[1, 64](out, lse, query, key_cache, value_cache, tables, rows, tiles, 1, *options)
    np.testing.assert_allclose(out, [[[5.0]]], rtol=1e-6)


def test_every_kernel_is_exported_under_the_name_of_its_function():
    for name in set(kernels.__all__) - {"Kernel"}:
        kernel = getattr(kernels, name)
        assert kernel is getattr(kernels, name)
        if not name.endswith("_for"):
            assert kernel.__name__ == kernel.py_func.__name__ == name
            assert kernel.__doc__ == kernel.py_func.__doc__
            assert repr(kernel) == f"<kernel {name}{inspect.signature(kernel.py_func)}>"
    assert dir(kernels) == sorted(kernels.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing_kernel'"):
        _ = kernels.nothing_kernel


@pytest.mark.usefixtures("on_lockstep")
def test_a_wrong_launch_is_refused_by_name():
    with pytest.raises(
        LaunchError, match=r"must read kernel\[blocks_per_grid, threads_per_block.*got kernel\[1\]"
    ):
        attention_textbook_kernel[1]
    with pytest.raises(LaunchError, match="attention_textbook_kernel must be launched as"):
        attention_textbook_kernel(*two_tokens())
    with pytest.raises(AttributeError, match="nothing"):
        _ = attention_textbook_kernel.nothing


def test_the_target_is_chosen_at_each_launch(monkeypatch):
    monkeypatch.setenv(targets.ENVIRONMENT, "lockstep")
    configured = copy_blocks_kernel[1, 1]
    monkeypatch.setenv(targets.ENVIRONMENT, "gpu")
    with pytest.raises(TargetNameError, match="PAGED_NUMBA_TARGET must be one of"):
        copy_blocks_kernel[1, 1]
    caches = np.arange(4, dtype=np.float32).reshape(2, 2, 1, 1, 1)
    configured(*caches, np.array([[0, 1]]))
    assert caches.ravel().tolist() == [0, 0, 2, 2]


def test_an_attribute_is_absent_where_no_target_can_be_chosen(monkeypatch):
    monkeypatch.setenv(targets.ENVIRONMENT, "lockstep")
    assert hasattr(copy_blocks_kernel, "forall")
    assert not hasattr(copy_blocks_kernel, "nothing")
    monkeypatch.setenv(targets.ENVIRONMENT, "gpu")
    assert not hasattr(copy_blocks_kernel, "forall")
    with pytest.raises(
        AttributeError, match="'forall' of a kernel is its target's, but PAGED_NUMBA_TARGET must be"
    ):
        copy_blocks_kernel.forall(1)


def run_fresh(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, **environment
    )


def test_without_numba_the_package_imports_and_a_kernel_says_what_it_needs():
    done = run_fresh(
        "import sys; sys.modules['numba'] = None; import paged_numba.kernels as kernels; dir(kernels)\n"
        "kernels.write_kv_kernel"
    )
    assert re.search(
        "ImportError: write_kv_kernel needs numba.cuda, which cannot be imported: .*numba", done.stderr
    )


def test_on_numbas_simulator_the_kernel_is_numbas():
    done = run_fresh(
        "import os; os.environ['NUMBA_ENABLE_CUDASIM'] = '1'; os.environ.pop('PAGED_NUMBA_TARGET', None)\n"
        "import numpy as np; from paged_numba.kernels import attention_textbook_kernel as kernel\n"
        "one = np.ones((1, 1, 1, 1), np.float32); out = one[0] * 0; index = np.zeros((1, 1), np.int32)\n"
        "kernel[1, 1](out, one[0], one, 5 * one, index, index[0] + 1, np.float32(1)); print(type(kernel[1, 1]), out)"
    )
    assert done.stdout.strip().endswith("[[[5.]]]"), done.stderr
    assert "numba" in done.stdout


def test_profile_of_a_users_file_takes_an_exported_kernel(tmp_path, capsys):
    from paged_numba.commands import main as cli

    script = tmp_path / "by_hand.py"
    script.write_text(
        "import numpy as np\nfrom paged_numba.kernels import copy_blocks_kernel\n"
        "def copy():\n"
        "    caches = np.zeros((2, 2, 1, 1, 1), np.float32)\n"
        "    copy_blocks_kernel[1, 32](*caches, np.array([[0, 1]]))\n",
        encoding="utf-8",
    )
    assert cli.main(["profile", f"{script}::copy"]) == 0
    assert "copy_blocks_kernel" in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in kernels.__all__ if name != "Kernel"])
def test_kernels_are_pickled_by_name(name):
    kernel = getattr(kernels, name)
    assert pickle.loads(pickle.dumps(kernel)) is kernel
    if name.endswith("_for"):
        made = kernel(1, 64)
        assert pickle.loads(pickle.dumps(made)) is made

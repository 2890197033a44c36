"""``PagedKVCache(debug=True)``: mistakes with tables and slots, in terms of sequence, token and block."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba import lockstep
from paged_numba.errors import KernelError

HEADS, DIM = 2, 4
RNG = np.random.default_rng(0)


def tokens(count):
    return RNG.standard_normal((2, count, HEADS, DIM), np.float32)


def query(rows):
    return RNG.standard_normal((rows, HEADS, DIM), np.float32)


@pytest.fixture
def cache():
    """Two sequences in blocks of 4: "a" has 6 tokens in blocks 0 and 1, "b" 4 in block 2."""
    made = pn.PagedKVCache(6, 4, HEADS, DIM, target="lockstep", debug=True)
    made.add("a", *tokens(6))
    made.add("b", *tokens(4))
    assert made.allocator.block_table("a").tolist() == [0, 1]
    assert made.allocator.block_table("b").tolist() == [2]
    return made


def attend(cache, tables, lens):
    return pn.paged_attention(
        query(len(lens)),
        cache.key_cache,
        cache.value_cache,
        np.array(tables, np.int32),
        np.array(lens, np.int32),
        target="lockstep",
    )


def found(cache, tables, lens):
    with lockstep.sanitizing() as findings:
        attend(cache, tables, lens)
    return {finding.kind: finding for finding in findings}


def test_right_use_passes(cache):
    cache.attend(["a", "b"], query(2))
    cache.fork("a", "c")
    cache.append("c", *tokens(1))
    cache.attend(["a", "b", "c"], query(3))
    cache.gather("c")
    cache.free("a")
    cache.add("d", *tokens(9))
    cache.attend(["c", "d"], query(2))


def test_a_freed_block_is_found(cache):
    table = cache.allocator.block_table("b")
    cache.free("b")
    kinds = found(cache, [table], [4])
    assert "which is free; it was token 0 of sequence 'b'" in kinds["read of a freed block"].example.what
    assert "begins with block 2, which is free" in kinds["wrong block table"].example.what
    with pytest.raises(KernelError, match="read of a freed block"):
        attend(cache, [table], [4])


def test_a_table_that_runs_past_the_end_is_found(cache):
    kinds = found(cache, [[0, 1]], [7])
    assert "block 1, offset 2, token 6 of sequence 'a', which has 6 tokens" in (
        kinds["read past a sequence's end"].example.what
    )
    assert (
        "reads tokens 6 to 6 of sequence 'a', which has 6 tokens" in kinds["wrong block table"].example.what
    )
    assert not found(cache, [[0, 1]], [6])
    with pytest.raises(KernelError, match="past a sequence's end"):
        pn.gather_kv(cache.key_cache, cache.value_cache, np.array([0, 1], np.int32), 7, target="lockstep")


def test_a_table_that_leads_into_another_sequence_is_found(cache):
    kinds = found(cache, [[0, 2]], [6])
    assert list(kinds) == ["wrong block table"]
    assert (
        "row 0 of block_tables has block 2 for tokens from 4 on of sequence 'a', whose block there is 1: "
        "block 0 of sequence 'b'" in kinds["wrong block table"].example.what
    )


def test_a_write_into_a_shared_block_is_found(cache):
    cache.fork("b", "c")
    slot = cache.allocator.slots("c", 3, 4)
    with lockstep.sanitizing() as findings:
        pn.write_kv(*tokens(1), cache.key_cache, cache.value_cache, slot, target="lockstep")
    assert {finding.kind for finding in findings} == {"write into a shared block"}
    assert "token 3 of sequence 'b', which has 4 tokens and shares the block with 'c'" in str(findings)
    cache.free("b")
    pn.write_kv(*tokens(1), cache.key_cache, cache.value_cache, slot, target="lockstep")


def test_a_write_into_a_freed_block_is_found(cache):
    slot = cache.allocator.slots("b", 0, 1)
    cache.free("b")
    with pytest.raises(KernelError, match="write into a freed block"):
        pn.write_kv(*tokens(1), cache.key_cache, cache.value_cache, slot, target="lockstep")


def test_tokens_that_were_announced_but_not_written_are_found(cache):
    cache.allocator.append("b", 1)  # nobody writes them
    kinds = found(cache, [cache.allocator.block_table("b")], [5])
    assert "token 4 of sequence 'b'" in kinds["read of an unwritten slot"].example.what


def test_what_an_earlier_owner_wrote_counts_as_unwritten(cache):
    cache.free("b")
    cache.allocator.add("b", 4)  # the same name, the same block
    assert cache.allocator.block_table("b").tolist() == [2]
    assert "read of an unwritten slot" in found(cache, [[2]], [4])


def test_copy_on_write_carries_what_was_written(cache):
    cache.fork("a", "c")
    cache.append("c", *tokens(1))
    block = cache.allocator.block_table("c")[1]
    assert not found(cache, [[0, block]], [7])


def test_what_a_parent_wrote_is_its_childs_when_it_is_gone(cache):
    cache.fork("a", "c")
    cache.free("a")
    cache.gather("c")
    cache.attend(["c"], query(1))


def test_blocks_that_change_hands_behind_the_caches_back_are_seen(cache):
    cache.allocator.free("b")
    cache.allocator.add("b", 4)
    assert "read of an unwritten slot" in found(cache, [cache.allocator.block_table("b")], [4])


def test_a_plain_cache_under_the_sanitizer_tells_unwritten_slots_too():
    cache = pn.PagedKVCache(6, 4, HEADS, DIM, target="lockstep")
    cache.add("a", *tokens(3))
    with lockstep.sanitizing() as findings:
        cache.attend(["a"], query(1))
        cache.fork("a", "b")
        cache.append("b", *tokens(1))
        cache.attend(["a", "b"], query(2))
    assert not findings
    with lockstep.sanitizing() as findings:
        attend(cache, [[0]], [4])
    assert {finding.kind for finding in findings} == {"uninitialised read"}
    assert {finding.array for finding in findings} == {"key_cache", "value_cache"}


@given(data=st.data())
def test_no_sequence_of_calls_raises_a_false_alarm(data):
    cache = pn.PagedKVCache(8, 4, HEADS, DIM, target="lockstep", debug=True)
    names = "abc"
    with lockstep.sanitizing() as findings:
        for _ in range(data.draw(st.integers(1, 8))):
            name = data.draw(st.sampled_from(names))
            try:
                step = data.draw(st.sampled_from(["add", "append", "fork", "free", "attend"]))
                if step in ("add", "append"):
                    getattr(cache, step)(name, *tokens(data.draw(st.integers(1, 6))))
                elif step == "fork":
                    cache.fork(name, data.draw(st.sampled_from(names)))
                elif step == "free":
                    cache.free(name)
                elif len(cache.allocator):
                    cache.attend(list(cache.allocator), query(len(cache.allocator)))
            except (
                pn.errors.UnknownSequenceError,
                pn.errors.DuplicateSequenceError,
                pn.errors.OutOfBlocksError,
            ):
                pass
    assert not findings, str(findings)


@given(
    prefix_caching=st.booleans(),
    layout=st.sampled_from(("NHD", "HND", "packed")),
    written=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    window=st.none() | st.integers(1, 9),
)
def test_host_memory_keeps_which_slots_are_unwritten(prefix_caching, layout, written, window):
    made = pn.PagedKVCache(
        8, 4, 1, 4, num_layers=2, layout=layout, prefix_caching=prefix_caching, target="lockstep", debug=True
    )
    key, value = RNG.standard_normal((2, 9, 1, 4), np.float32)
    slots = made.reserve("a", list(range(9))).slots
    for layer, count in enumerate(written):
        made.write_layer(layer, key[:count], value[:count], slots[:count])
    first = 0 if window is None else made.release("a", window) * 4
    made.swap_out("a")
    made.add("b", *np.ones((2, 2, 6, 1, 4), np.float32), list(range(10, 16)))
    made.swap_in("a")
    for layer, count in enumerate(written):
        if count < 9:
            with pytest.raises(
                KernelError, match=f"(?s)read of an unwritten slot.*token {max(count, first)} of"
            ):
                made.gather("a", layer=layer)
        else:
            np.testing.assert_array_equal(made.gather("a", layer=layer)[0], key[first:])
        if count > first:
            seen = {"window": window, "seq_lens": [count]} if first else {"seq_lens": [count]}
            if window is None or count - window >= first or not first:
                assert np.isfinite(
                    made.attend(["a"], np.ones((1, 1, 4), np.float32), layer=layer, **seen)
                ).all()


def test_debugging_needs_lockstep(monkeypatch):
    monkeypatch.setattr("paged_numba.targets.resolve", lambda target: target)
    with pytest.raises(ValueError, match="debug=True needs the target lockstep, got target='cuda'"):
        pn.PagedKVCache(6, 4, HEADS, DIM, target="cuda", debug=True)


def test_a_cache_that_is_gone_is_not_watched():
    cache = pn.PagedKVCache(6, 4, HEADS, DIM, target="lockstep", debug=True)
    arrays = cache.key_cache, cache.value_cache
    with pytest.raises(KernelError):
        pn.gather_kv(*arrays, np.zeros(1, np.int32), 1, target="lockstep")
    del cache
    pn.gather_kv(*arrays, np.zeros(1, np.int32), 1, target="lockstep")


@pytest.mark.parametrize("writes", [False, True])
def test_what_a_sequence_held_before_a_truncation_counts_as_unwritten(cache, writes):
    cache.truncate("a", 5)
    slots = cache.reserve("a", 1).slots
    assert slots.tolist() == [5]
    if writes:
        cache.write_layer(0, *tokens(1), slots)
        cache.attend(["a"], query(1))
    else:
        with pytest.raises(KernelError, match="read of an unwritten slot"):
            cache.attend(["a"], query(1))


def test_what_others_hold_of_a_truncated_block_stays_written():
    cache = pn.PagedKVCache(6, 4, HEADS, DIM, target="lockstep", debug=True, prefix_caching=True)
    cache.add("a", *tokens(4), range(4))
    cache.fork("a", "b")
    cache.truncate("a", 2)
    cache.attend(["a", "b"], query(2))
    # Of the whole block only the prefix cache knows.
    cache.free("b")
    cache.attend(["a"], query(1))
    assert cache.add("c", *tokens(5), range(5)) == 4
    cache.attend(["a", "c"], query(2))

"""The properties find the fault in every deliberately wrong kernel and allocator."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from paged_numba import lockstep
from paged_numba.allocator.allocator import BlockAllocator
from paged_numba.errors import KernelError, PagedNumbaError
from paged_numba.ops import adopt
from paged_numba.testing import laws, properties
from paged_numba.testing.large_scores import large_score_batches, large_scores_lose_no_digit
from paged_numba.testing.machines import allocator_machine, cache_machine, prefix_machine
from paged_numba.testing.mutants import Difference, caught, installed, kernels
from paged_numba.testing.mutants.allocators import ALLOCATOR_MUTANTS
from paged_numba.testing.mutants.caches import CACHE_MUTANTS
from paged_numba.testing.mutants.plans import PLAN_MUTANTS, planned_wrongly
from paged_numba.testing.mutants.prefixes import (
    PREFIX_MUTANTS,
    HeadsGoFirst,
    MostRecentGoesFirst,
    NotRenewed,
    PromisesTooMuch,
    with_prefixes,
)
from paged_numba.testing.mutants.servers import SERVER_MUTANTS
from paged_numba.testing.serving import answers_do_not_depend_on_the_pool, workloads
from paged_numba.testing.strategies import grid_batches, merge_parts, paged_batches, seeds, tokens_to_write

TARGET = "lockstep"
THOROUGH = settings.default.max_examples > 100
# Measured with one release of Hypothesis: each mutant of a kernel or plan dies within 85 examples, those hunted briefly
# within 31. Other releases draw other examples, so a mutant gets more of them than real code; it seldom needs them.
MOST = 1000
hunt = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    stateful_step_count=30,
    report_multiple_bugs=False,
)
LONG, BRIEF = (300, 300) if THOROUGH else (100, 50)
machine_hunt = settings(hunt, max_examples=MOST)
orders = st.sampled_from(("together", "forward", "reverse"))


def hunting(examples, **strategies):
    """Make a property a hunt: a function of the number of examples, which is `examples` for real code."""

    def decorate(test):
        def run(examples=examples):
            settings(hunt, max_examples=examples)(given(**strategies)(test))()

        return run

    return decorate


def attend(algorithm, examples=LONG):
    @hunting(LONG, batch=paged_batches(), order=orders)
    def run(batch, order):
        with lockstep.options(order=order):
            properties.attention_agrees_with_the_oracle(batch, algorithm, TARGET)

    run(examples)


def attend_infinite(algorithm, examples=LONG):
    @hunting(LONG, batch=paged_batches(infinite_keys=True))
    def run(batch):
        properties.attention_agrees_with_the_oracle(batch, algorithm, TARGET)

    run(examples)


@hunting(
    BRIEF, batch=st.booleans().flatmap(lambda infinite: paged_batches(plain=True, infinite_keys=infinite))
)
def attend_textbook(batch):
    properties.textbook_attention_agrees_with_the_oracle(batch, TARGET)


# The largest cache has 2**31 numbers times 8; a block has 2**16, as in Llama 2 7B with blocks of 16.
@hunting(BRIEF, num_blocks=st.integers(1, 2**18))
def large_cache(num_blocks):
    properties.a_block_far_into_the_cache_is_found(num_blocks, (16, 32, 128), TARGET)


@hunting(BRIEF, batch=paged_batches(layout="packed"), order=orders)
def attend_packed(batch, order):
    with lockstep.options(order=order):
        properties.attention_agrees_with_the_oracle(batch, "auto", TARGET)


@hunting(LONG, tokens=tokens_to_write())
def write(tokens):
    properties.write_puts_each_token_into_its_slot(tokens, TARGET)


@hunting(BRIEF, batch=paged_batches())
def gather(batch):
    properties.gather_returns_what_was_written(batch, TARGET)


@hunting(BRIEF, batch=paged_batches(layout="packed"))
def gather_packed(batch):
    properties.gather_returns_what_was_written(batch, TARGET)


@hunting(BRIEF, tokens=tokens_to_write(), seed=seeds)
def copy(tokens, seed):
    order = np.random.default_rng(seed).permutation(tokens.caches.shape[1])
    properties.copy_duplicates_blocks(tokens, order, TARGET)


@hunting(BRIEF, batch=paged_batches(plain=True), cut=st.floats(0, 1))
def merge(batch, cut):
    properties.merging_parts_is_attention_to_the_whole(batch, cut, TARGET)


@hunting(LONG, batch=paged_batches(), positions=st.lists(st.floats(0, 1), min_size=4, max_size=4))
def hide(batch, positions):
    properties.no_token_notices_what_it_does_not_see(batch, positions[: len(batch.seq_lens)], "tile", TARGET)


@hunting(
    BRIEF, batch=paged_batches(layout="packed"), positions=st.lists(st.floats(0, 1), min_size=4, max_size=4)
)
def hide_packed(batch, positions):
    properties.no_token_notices_what_it_does_not_see(batch, positions[: len(batch.seq_lens)], "auto", TARGET)


@hunting(50 if THOROUGH else 30, batch=paged_batches())
def sanitize(batch):
    properties.the_sanitizer_finds_nothing(batch, "tile")


@hunting(40, batch=grid_batches(np.dtype(np.float32), 64, 16, 8, 2))
def exact(batch):
    properties.attention_is_as_exact_as_dense_attention(batch, [("tile", None)], TARGET)


@hunting(
    LONG,
    batch=large_score_batches(),
    num_splits=st.integers(1, 9),
    algorithm=st.sampled_from(("split", "block")),
)
def large_scores(batch, num_splits, algorithm):
    large_scores_lose_no_digit(batch, algorithm, TARGET, num_splits)


MANY_HEADS = grid_batches(np.dtype(np.float32), 33, 4, 20, 1)


@hunting(40, batch=MANY_HEADS)
def many_heads(batch):
    properties.attention_is_as_exact_as_dense_attention(batch, [("tile", None)], TARGET)


@hunting(10, batch=MANY_HEADS)
def sanitize_many_heads(batch):
    properties.the_sanitizer_finds_nothing(batch, "tile")


def blind(examples=1):
    properties.a_row_that_sees_no_key_of_a_tile_stays_as_it_was(TARGET)


PROPERTIES = {
    "attend": lambda examples=LONG: attend("block", examples),
    "attend textbook": attend_textbook,
    "attend packed": attend_packed,
    "exact": exact,
    "large scores": large_scores,
    "hide": hide,
    "hide packed": hide_packed,
    "blind": blind,
    "sanitize": sanitize,
    "many heads": many_heads,
    "sanitize many heads": sanitize_many_heads,
    "merge": merge,
    "large cache": large_cache,
    "write": write,
    "gather": gather,
    "gather packed": gather_packed,
    "copy": copy,
}


@pytest.mark.parametrize("mutant", kernels.KERNEL_MUTANTS, ids=str)
def test_kernel_mutant_is_killed(mutant):
    with kernels.installed(mutant), pytest.raises((AssertionError, KernelError)):  # noqa: PT012 (one call)
        if mutant.operation == "attend":
            attend(mutant.algorithm, MOST)
        elif mutant.operation == "attend infinite":
            attend_infinite(mutant.algorithm, MOST)
        else:
            PROPERTIES[mutant.operation](MOST)


@pytest.mark.parametrize("mutant", PLAN_MUTANTS, ids=str)
def test_plan_mutant_is_killed(mutant):
    # A part left out leaves memory as it happens to be; Hypothesis calls a failure flaky if it does not recur.
    noticed = AssertionError, KernelError, ValueError, Flaky
    with planned_wrongly(mutant), pytest.raises(noticed):
        attend(mutant.algorithm, MOST)


@pytest.mark.parametrize("name", PROPERTIES)
def test_real_kernels_survive_the_same_hunt(name):
    PROPERTIES[name]()


@hunting(LONG, batch=paged_batches(layout="NHD"), seed=seeds)
def permute(batch, seed):
    order = np.random.default_rng(seed).permutation(len(batch.key_cache))
    laws.block_permutation(batch, order, "block", TARGET)


@hunting(LONG, batch=paged_batches(layout="NHD"), size=st.integers(1, 40), seed=seeds)
def resize(batch, size, seed):
    laws.block_size(batch, size, seed, "tile", TARGET)


@hunting(LONG, batch=paged_batches(layout="NHD"), num_splits=st.integers(1, 9))
def split(batch, num_splits):
    laws.number_of_splits(batch, num_splits, TARGET)


@hunting(LONG, batch=paged_batches(layout="NHD"), cut=st.floats(0, 1), seed=seeds)
def chunk(batch, cut, seed):
    laws.chunking(batch, [cut], seed, "tile", TARGET)


@hunting(LONG, parts=merge_parts())
def merge_in_any_order(parts):
    laws.merging(parts, TARGET)


@hunting(LONG, batch=paged_batches(layout="NHD"))
def turn(batch):
    laws.layout(batch, "tile", TARGET)


@pytest.mark.parametrize(
    ("law", "module", "name"),
    [
        (permute, "attention_block", "block table not followed"),
        (resize, "attention_tile", "block table not followed"),
        (split, "merge_splits", "last split left out"),
        (chunk, "attention_tile", "another token's query"),
        (chunk, "attention_tile", "position of the tile's first token"),
        (merge_in_any_order, "merge_states", "LSE of the merge is the larger one"),
    ],
)
def test_law_notices_a_mutant(law, module, name):
    (mutant,) = [m for m in kernels.KERNEL_MUTANTS if (m.module, m.name) == (module, name)]
    with kernels.installed(mutant), pytest.raises((AssertionError, KernelError)):
        law(MOST)


def test_law_notices_a_layout_that_is_not_heeded(monkeypatch):
    right = adopt.caches
    monkeypatch.setattr(
        adopt, "caches", lambda key_cache, value_cache, layout: right(key_cache, value_cache, "NHD")
    )
    with pytest.raises((AssertionError, ValueError)):
        turn(MOST)


@pytest.mark.parametrize("mutant", ALLOCATOR_MUTANTS, ids=lambda mutant: mutant.__name__)
def test_allocator_mutant_is_killed(mutant):
    with pytest.raises((AssertionError, KeyError, IndexError, PagedNumbaError)):
        run_state_machine_as_test(allocator_machine(mutant), settings=machine_hunt)


@pytest.mark.parametrize(
    "mutant",
    [
        mutant
        for mutant in ALLOCATOR_MUTANTS
        if ("Copy" in mutant.__name__ or "Copies" in mutant.__name__) and "Promises" not in mutant.__name__
    ],
    ids=lambda mutant: mutant.__name__,
)
def test_attention_notices_a_forgotten_copy(mutant):
    with pytest.raises((AssertionError, KernelError, ValueError)) as caught:
        run_state_machine_as_test(cache_machine(mutant), settings=machine_hunt)
    # The plan of a batch may notice it first: two tokens have one slot.
    assert type(caught.value) is not ValueError or "must not name a slot twice" in str(caught.value)


def test_attention_notices_values_that_are_not_copied():
    (mutant,) = [m for m in kernels.KERNEL_MUTANTS if m.name == "values not copied"]
    with kernels.installed(mutant), pytest.raises(AssertionError):
        run_state_machine_as_test(cache_machine(), settings=settings(machine_hunt, max_examples=300))


@pytest.mark.parametrize("mutant", CACHE_MUTANTS, ids=lambda mutant: mutant.__name__)
def test_cache_mutant_is_killed(mutant):
    # Keys in place of values may be too long for the storage of the values.
    with pytest.raises((AssertionError, KernelError)):
        run_state_machine_as_test(cache_machine(cache=mutant), settings=machine_hunt)


@pytest.mark.parametrize("name", PREFIX_MUTANTS)
def test_prefix_cache_mutant_is_killed(name):
    longer = settings(machine_hunt, max_examples=3 * MOST, stateful_step_count=50)
    with pytest.raises((AssertionError, KeyError, IndexError, ValueError)):
        run_state_machine_as_test(prefix_machine(PREFIX_MUTANTS[name]), settings=longer)


@hunting(40, workload=workloads())
def serve(workload):
    answers_do_not_depend_on_the_pool(workload)


def test_preempting_server_gives_the_same_answers_with_any_pool():
    serve()


@pytest.mark.parametrize("mutant", SERVER_MUTANTS, ids=lambda mutant: mutant.__name__)
def test_server_mutant_is_killed(mutant):
    with installed(mutant), pytest.raises((AssertionError, ValueError, PagedNumbaError)):
        serve(MOST)


def test_an_allocator_that_promises_too_much_is_noticed():
    def refuses_what_it_cannot_hold(make):
        pool = make(3, 2, prefix_caching=True)
        pool.add("a", [1, 2, 3, 4])
        pool.add("b", [9])
        pool.commit("a")
        pool.free("a")
        return not pool.can_allocate([1, 2, 5, 6, 7, 8])

    assert refuses_what_it_cannot_hold(BlockAllocator)
    assert not refuses_what_it_cannot_hold(PromisesTooMuch)


def test_an_allocator_that_gives_up_the_wrong_block_is_noticed():
    def gives_up_the_least_recent_tail(make):
        pool = make(6, 2, prefix_caching=True)
        for name in ("abcd", "efgh"):
            pool.add(name, [*name.encode(), 0])
            pool.commit(name)
            pool.free(name)
        pool.add("new", range(6))
        pool.free("new")
        return [pool.add(name, [*name.encode(), 0]).num_cached_tokens for name in ("abcd", "efgh")] == [2, 4]

    assert gives_up_the_least_recent_tail(BlockAllocator)
    assert not gives_up_the_least_recent_tail(with_prefixes(HeadsGoFirst))
    assert not gives_up_the_least_recent_tail(with_prefixes(MostRecentGoesFirst))


def test_an_allocator_that_takes_a_released_head_for_long_unused_is_noticed():
    def gives_up_what_was_freed_first(make):
        pool = make(4, 2, prefix_caching=True)
        for name in ("abcd", "ef"):
            pool.add(name, [*name.encode(), 0][: len(name)])
            pool.commit(name)
        pool.release("abcd", 1)  # "ab", while "cd" is in use
        pool.free("ef")
        pool.free("abcd")
        pool.add("new", range(6))
        pool.free("new")
        return pool.add("again", [*b"abcd"]).num_cached_tokens == 2

    assert gives_up_what_was_freed_first(BlockAllocator)
    assert not gives_up_what_was_freed_first(with_prefixes(NotRenewed))


def test_mutant_whose_text_is_gone_is_an_error(tmp_path):
    mutant = kernels.KernelMutant("gone", "write_kv", "no such text", "x", "write")
    with pytest.raises(ValueError, match="must occur once in the source, got 0"):
        kernels.build(mutant, tmp_path)


@pytest.mark.parametrize("thing", [None, "mutant", int, BlockAllocator])
def test_what_is_no_mutant_is_refused(thing):
    for use in (Difference.of, lambda mutant: installed(mutant).__enter__()):
        with pytest.raises(TypeError, match=r"mutant must be .* got mutant="):
            use(thing)


@pytest.mark.parametrize(("test", "arguments"), [(None, ()), (len, ()), (lambda: None, (1,))])
def test_test_that_cannot_be_called_catches_nothing(test, arguments):
    with pytest.raises(TypeError):
        caught(test, *arguments)


def test_notes_of_any_kind_are_part_of_the_message():
    def fails():
        error = ValueError("x")
        error.__notes__ = [1]
        raise error

    assert caught(fails) == "ValueError: x\n1"

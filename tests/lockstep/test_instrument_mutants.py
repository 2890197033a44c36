"""Profilers and sanitizers with one mistake each: the tests of the right tools must find each mistake."""

import importlib

import numpy as np
import pytest

from paged_numba.lockstep.language.arrays import iteration
from paged_numba.lockstep.observe import observed_array
from paged_numba.lockstep.observe.observed_machine import ObservedMachine
from paged_numba.lockstep.profiler import profiler, transactions
from paged_numba.lockstep.sanitizer import findings, races, shadow, unwritten

test_profiler = pytest.importorskip("test_profiler", reason="Numba is not installed")
test_assignment = pytest.importorskip("test_assignment")
test_barriers = pytest.importorskip("test_barriers")
test_inactive = pytest.importorskip("test_inactive")
test_local_arrays = pytest.importorskip("test_local_arrays")
test_orders = pytest.importorskip("test_orders", reason="Numba is not installed")
test_sanitizer = pytest.importorskip("test_sanitizer", reason="Numba is not installed")

launch = importlib.import_module("paged_numba.lockstep.launch")  # the package has a function of that name
TWINS = {twins[1]: twins for twins in test_sanitizer.TWINS}


def twin(name):
    return lambda: test_sanitizer.test_a_racy_kernel_is_caught_and_its_clean_twin_passes(TWINS[name], 128)


def copy_with_stride(stride, sectors, lines):
    return lambda: test_profiler.test_copy_moves_more_the_farther_lanes_are_apart(stride, 0, sectors, lines)


def counts_warps_by_thread_blocks(self, mask):
    return self.num_lanes, self.batch


def keeps_one_reader(self, pieces, stamps):
    self.reader[pieces] = stamps


def forgets_the_inactive_lanes(threads, place, group, full):
    return profiler_rows(
        threads, place, [(True, position, thread_blocks) for _, position, thread_blocks in group], True
    )


def declares_for_all_lanes(self, mask, site, shape, dtype):
    made = right_local_array(self, mask, site, shape, dtype)
    if mask is not True:
        self.declarations[self.frame(site)] = self.declarations[self.frame(site)] + ~mask
    return made


def tells_each_warp(self, mask, what, line, parts):
    met = right_meet(self, mask, what, line, parts)
    for _ in parts[1:]:
        self.tell("cooperate", mask, "block", None)
    return met


class Frozen:
    """The lanes of a loop as they were at its beginning."""

    def __init__(self, lanes):
        self.first = lanes()

    def __call__(self):
        return self.first


profiler_rows = profiler._rows

MUTANTS = {
    "sectors of 64 bytes": (transactions, "SECTOR", 64, copy_with_stride(8, 32, 8)),
    "lines of 256 bytes": (transactions, "LINE", 256, copy_with_stride(2, 8, 2)),
    "16 banks": (
        transactions, "BANKS", 16,
        lambda: test_profiler.test_transpose_through_a_tile_needs_padding("transpose_padded", 0),
    ),
    "words in one bank do not wait": (
        transactions, "_phases", lambda rows: (np.ones(len(rows), int), np.ones(len(rows), int)),
        lambda: test_profiler.test_bank_conflicts_follow_the_stride(32, 32),
    ),
    "no halves of a warp merge": (
        transactions, "_merges", lambda rows, parts: np.zeros(len(rows) * parts // 2, bool),
        lambda: test_profiler.test_eight_byte_accesses_go_in_halves_of_a_warp(0, 1, 1),
    ),
    "all atomics take one turn": (
        profiler, "turns", len, test_profiler.test_atomic_turns_are_the_most_lanes_at_one_address,
    ),
    "inactive lanes are counted": (profiler, "_rows", forgets_the_inactive_lanes,
        test_profiler.test_vector_add_touches_every_sector_once),
    "warps are counted by thread blocks": (
        ObservedMachine, "_count", counts_warps_by_thread_blocks,
        test_profiler.test_vector_add_touches_every_sector_once,
    ),
    "barriers order nothing": (races.Races, "_pass", lambda self, machine, since: setattr(
        self, "_recent", np.zeros(machine.num_lanes, np.int64)), twin("stencil_without_barrier")),
    "every store is benign": (
        races, "_same", lambda a, b: np.ones(len(a), bool),
        test_sanitizer.test_threads_that_write_the_same_value_race_harmlessly,
    ),
    "no store is benign": (
        races, "_same", lambda a, b: np.zeros(len(a), bool),
        test_sanitizer.test_threads_that_write_the_same_value_race_harmlessly,
    ),
    "one reader is kept": (
        shadow.Shadow, "read", keeps_one_reader,
        lambda: test_sanitizer.test_of_two_readers_either_may_be_the_other_thread(1),
    ),
    "warps are 64 lanes": (
        races, "WARP_SIZE", 64, test_sanitizer.test_syncwarp_orders_one_warp_only,
    ),
    "stores do not write": (
        unwritten.Unwritten, "write", lambda *_: None, test_sanitizer.test_unwritten_local_memory_is_found,
    ),
    "a copy is a use": (
        unwritten.Unwritten, "read_global",
        lambda *given: right_read_global(*given[:-1], False),
        test_sanitizer.test_a_copy_is_no_use_but_its_result_is_as_unwritten,
    ),
    "a barrier that exited threads miss is an error": (
        findings, "HARMLESS", (findings.BENIGN,), test_barriers.test_the_sanitizer_notes_that_threads_have_exited,
    ),
    "exited threads are not noticed": (
        ObservedMachine, "tell_exited", lambda self, mask: None,
        test_barriers.test_the_sanitizer_notes_that_threads_have_exited,
    ),
    "an unassigned variable is not noticed": (
        ObservedMachine, "misses", lambda *_: None,
        lambda: test_assignment.test_the_sanitizer_reports_the_value_and_goes_on(test_assignment.branch),
    ),
    "a constant that counts from the end is an error": (
        observed_array, "FromTheEnd", type("Nothing", (), {}),
        test_sanitizer.test_a_negative_constant_counts_from_the_end_on_purpose,
    ),
    "every declaration of a local array makes an array of its own": (
        observed_array.ObservedArray, "_report_dangling", lambda *_: None,
        lambda: test_local_arrays.test_a_local_array_of_an_earlier_call_is_found(test_local_arrays.used_together),
    ),
    "a local array is gone wherever another thread declares it again": (
        ObservedMachine, "local_array", declares_for_all_lanes,
        lambda: test_local_arrays.test_local_arrays_that_are_used_in_turn_are_fine(
            test_local_arrays.in_other_threads, [0, 1, 20, 30]
        ),
    ),
    "a loop loads items for lanes that have left it": (
        iteration, "each", lambda machine, lanes, values: right_each(machine, Frozen(lanes), values),
        lambda: test_inactive.test_a_loop_loads_no_item_that_it_does_not_use(test_inactive.breaks, 4),
    ),
    "a race is a read of unwritten memory, too": (
        shadow.Shadow, "mark_raced", lambda *_: None, test_orders.test_a_race_is_no_read_of_unwritten_memory_too,
    ),
    "watched launches run together": (
        launch, "in_turns",
        lambda whole, part, program, arguments, reverse: launch._all_together(whole, program, arguments(whole)),
        test_orders.test_warps_take_turns_in_a_trace,
    ),
    "each warp tells of a barrier": (
        ObservedMachine, "meet", tells_each_warp, lambda: test_orders.test_counts_do_not_depend_on_the_order("stencil"),
    ),
    "all distances of a race are one": (
        findings.Finding, "add_example", lambda *_: None,
        lambda: test_sanitizer.test_a_race_has_an_example_of_each_distance_the_widest_first("together"),
    ),
}  # fmt: skip

right_each = iteration.each
right_meet = ObservedMachine.meet
right_local_array = ObservedMachine.local_array
right_read_global = unwritten.Unwritten.read_global


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_noticed(name, monkeypatch):
    owner, attribute, wrong, check = MUTANTS[name]
    check()
    monkeypatch.setattr(owner, attribute, wrong)
    with pytest.raises(AssertionError):
        check()

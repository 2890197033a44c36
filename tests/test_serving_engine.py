"""The engine: its answers do not depend on memory, batch or order of arrival, and it loses no block."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from paged_numba.errors import PagedNumbaError
from paged_numba.testing.mutants import engines, installed
from paged_numba.testing.serving import engine as properties

# An example takes 0.1 s, so failures are not shrunk: that would take minutes.
hunt = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)
THOROUGH = settings.default.max_examples > 100
MOST = 1000


def answers(examples):
    @settings(hunt, max_examples=examples)
    @given(properties.workloads())
    def run(workload):
        properties.answers_are_those_without_a_cache(workload)

    run()


def shared_prefixes(examples):
    @settings(hunt, max_examples=examples)
    @given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(4, 20))
    def run(num_requests, num_own, block_size, token_budget):
        properties.a_shared_prefix_is_computed_once(num_requests, num_own, block_size, token_budget)

    run()


def interruptions(examples):
    @settings(hunt, max_examples=examples)
    @given(properties.workloads(), st.lists(st.integers(1, 400), min_size=1, max_size=3))
    def run(workload, places):
        properties.an_interrupted_step_loses_nothing(workload, places)

    run()


def texts(examples):
    @settings(hunt, max_examples=examples)
    @given(properties.texts_and_stops)
    def run(given):
        properties.text_is_whole_and_ends_before_a_stop_string(*given)

    run()


def test_answers_are_those_without_a_cache():
    answers(500 if THOROUGH else 50)


def test_a_shared_prefix_is_computed_once():
    shared_prefixes(100 if THOROUGH else 10)


def test_an_interrupted_step_loses_nothing():
    interruptions(300 if THOROUGH else 20)


def test_text_is_whole_and_ends_before_a_stop_string():
    texts(500)


FOUND_BY = {
    engines.PrefixIsComputedByAll: shared_prefixes,
    engines.FailedStepKeepsItsSlots: interruptions,
    engines.CharacterIsSplit: texts,
    engines.StopStringShowsItsBeginning: texts,
}


@pytest.mark.parametrize("mutant", engines.ENGINE_MUTANTS, ids=lambda mutant: mutant.__name__)
def test_engine_mutant_is_killed(mutant):
    errors = (AssertionError, ValueError, KeyError, PagedNumbaError)
    with installed(mutant), pytest.raises(errors):
        FOUND_BY.get(mutant, answers)(MOST)

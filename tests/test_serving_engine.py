"""The engine: its answers do not depend on memory, batch or order of arrival, and it loses no block."""

from hypothesis import given, settings
from hypothesis import strategies as st

from paged_numba.testing.serving import engine as properties


@settings(max_examples=60)
@given(properties.workloads())
def test_answers_are_those_without_a_cache(workload):
    properties.answers_are_those_without_a_cache(workload)


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(4, 20))
def test_a_shared_prefix_is_computed_once(num_requests, num_own, block_size, token_budget):
    properties.a_shared_prefix_is_computed_once(num_requests, num_own, block_size, token_budget)


@settings(max_examples=25)
@given(properties.workloads(), st.lists(st.integers(1, 400), min_size=1, max_size=3))
def test_an_interrupted_step_loses_nothing(workload, places):
    properties.an_interrupted_step_loses_nothing(workload, places)

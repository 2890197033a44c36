"""Hypothesis profiles, and the reason why tests marked ``gpu`` are skipped."""

import pytest
from hypothesis import HealthCheck, settings

from paged_numba import doctor, target

# The first example of a test may translate or compile a kernel: no deadline.
settings.register_profile("default", max_examples=40, deadline=None)
settings.register_profile(
    "thorough",
    max_examples=1000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],  # a thousand large examples may take minutes
)
settings.load_profile("default")


@pytest.fixture(scope="session")
def cuda_compiler():
    """Skip where kernels cannot be compiled for a GPU; none is needed."""
    found = doctor.compiler()
    if found != "found":
        pytest.skip(f"the CUDA compiler, which the cuda13 extra brings, is {found}")


def pytest_collection_modifyitems(items):
    reason = target.cuda_unavailable_reason()
    if reason is not None:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=f"needs a GPU: {reason}"))

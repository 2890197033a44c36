"""The lesson of a test file runs before the file's tests."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _lesson_has_run(request):
    # A lesson with a property test cannot run inside a property test: Hypothesis refuses to nest them.
    if hasattr(request.module, "LESSON"):
        request.module.LESSON.run()

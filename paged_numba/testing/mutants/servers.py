"""Deliberately wrong servers: each is `PreemptingServer` with a mistake in its preemption."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...serving.toy.preempting import PreemptingServer
from ...serving.toy.requests import Request


class RecomputesThePromptAlone(PreemptingServer):
    """Goes on with the answer of a preempted request, but computes only its prompt again."""

    def _tokens(self, request: Request, generated: list[int]) -> Any:
        return request.prompt


class LastTokenComputedTwice(PreemptingServer):
    """Computes the last token of the answer twice when a request is admitted again."""

    def _tokens(self, request: Request, generated: list[int]) -> Any:
        return np.concatenate([super()._tokens(request, generated), np.array(generated[-1:], np.uint8)])


SERVER_MUTANTS: tuple[type[PreemptingServer], ...] = (RecomputesThePromptAlone, LastTokenComputedTwice)

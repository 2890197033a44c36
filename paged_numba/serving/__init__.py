"""Serving: an engine with continuous batching on the paged cache, and `toy`, the small server of the first lessons."""

from .answers import Completion as Completion
from .answers import Output as Output
from .answers import Result as Result
from .engine import Counters as Counters
from .engine import Engine as Engine
from .recording import Recording as Recording
from .sampling import SamplingParams as SamplingParams

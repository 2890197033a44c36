"""A profiler without a GPU: the memory transactions, divergence and arithmetic of each line, counted exactly."""

from .gpus import GPU, GPUS
from .report import Report
from .session import profile, profiling

__all__ = ["GPU", "GPUS", "Report", "profile", "profiling"]

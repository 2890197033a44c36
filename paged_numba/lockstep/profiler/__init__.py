"""Profiler: counts the memory transactions, divergence and arithmetic of each line of a kernel, without a GPU."""

from .gpus import GPU, GPUS
from .report import Report
from .session import profile, profiling

__all__ = ["GPU", "GPUS", "Report", "profile", "profiling"]

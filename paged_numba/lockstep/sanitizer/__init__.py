"""Sanitizer: finds races, missing barriers, reads of unwritten memory and stray indices, without a GPU."""

from .findings import Finding, Findings
from .session import sanitize, sanitizing

__all__ = ["Finding", "Findings", "sanitize", "sanitizing"]

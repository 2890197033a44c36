"""A sanitizer without a GPU: races, missing barriers, unwritten memory and stray indices, each with both threads."""

from .findings import Finding, Findings
from .session import sanitize, sanitizing

__all__ = ["Finding", "Findings", "sanitize", "sanitizing"]

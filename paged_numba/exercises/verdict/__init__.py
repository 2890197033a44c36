"""What the examination of an answer found, as text, as a page and as JSON."""

from .verdict import Picture, Stage, Verdict

__all__ = ["Picture", "Stage", "Verdict"]

"""A profile as text, HTML and JSON."""

from __future__ import annotations

import json
from pathlib import Path

from .html import page_html
from .page import page_text, source_text
from .queries import Queries


class Report(Queries):
    """The counts of profiled launches. ``print`` it, let a notebook show it, save it.

    Examples
    --------
    ``report.memory("global", "load", array="key_cache").sectors_per_request``,
    ``report.memory("shared").bank_conflicts``, ``report.work(line=42).active_lanes``.
    """

    def text(self, gpu: str = "H200") -> str:
        """Return the tables as text, with a roofline for `gpu`."""
        return page_text(self, gpu)

    __str__ = text

    def source(self) -> str:
        """Return the source of each kernel and device function with the counts beside its lines."""
        return source_text(self)

    def html(self, gpu: str = "H200") -> str:
        """Return the report as HTML that needs nothing else; it follows the reader's light or dark mode."""
        return page_html(self, gpu)

    _repr_html_ = html

    def save_json(self, path: str | Path) -> None:
        """Write all counts as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    def save_html(self, path: str | Path, gpu: str = "H200") -> None:
        """Write the report as a page."""
        page = f"<!doctype html>\n<meta charset=utf-8>\n<title>Profile</title>\n{self.html(gpu)}\n"
        Path(path).write_text(page, encoding="utf-8")

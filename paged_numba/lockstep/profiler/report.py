"""`Report`: a profile as text, HTML and JSON."""

from __future__ import annotations

import json
from pathlib import Path

from ...files import write
from .html import page_html
from .page import page_text, summary
from .queries import Queries
from .source import source_text


class Report(Queries):
    """The counts of profiled launches: to print, to show in a notebook, to save, and to query.

    `profile` and `profiling` make reports.

    See Also
    --------
    paged_numba.lockstep.profile : Profiles a single launch.
    paged_numba.lockstep.profiling : Profiles all launches in a ``with`` statement.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba import cuda, lockstep
    >>> @cuda.jit
    ... def transpose(source, out):
    ...     tile = cuda.shared.array((32, 32), np.float32)
    ...     tile[cuda.threadIdx.y, cuda.threadIdx.x] = source[cuda.threadIdx.y, cuda.threadIdx.x]
    ...     cuda.syncthreads()
    ...     out[cuda.threadIdx.y, cuda.threadIdx.x] = tile[cuda.threadIdx.x, cuda.threadIdx.y]
    >>> source, out = np.ones((2, 32, 32), np.float32)
    >>> report = lockstep.profile(transpose, 1, (32, 32), source, out)
    >>> report
    Report(1 launch of transpose, 256 sectors of global memory moved, 992 bank conflicts)
    >>> report.memory("global", "load", array="source").sectors_per_request
    4.0
    >>> report.memory("shared", "load").bank_conflicts
    992
    >>> report.work().barriers, report.work().active_lanes
    (32, 100.0)
    >>> print(report.text("H100").splitlines()[0])
    transpose: 1 launch of 1 thread block of 32 x 32 threads
    """

    def __repr__(self) -> str:
        return f"Report({summary(self)})"

    def text(self, gpu: str = "H200") -> str:
        """Return the tables as text, with a roofline for `gpu`, one of `GPUS`.

        Parameters
        ----------
        gpu : str
            Name of a GPU, a key of `paged_numba.lockstep.profiler.GPUS`.
        """
        return page_text(self, gpu)

    __str__ = text

    def source(self) -> str:
        """Return the source of each kernel and device function, with the counts next to its lines."""
        return source_text(self)

    def html(self, gpu: str = "H200") -> str:
        """Return the report as self-contained HTML, in the reader's light or dark mode; `gpu` as in `text`.

        Parameters
        ----------
        gpu : str
            Name of a GPU, a key of `paged_numba.lockstep.profiler.GPUS`.
        """
        return page_html(self, gpu)

    _repr_html_ = html

    def json(self) -> str:
        """Return all counts as JSON."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    def page(self, gpu: str = "H200") -> str:
        """Return the report as an HTML page; `gpu` as in `text`.

        Parameters
        ----------
        gpu : str
            Name of a GPU, a key of `paged_numba.lockstep.profiler.GPUS`.
        """
        head = "<meta charset=utf-8>\n<title>Profile</title>\n<style>:root{color-scheme:light dark}</style>"
        return f"<!doctype html>\n<html lang=en>\n{head}\n{self.html(gpu)}\n</html>\n"

    def save_json(self, path: str | Path) -> None:
        """Write all counts as JSON; an old file stays as it was until the new one is complete.

        Parameters
        ----------
        path : str or Path
            Name of the file.
        """
        write(path, self.json())

    def save_html(self, path: str | Path, gpu: str = "H200") -> None:
        """Write the report as an HTML page; `gpu` as in `text`, the file as in `save_json`.

        Parameters
        ----------
        path : str or Path
            Name of the file.
        gpu : str
            Name of a GPU, a key of `paged_numba.lockstep.profiler.GPUS`.
        """
        write(path, self.page(gpu))

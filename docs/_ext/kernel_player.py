"""The page "A kernel in lockstep": the recordings that it plays, made by the real kernels while the site is built."""

import html
import importlib.util
from functools import cache, partial
from pathlib import Path

import numpy as np
from docutils import nodes
from play import player, write_recordings
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import paged_numba
from paged_numba import lockstep
from paged_numba.kernels import attention_textbook_kernel
from paged_numba.lockstep.tracer.packing import unpacked
from paged_numba.lockstep.tracer.page import MODULES, text_of

PAGE = "play/kernel"
KERNELS = Path(__file__).parents[1] / "play" / "kernels.py"
SCRIPTS = ("player.js", *MODULES)
STYLES = ("transport.css", "player.css")


def demonstrations():
    """Return the module with the page's own kernels."""
    spec = importlib.util.spec_from_file_location("kernels_of_the_page", KERNELS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recorded(kernel, blocks, threads, *arguments, order="together"):
    """Record a launch; return the recording as JSON-compatible data, with what made it."""
    with lockstep.options(order=order):
        recording = lockstep.record(kernel, blocks, threads, *arguments)
    made_by = f"paged_numba {paged_numba.__version__}, lockstep.record, order={order!r}"
    return {**recording.to_dict(), "made_by": made_by}


def loads(made, array):
    """Return the loads of the first thread block from an array: step, access."""
    track = made["tracks"][0]
    return [
        (at, access)
        for at, step in enumerate(track["steps"])
        for access in step.get("accesses", ())
        if access["kind"] == "load" and track["arrays"][access["array"]]["name"] == array
    ]


def attention():
    """Attention of two sequences, of 5 and 3 tokens in scattered blocks of 4, with 8 query heads and 2 KV heads."""
    rng = np.random.default_rng(0)
    query = rng.standard_normal((2, 8, 4), np.float32)
    caches = rng.standard_normal((2, 8, 4, 2, 4), np.float32)
    tables, lens = np.array([[5, 2], [3, -1]], np.int32), np.array([5, 3], np.int32)
    out, right = np.zeros_like(query), paged_numba.paged_attention(query, *caches, tables, lens)
    made = recorded(attention_textbook_kernel, 2, 8, out, query, *caches, tables, lens, np.float32(0.5))
    np.testing.assert_allclose(out, right, rtol=1e-4, atol=1e-5)
    note = (
        "Each of the 8 query heads has a thread, and 24 of the warp's 32 lanes have none. Sequence 0 has 5 tokens, in "
        "blocks 5 and 2. Four query heads share a KV head, so a load of keys uses 8 of the 32 bytes that it moves."
    )
    (at, _), *_ = loads(made, "key_cache")
    return {**made, "note": note, "look_at": at}


def reduction(barrier):
    """The sum of 0 .. 127 by a tree in shared memory, the warps one after the other."""
    kernels = demonstrations()
    values, total = np.arange(kernels.THREADS, dtype=np.float32), np.zeros(1, np.float32)
    made = recorded(kernels.tree(barrier), 1, kernels.THREADS, total, values, order="forward")
    got, right = int(total[0]), int(values.sum())
    if (got == right) != barrier:
        raise ValueError(
            f"the sum must be right with the barrier, and wrong without it, got {got:,} for {right:,}"
        )
    if barrier:
        note = f"The result is {got:,}, as it must be: after each level, every warp waits for the others."
        return {**made, "note": note}
    at, index, stale, fresh = first_stale(made, reduction(True))
    note = (
        f"The result is {got:,}, and the sum is {right:,}. Step {at} is the first that goes wrong: warp 0 loads "
        f"partial[{index}] = {stale} before warp {index // 32} has stored {fresh} there. On a GPU the result depends "
        "on timing; here a warp runs until it ends or must wait, and then the next one does."
    )
    return {**made, "note": note, "look_at": at}


def first_stale(wrong, right):
    """Return the first load by warp 0 that differs: the step, and of lane 0 the index in `partial` and both values."""
    (array,) = [array for array in wrong["tracks"][0]["arrays"] if array["name"] == "partial"]
    of_warp_0, others = (
        [
            load
            for load in loads(made, "partial")
            if made["tracks"][0]["masks"][load[1]["lanes"]].startswith("0")
        ]
        for made in (wrong, right)
    )
    pairs = zip(of_warp_0, others, strict=True)
    at, stale, fresh = next(
        (at, one, other) for (at, one), (_, other) in pairs if one["values"] != other["values"]
    )
    byte, *values = (
        int(unpacked(packed, 1)[0]) for packed in (stale["bytes"], stale["values"], fresh["values"])
    )
    return at, (byte - array["start"]) // array["itemsize"], *values


def transpose(width):
    """The transpose of a 32 x 32 matrix by a tile whose rows have `width` numbers."""
    matrix, out = np.arange(1024, dtype=np.float32).reshape(32, 32), np.zeros((32, 32), np.float32)
    made = recorded(demonstrations().transposed(width), 1, (32, 4), out, matrix)
    np.testing.assert_array_equal(out, matrix.T)
    found = loads(made, "tile")
    (most,) = {load["costs"]["wavefronts"] for _, load in found}
    where = "one bank" if most == 32 else "32 banks"
    note = (
        f"A warp writes a row of the tile and reads a column. The 32 numbers of a column lie in {where}: "
        f"a warp's load takes {most} wavefront{'s' if most > 1 else ''}."
    )
    return {**made, "note": note, "look_at": found[0][0]}


RECORDINGS = {
    "attention": ("attention_textbook", attention),
    "tree": ("A sum over 128 threads", partial(reduction, True)),
    "tree-without-barrier": ("The same sum without its barrier", partial(reduction, False)),
    "transpose": ("A transpose, tile rows of 32 numbers", partial(transpose, 32)),
    "transpose-padded": ("The same transpose, tile rows of 33 numbers", partial(transpose, 33)),
}
"""For the name of each recording, its title and the function that makes it."""


@cache
def recordings():
    """Run all kernels, and return their recordings by name."""
    return {name: make() for name, (_, make) in RECORDINGS.items()}


class KernelPlayer(SphinxDirective):
    """``kernel-player``: plays `RECORDINGS`."""

    def run(self) -> list[nodes.Node]:
        """Return the player as HTML."""
        titles = {name: title for name, (title, _) in RECORDINGS.items()}
        notes = (f"{titles[name]}: {made['note']}" for name, made in recordings().items())
        items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
        instead = f"What the recordings show:</p><ul>{items}</ul>"
        text = player(self.env.docname, titles, instead, "pn-player pn-kernel", "recordings")
        return [nodes.raw("", text, format="html")]


def make_recordings(app: Sphinx) -> None:
    """Run the kernels; write their recordings, and the package's script and style, beside the site's own."""
    if app.builder.format != "html":
        return
    files = {name: text_of(name) for name in (*SCRIPTS, *STYLES)}
    write_recordings(app, recordings(), files, prefix="kernel-")


def add_assets(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document) -> None:
    """Load the script and the styles on this page only."""
    if pagename == PAGE:
        for name in STYLES:
            app.add_css_file(f"play/{name}")
        app.add_js_file("play/kernel.js", type="module")


def setup(app: Sphinx):
    """Register the directive and the events."""
    app.connect("builder-inited", make_recordings)
    app.connect("html-page-context", add_assets)
    app.add_directive("kernel-player", KernelPlayer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

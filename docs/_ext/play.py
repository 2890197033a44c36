"""The pages that move: their scripts and styles, and the recordings that they play, made while the site is built."""

import html
import json
from pathlib import Path

from batches import recordings
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import paged_numba

SHARED = Path(paged_numba.__file__).parent / "draw" / "play"
"""Playback controls; a part of the package, since a traced kernel's page has them, too."""

ASSETS = {"play/batch": ("pool",)}
"""For each page, the script and the style in ``_static/play`` that it loads beside the shared ones."""

SENTENCE = (
    "Here a script plays the recordings. It does not run: scripts are off in this browser, or the page was opened as a "
    "file, from which browsers load no modules."
)


def player(
    docname: str, titles: dict[str, str], instead: str, classes: str = "pn-player", data: str = "batches"
) -> str:
    """Return the element that a script turns into a player, as HTML.

    `titles` are those of the recordings, by name; `instead` is what a reader without scripts sees below `SENTENCE`.
    """
    base = "../" * docname.count("/") + "_static/play/"
    choices = html.escape(json.dumps(titles))
    return f'<div class="{classes}" data-base="{base}" data-{data}="{choices}"><p>{SENTENCE} {instead}</div>'


def write_recordings(
    app: Sphinx, recordings: dict[str, dict], files: dict[str, str], prefix: str = ""
) -> None:
    """Write recordings as JSON, and the files that the package shares with the site, to the folder of the players."""
    folder = Path(app.outdir) / "_static" / "play"
    folder.mkdir(parents=True, exist_ok=True)
    for name, recording in recordings.items():
        text = json.dumps(recording, separators=(",", ":"), allow_nan=False)
        (folder / f"{prefix}{name}.json").write_text(text, encoding="utf-8")
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


class PoolPlayer(SphinxDirective):
    """``pool-player``: plays the recordings of `batches`; without scripts, the text of the first one."""

    def run(self) -> list[nodes.Node]:
        """Return the player as HTML."""
        made = recordings()
        titles = {name: recording["title"] for name, recording in made.items()}
        steps = "".join(f"<li>{html.escape(step['say'])}</li>" for step in next(iter(made.values()))["steps"])
        instead = f'What happens in the first recording, step by step:</p><ol start="0">{steps}</ol>'
        return [nodes.raw("", player(self.env.docname, titles, instead), format="html")]


def make_recordings(app: Sphinx) -> None:
    """Serve the batches; write their recordings, and the shared script and style, beside the pages' own."""
    if app.builder.format != "html":
        return
    shared = {name: (SHARED / name).read_text(encoding="utf-8") for name in ("transport.js", "transport.css")}
    write_recordings(app, recordings(), shared)


def add_assets(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document) -> None:
    """Load the scripts and styles on the pages that move only."""
    for name in ASSETS.get(pagename, ()):
        app.add_css_file("play/transport.css")
        app.add_css_file(f"play/{name}.css")
        app.add_js_file(f"play/{name}.js", type="module")


def setup(app: Sphinx):
    """Register the directive and the events."""
    app.connect("builder-inited", make_recordings)
    app.connect("html-page-context", add_assets)
    app.add_directive("pool-player", PoolPlayer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

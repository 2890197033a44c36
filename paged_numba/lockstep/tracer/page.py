"""The page that plays a recording, in one file: the player's scripts and styles, and the recording."""

from __future__ import annotations

import base64
import json
from importlib.resources import files

MODULES = ("accesses.js", "steps.js", "transport.js")
"""What ``player.js`` imports. Each imports nothing: it becomes a URL, which has no neighbours."""


def text_of(name: str) -> str:
    """Return a file of the player, or of the controls that it shares with other pages that move."""
    folder = files("paged_numba.draw") / "play" if name.startswith("transport.") else files(__package__)
    return (folder / name).read_text(encoding="utf-8")


def page_html(recording: str, title: str) -> str:
    """Return the page.

    Parameters
    ----------
    recording : str
        JSON.
    title : str
        What was recorded, as HTML.
    """
    urls = {
        f"./{name}": f"data:text/javascript;base64,{base64.b64encode(text_of(name).encode()).decode()}"
        for name in MODULES
    }
    # Nothing in a script element may look like its end, or like a comment.
    data = recording.replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
:root {{ color-scheme: light dark }}
body {{ margin: 0 auto; max-width: 80rem; padding: .5rem 1rem 3rem; font-family: system-ui, sans-serif }}
h1 {{ font-size: 1.3rem; margin: .3rem 0 }}
@media (prefers-color-scheme: dark) {{ body {{ background: #14181e; color: #e6e8ea }} }}
{text_of("transport.css")}
{text_of("player.css")}
</style>
<h1>{title}</h1>
<div class="pn-player pn-kernel"></div>
<script type="application/json" id="recording">{data}</script>
<script type="importmap">{json.dumps({"imports": urls})}</script>
<script type="module">
{text_of("player.js")}
player(document.querySelector(".pn-kernel")).load(JSON.parse(document.getElementById("recording").textContent));
</script>
</html>
"""

"""The page that plays a recording, in one file: the player's script and style, and the recording."""

from __future__ import annotations


def page_html(recording: str) -> str:
    return "<!doctype html>"

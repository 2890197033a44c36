"""Colours that follow the page: its own theme switch, JupyterLab's, VS Code's or, without one, the system's."""

from __future__ import annotations

LIGHT = ("[data-theme=light]", "[data-jp-theme-light=true]", ".vscode-light")
DARK = ("[data-theme=dark]", "[data-jp-theme-light=false]", ".vscode-dark")
"""What a page in light or dark colours has around its content: a site, JupyterLab, a notebook in VS Code."""


def themed(selector: str, light: str, dark: str) -> str:
    r"""Return CSS that gives an element declarations for a light or a dark page.

    Parameters
    ----------
    selector : str
    light, dark : str
        Declarations, such as ``--ink:#000;--paper:#fff``.

    Examples
    --------
    >>> print(themed(".note", "color:#000", "color:#fff").replace("}[", "}\n["))
    .note{color:#000}@media(prefers-color-scheme:dark){.note{color:#fff}}
    [data-theme=light] .note,[data-jp-theme-light=true] .note,.vscode-light .note{color:#000}
    [data-theme=dark] .note,[data-jp-theme-light=false] .note,.vscode-dark .note{color:#fff}
    """

    def inside(pages: tuple[str, ...]) -> str:
        return ",".join(f"{page} {selector}" for page in pages)

    return (
        f"{selector}{{{light}}}@media(prefers-color-scheme:dark){{{selector}{{{dark}}}}}"
        f"{inside(LIGHT)}{{{light}}}{inside(DARK)}{{{dark}}}"
    )

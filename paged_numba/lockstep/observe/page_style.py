"""Style of the pages of reports and findings: a table looks the same in a notebook, on a site, and alone."""

from __future__ import annotations

from ...draw.theme import themed

# The blue of the Okabe-Ito palette: readers with colour-vision deficiency can tell it from grey.
_COLOURS = themed(
    ".lockstep-report",
    light="--ink:#1a1a1a;--quiet:#5f5f5f;--rule:#ccc;--bar:#0072b233;--full:#0072b2;--warn:#a34700",
    dark="--ink:#e6e6e6;--quiet:#a0a0a0;--rule:#4a4a4a;--bar:#56b4e944;--full:#56b4e9;--warn:#e69f00",
)
# `!important`: JupyterLab and documentation themes style every table of a page.
STYLE = f"""{_COLOURS}
.lockstep-report{{color:var(--ink);font:14px/1.45 system-ui,sans-serif;max-width:110em}}
.lockstep-report h3{{font-size:1em;margin:1.2em 0 .3em;color:inherit}}
.lockstep-report p{{margin:.3em 0;max-width:60em}}
.lockstep-report .q{{color:var(--quiet)}}
.lockstep-report table{{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:0;border:0;width:auto;
 font-size:inherit;table-layout:auto}}
.lockstep-report tr,.lockstep-report tbody{{background:none!important}}
.lockstep-report th,.lockstep-report td{{padding:.1em .7em .1em 0;text-align:right!important;border:0;
 background:none;color:inherit;white-space:nowrap;vertical-align:baseline;max-width:none}}
.lockstep-report th{{font-weight:600;color:var(--quiet)}}
.lockstep-report thead th{{border-bottom:1px solid var(--rule)}}
.lockstep-report .l{{text-align:left!important}}
.lockstep-report .wide{{overflow-x:auto}}
.lockstep-report .w{{color:var(--warn);font-weight:600}}
.lockstep-report .t td{{white-space:normal;min-width:4em;padding-bottom:.5em}}
.lockstep-report code{{color:inherit;background:none!important;border:0;padding:0!important;
 font:12px/1.5 ui-monospace,monospace}}
.lockstep-report .amount{{height:.8em;background:var(--full);min-width:2px}}
.lockstep-report .amounts td.b{{width:20em}}
.lockstep-report summary{{cursor:pointer}}
.lockstep-report summary:focus-visible{{outline:2px solid var(--full)}}
.lockstep-report table.s{{table-layout:fixed;width:max-content;font:12px/1.5 ui-monospace,monospace}}
.lockstep-report .s td,.lockstep-report .s th{{padding:0 .9em 0 0;overflow:hidden}}
.lockstep-report .s td.c{{white-space:pre;text-align:left!important;overflow:visible}}
.lockstep-report .s td.n,.lockstep-report .s .idle{{color:var(--quiet)}}
.lockstep-report .s td.f{{padding:0}}
.lockstep-report .s details>summary{{padding-left:5em;color:var(--quiet);font:12px/1.5 system-ui,sans-serif}}
.lockstep-report .s .callee{{border-left:3px solid var(--rule)}}
"""
"""CSS of an element with the class ``lockstep-report`` and what is in it."""

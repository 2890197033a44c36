"""Reports, findings and verdicts in JupyterLab, on a site and in VS Code, in the colours of the page."""

import numpy as np
import pytest
from seen import PAGES

from paged_numba import exercises, lockstep
from paged_numba.lockstep.cuda import facade as cuda

# What JupyterLab's style sheet says of tables in outputs (packages/rendermime, style/base.css), in short.
JUPYTERLAB = """<style>
.jp-RenderedHTMLCommon table {border-collapse: collapse; font-size: 12px; table-layout: fixed; margin: 0 auto 1em}
.jp-RenderedHTMLCommon td, .jp-RenderedHTMLCommon th, .jp-RenderedHTMLCommon tr {
  vertical-align: middle; padding: .5em; line-height: normal; white-space: normal; max-width: none; border: none}
.jp-RenderedHTMLCommon tbody tr:nth-child(odd) {background: rgb(200, 0, 0)}
.jp-RenderedHTMLCommon tbody tr:hover {background: rgb(0, 200, 0)}
.jp-RenderedHTMLCommon td, .jp-RenderedHTMLCommon th {text-align: right}
.jp-RenderedHTMLCommon pre {background: rgb(200, 200, 0); color: rgb(200, 0, 200); border: 1px solid}
.jp-RenderedHTMLCommon ul:not(.list-inline) {list-style: disc; padding-left: 2em; margin: 1em}
.jp-RenderedHTMLCommon p {margin: 0 0 1em; color: rgb(200, 0, 200)}
.jp-RenderedHTMLCommon :not(pre) > code {background: rgb(0, 0, 200); padding: 1px 5px}
</style>"""


@cuda.jit
def reverse(values):
    tile = cuda.shared.array(64, np.float32)
    tile[cuda.threadIdx.x] = values[cuda.threadIdx.x]
    values[cuda.threadIdx.x] = tile[63 - cuda.threadIdx.x]


@pytest.fixture(scope="module")
def outputs():
    values = np.arange(64, dtype=np.float32)
    report = lockstep.profile(reverse, 1, 64, values)
    return report._repr_html_(), lockstep.sanitize(reverse, 1, 64, values)._repr_html_()


@pytest.mark.parametrize("system", ["light", "dark"])
@pytest.mark.parametrize(("page", "dark"), PAGES)
def test_tables_keep_their_look_and_take_the_colours_of_the_page(browser, outputs, system, page, dark):
    context = browser.new_context(color_scheme=system, viewport={"width": 1400, "height": 900})
    shown = context.new_page()
    body = "".join(f'<div class="jp-RenderedHTMLCommon">{output}</div>' for output in outputs)
    shown.set_content(f"<!doctype html>{page}{JUPYTERLAB}{body}</body></html>")
    found = shown.evaluate(
        """() => {
            const all = selector => [...document.querySelectorAll('.lockstep-report ' + selector)];
            const styles = (selector, name) => [...new Set(all(selector).map(e => getComputedStyle(e)[name]))];
            return {
                ink: styles('td.l', 'color'), rows: styles('tr', 'backgroundColor'),
                left: styles('.l', 'textAlign'), code: styles('code', 'backgroundColor'),
                source: styles('td.c', 'textAlign'), spaces: styles('td.c', 'whiteSpace'),
            };
        }"""
    )
    context.close()
    is_dark = system == "dark" if dark is None else dark
    clear = ["rgba(0, 0, 0, 0)"]
    assert found == {
        "ink": ["rgb(230, 230, 230)" if is_dark else "rgb(26, 26, 26)"],
        "rows": clear, "code": clear, "left": ["left"], "source": ["left"], "spaces": ["pre"],
    }  # fmt: skip


@cuda.jit
def scale(out, x, factor):
    i = cuda.threadIdx.x
    if i < x.size:
        out[i] = factor * x[i]


@pytest.fixture(scope="module")
def verdict():
    found = exercises.check(1, scale)
    assert found.got
    # As if it had gone on to the stage that counts.
    found.limits = [{"what": "sectors loaded", "measured": 80, "most": 10, "why": "x is read once"}]
    found.kills = [{"name": f"a wrong one of {n}", "killed": n > 1} for n in range(3)]
    found.num_hints = 1
    return found


VERDICT = """() => {
    const all = selector => [...document.querySelectorAll('.pn-verdict ' + selector)];
    const styles = (selector, name) => [...new Set(all(selector).map(e => getComputedStyle(e)[name]))];
    return {
        ink: styles(':is(pre, .say, td:first-child, summary, .head)', 'color'),
        bad: styles(':is(mark, .failed > b, td.bad)', 'color'),
        clear: styles(':is(tr, pre, mark)', 'backgroundColor'),
        lists: [...styles('ul', 'listStyleType'), ...styles('ul', 'paddingLeft')],
        borders: styles('pre', 'borderTopWidth'),
        marks: all('mark').length > 0, hints: all('details').map(e => e.open),
        width: document.documentElement.scrollWidth,
    };
}"""


@pytest.mark.parametrize(("page", "dark"), PAGES)
def test_a_verdict_keeps_its_look_and_takes_the_colours_of_the_page(browser, verdict, page, dark):
    context = browser.new_context(viewport={"width": 360, "height": 900})
    shown = context.new_page()
    output = f'<div class="jp-RenderedHTMLCommon">{verdict._repr_html_()}</div>'
    shown.set_content(f"<!doctype html>{page}{JUPYTERLAB}{output}</body></html>")
    for system in "light", "dark":
        shown.emulate_media(color_scheme=system)
        is_dark = system == "dark" if dark is None else dark
        assert shown.evaluate(VERDICT) == {
            "ink": ["rgb(230, 230, 230)" if is_dark else "rgb(26, 26, 26)"],
            "bad": ["rgb(230, 159, 0)" if is_dark else "rgb(163, 71, 0)"],
            "clear": ["rgba(0, 0, 0, 0)"], "lists": ["none", "0px"], "borders": ["0px"],
            "marks": True, "hints": [True, False, False], "width": 360,
        }  # fmt: skip
    context.close()


def test_a_verdict_as_a_page_has_a_title_and_a_heading_and_no_sideways_scrolling(browser, verdict):
    context = browser.new_context(viewport={"width": 360, "height": 900})
    shown = context.new_page()
    shown.set_content(verdict.page())
    heading = shown.locator("main h1").inner_text()
    assert heading.startswith(shown.title())
    assert shown.evaluate("document.documentElement.scrollWidth") == 360
    context.close()

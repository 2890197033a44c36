"""The play page of kernels: each recording is chosen and played, and shows what its note says."""

import json
import re

import pytest
from site_folder import SITE, needs_site

pytestmark = needs_site
PAGE = "play/kernel.html"
RECORDINGS = {
    path.stem.removeprefix("kernel-"): json.loads(path.read_text(encoding="utf-8"))
    for path in (SITE / "_static" / "play").glob("kernel-*.json")
}


@pytest.fixture(scope="module")
def page(readers):
    opened = readers("light").open(PAGE)
    opened.wait_for_selector(".pn-lane[data-lane]")
    return opened


def choose(page, name):
    """Choose a recording, and wait until it is loaded."""
    page.select_option(".pn-choices select >> nth=0", name)
    page.wait_for_function(f"document.querySelector('.pn-note').innerText == {RECORDINGS[name]['note']!r}")


def go(page, step):
    page.eval_on_selector(
        ".pn-line", "(l, to) => { l.value = to; l.dispatchEvent(new Event('input')) }", step
    )


def test_the_recordings_are_those_of_the_page(page):
    offered = page.eval_on_selector_all(
        ".pn-choices select:first-of-type option", "all => all.map(o => o.value)"
    )
    assert set(RECORDINGS) <= set(offered)
    assert len(RECORDINGS) == 5


@pytest.mark.parametrize(
    ("name", "step", "said", "lane"),
    [
        ("tree-without-barrier", 24, "load partial[thread + half]", "loads partial[32] = 32"),
        ("transpose", 22, "124 bank conflicts", "loads tile[0, 0] = 0"),
        ("attention", 13, "load key_cache", "loads key_cache[5, 0, 0, 0]"),
    ],
)
def test_a_button_goes_to_the_step_that_matters(page, name, step, said, lane):
    choose(page, name)
    page.get_by_role("button", name="Go to step").click()
    assert page.inner_text(".pn-say").startswith(f"Step {step} of")
    assert said in page.inner_text(".pn-say")
    assert lane in page.inner_text(".pn-chosen")


def test_without_scripts_the_notes_are_text(browser, address):
    context = browser.new_context(java_script_enabled=False)
    seen = context.new_page()
    seen.goto(f"{address}/{PAGE}")
    text = seen.inner_text(".pn-player")
    context.close()
    assert all(recording["note"] in text for recording in RECORDINGS.values())


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recording_is_stepped_through(readers, page, name):
    choose(page, name)
    last = len(RECORDINGS[name]["tracks"][0]["steps"]) - 1
    assert "Step 0 of" in page.inner_text(".pn-say")
    page.click(".pn-do-forward")
    assert "Step 1 of" in page.inner_text(".pn-say")
    page.click(".pn-do-last")
    assert f"Step {last} of {last}." in page.inner_text(".pn-say")
    assert RECORDINGS[name]["made_by"] in page.inner_text(".pn-kernel")
    assert readers("light").complaints(360) == []
    page.set_viewport_size({"width": 1280, "height": 900})


@pytest.mark.parametrize(("name", "result"), [("tree", "8128"), ("tree-without-barrier", "4560")])
def test_the_sum_is_wrong_without_its_barrier(page, name, result):
    choose(page, name)
    page.click(".pn-do-last")
    assert page.inner_text(".pn-memory .pn-values >> nth=0").split()[:2] == ["0", result]
    assert ("wrong" in page.inner_text(".pn-note") or "the sum is 8,128" in page.inner_text(".pn-note")) == (
        name != "tree"
    )


@pytest.mark.parametrize(("name", "conflicts"), [("transpose", 124), ("transpose-padded", 0)])
def test_the_pad_takes_the_bank_conflicts_away(page, name, conflicts):
    choose(page, name)
    (track,) = RECORDINGS[name]["tracks"]
    loads = [
        number
        for number, step in enumerate(track["steps"])
        if any(access["text"] == "tile[column, row]" for access in step.get("accesses", ()))
    ]
    assert len(loads) == 8
    for step in loads[::7]:
        go(page, step)
        said = page.inner_text(".pn-say")
        found = re.search(r"load tile\[column, row\] \(\d+ wavefronts, (.*?) bank conflicts?\)", said)
        assert found[1] == (str(conflicts) if conflicts else "no")

"""The page of a recording, in a browser: played, stepped by keyboard, with lanes chosen, in both themes, on a phone."""

import json
import re
import statistics

import numpy as np
import pytest

from paged_numba import cuda, lockstep

THREADS = 128


@cuda.jit
def add_up(total, values):
    """Add up the values."""
    partial = cuda.shared.array(THREADS, np.float32)
    thread = cuda.threadIdx.x
    partial[thread] = values[thread]
    cuda.syncthreads()
    half = THREADS // 2
    while half > 0:
        if thread < half:
            partial[thread] += partial[thread + half]
        cuda.syncthreads()
        half //= 2
    if thread == 0:
        total[0] = partial[0]


@cuda.jit
def columns(out, values):
    """Read a tile by columns, so that all lanes of a warp want the same bank."""
    tile = cuda.shared.array((32, 32), np.float32)
    row, column = cuda.threadIdx.y, cuda.threadIdx.x
    tile[row, column] = values[row, column]
    cuda.syncthreads()
    for i in range(30):
        if (row + i) % 3:
            out[row, column] = tile[column, (row + i) % 32]


class Page:
    """A recording's page, with what goes wrong on it and what it asks the network for."""

    def __init__(self, browser, file, recording, width=1280, theme="light"):
        file.write_text(recording.page(), encoding="utf-8")
        self.context = browser.new_context(color_scheme=theme, viewport={"width": width, "height": 800})
        self.page, self.wrong, self.asked = self.context.new_page(), [], []
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector(".pn-lane[data-lane]")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()
        assert self.wrong == []
        assert not [url for url in self.asked if not url.startswith(("file:", "data:"))]

    @property
    def said(self):
        return self.page.inner_text(".pn-say")

    @property
    def lane(self):
        return self.page.inner_text(".pn-chosen")

    def go(self, step):
        self.page.eval_on_selector(
            ".pn-line", "(line, to) => { line.value = to; line.dispatchEvent(new Event('input')); }", step
        )

    def states(self):
        """Return how many lanes are in each state."""
        count = "(cells, name) => cells.filter(cell => cell.classList.contains(name)).length"
        return {
            name: self.page.eval_on_selector_all(".pn-lane[data-lane]", count, name)
            for name in ("runs", "idle", "waits", "done")
        }


@pytest.fixture(scope="module")
def tree():
    with lockstep.options(order="forward"):
        values, total = np.arange(THREADS, dtype=np.float32), np.zeros(1, np.float32)
        recorded = lockstep.record(add_up, 1, THREADS, total, values)
    assert total[0] == 8128
    return recorded


@pytest.fixture(scope="module")
def shown(browser, tree, tmp_path_factory):
    """The page of `tree`, which tests leave as they like: each goes to a step of its own."""
    with Page(browser, tmp_path_factory.mktemp("player") / "tree.html", tree) as page:
        yield page


@pytest.fixture(scope="module")
def thousand():
    values = np.arange(1024, dtype=np.float32).reshape(32, 32)
    return lockstep.record(columns, 1, (32, 32), np.zeros_like(values), values)


@pytest.fixture(scope="module")
def shown_thousand(browser, thousand, tmp_path_factory):
    with Page(browser, tmp_path_factory.mktemp("player") / "thousand.html", thousand) as page:
        yield page


def step_where(recording, found):
    """Return the number of the first step for which `found` holds."""
    (one,) = recording.to_dict()["tracks"]
    return next(number for number, step in enumerate(one["steps"]) if found(step))


def test_arrows_step_while_nothing_has_the_focus(shown):
    shown.go(3)
    shown.page.evaluate("document.activeElement.blur()")
    shown.page.keyboard.press("ArrowRight")
    assert "Step 4 of" in shown.said
    shown.page.keyboard.press("ArrowLeft")
    shown.page.keyboard.press("Home")  # scrolls the page
    assert "Step 3 of" in shown.said


def test_it_plays_to_the_end(shown, tree):
    last = len(tree.to_dict()["tracks"][0]["steps"]) - 1
    shown.go(last - 3)
    shown.page.select_option(".pn-speed", "10")
    shown.page.click(".pn-do-play")
    shown.page.wait_for_function(f"document.querySelector('.pn-say').innerText.includes('Step {last} of')")
    assert shown.states() == {"runs": 32, "idle": 0, "waits": 0, "done": THREADS - 32}
    values = shown.page.inner_text(".pn-memory .pn-values >> nth=0").split()
    assert values[:2] == ["0", "8128"]


def test_each_step_is_said_and_marked(shown, tree):
    arrives = step_where(tree, lambda step: "arrives" in step)
    adds = step_where(tree, lambda step: len(step.get("accesses", ())) == 3)
    shown.go(arrives)
    assert re.search(r"Line \d+: warp 0, all 32 lanes: wait at barrier 1\.", shown.said)
    assert shown.states() == {"runs": 32, "idle": 96, "waits": 0, "done": 0}
    assert shown.page.inner_text(".pn-ln.now").split()[1:] == ["cuda.syncthreads()"]
    shown.go(arrives + 1)
    assert shown.states() == {"runs": 32, "idle": 64, "waits": 32, "done": 0}
    assert shown.page.inner_text(".pn-status >> nth=0") == "barrier 1"
    shown.go(adds)
    assert "load partial[thread] (1 wavefront, no bank conflict)" in shown.said
    assert "store to partial[thread]" in shown.said
    assert shown.lane.startswith(
        "Lane 0 of warp 0 runs this line: loads partial[0] = 0; loads partial[64] = 64;"
    )


def test_a_click_chooses_a_lane(shown, tree):
    shown.go(step_where(tree, lambda step: len(step.get("accesses", ())) == 3))
    shown.page.click("#pn-lane-5")
    assert "loads partial[5] = 5; loads partial[69] = 69; stores partial[5] = 74." in shown.lane
    cells = shown.page.eval_on_selector_all("tr", "rows => rows.map(row => row.innerText)")
    assert "thread int32\t5\tfrom 0 to 31" in cells
    shown.page.click("#pn-lane-40")
    assert shown.lane == "Lane 8 of warp 1 does not run this line."
    assert "shared memory; warp 1 does not take part" in shown.page.inner_text(".pn-pictures")


def test_the_values_of_a_variable_in_all_lanes(shown, tree):
    shown.go(step_where(tree, lambda step: len(step.get("accesses", ())) == 3))
    shown.page.click("#pn-lane-0")
    button = shown.page.get_by_role("button", name="thread")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert shown.page.inner_text(".pn-variables .pn-values").split() == [
        str(lane) for lane in range(32) for _ in "ab"
    ]
    button.click()
    assert button.get_attribute("aria-pressed") == "false"


def test_the_keyboard_alone_does_it(shown, tree):
    last = len(tree.to_dict()["tracks"][0]["steps"]) - 1
    press = shown.page.keyboard.press
    shown.page.evaluate("document.activeElement.blur()")
    press("Tab")
    press("Home")
    for _ in range(3):
        press("ArrowRight")
    assert "Step 3 of" in shown.said
    for _ in range(20):
        press("Tab")
        if shown.page.evaluate("document.activeElement.classList.contains('pn-grid')"):
            break
    outline = shown.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline not in ("none", "hidden")
    lane = int(shown.page.get_attribute(".pn-grid", "aria-activedescendant").removeprefix("pn-lane-"))
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"):
        press(key)
    assert shown.lane.startswith(f"Lane {lane + 1} of warp 1")
    assert "Step 3 of" in shown.said
    press(".")
    assert "Step 4 of" in shown.said
    press("End")
    assert f"Step {last} of {last}." in shown.said


def test_a_warp_can_be_followed(shown, tree):
    (one,) = tree.to_dict()["tracks"]
    mine = [step for step in one["steps"] if one["masks"][step["lanes"]].startswith("64-")]
    shown.page.select_option("#pn-follow", "2")
    for button in ("first", "forward", "last"):
        shown.page.click(f".pn-do-{button}")
        assert f"of {len(mine) - 1}." in shown.said
        assert ": warp 2, " in shown.said
    shown.page.select_option("#pn-follow", "")


def test_banks_and_sectors_are_drawn(shown_thousand, thousand):
    page = shown_thousand.page
    shown_thousand.go(step_where(thousand, lambda step: len(step.get("accesses", ())) == 2 and step["epoch"]))
    labels = page.eval_on_selector_all("svg.pn-access", "all => all.map(one => one.ariaLabel)")
    # Warp 1 is the first that takes the branch: (row + 0) % 3.
    assert "shared memory, warp 1: 32 wavefronts, 31 bank conflicts" in labels[0]
    assert "global memory, warp 1: 4 sectors, 100% useful" in labels[1]
    texts = page.eval_on_selector_all("svg.pn-access", "all => all.map(one => one.textContent)")
    assert texts[0].startswith("bank01282563845126407688961,024")
    conflicts = page.eval_on_selector_all("svg .conflict", "all => all.map(one => one.textContent)")
    assert sorted(conflicts) == ["32", "words"]


@cuda.jit
def diverge(out):
    """Return early in some lanes; send the others two ways."""
    i = cuda.threadIdx.x
    if i >= 24:
        return
    if i % 2:
        out[i] = 1
    else:
        out[i] = 2


def test_a_lane_has_ended_when_it_returned_or_its_warp_did(browser, tmp_path):
    with Page(browser, tmp_path / "ways.html", lockstep.record(diverge, 1, 32, np.zeros(32))) as shown:
        shown.page.click(".pn-do-last")
        assert shown.states() == {"runs": 12, "idle": 12, "waits": 0, "done": 8}


def test_a_value_is_a_target_for_a_finger_that_chooses_its_lane(shown):
    shown.go(0)
    cell = shown.page.locator(".pn-across .pn-value").nth(7)
    assert cell.bounding_box()["height"] >= 24
    cell.click()
    assert shown.lane.startswith("Lane 7 of warp 0 ")


TOPS = """async count => {
    const line = document.querySelector('.pn-line'), seen = new Set();
    for (let step = 0; step < count; step++) {
        line.value = step;
        line.dispatchEvent(new Event('input'));
        seen.add([...document.querySelectorAll('.pn-transport, h3')]
            .map(one => Math.round(one.getBoundingClientRect().top + scrollY)).join());
    }
    return [...seen];
}"""


@pytest.mark.parametrize("width", [1280, 360])
def test_no_part_moves_from_step_to_step(browser, tmp_path, tree, width):
    with Page(browser, tmp_path / "tree.html", tree, width) as shown:
        assert len(shown.page.evaluate(TOPS, 60)) == 1


def test_forced_colours_keep_lanes_apart(browser, tmp_path, tree):
    with Page(browser, tmp_path / "tree.html", tree) as shown:
        shown.page.emulate_media(forced_colors="active")
        look = """lane => ['backgroundColor', 'backgroundImage', 'borderStyle']
            .map(name => getComputedStyle(lane)[name]).join()"""
        states = ("runs", "idle", "waits", "done")
        looks = [shown.page.eval_on_selector(f".pn-legend .{state}", look) for state in states]
        assert len(set(looks)) == 4


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_phone_and_follows_the_theme(browser, tmp_path, tree, theme):
    adds = step_where(tree, lambda step: len(step.get("accesses", ())) == 3)
    with Page(browser, tmp_path / "tree.html", tree, 360, theme) as shown:
        shown.go(adds)
        assert shown.page.evaluate("document.documentElement.scrollWidth") <= 360
        right = "all => Math.max(...all.map(one => one.getBoundingClientRect().right))"
        assert shown.page.eval_on_selector_all(".pn-kernel *:not(option)", right) <= 360
        code, lanes = (shown.page.locator(name).bounding_box()["y"] for name in (".pn-code", ".pn-grid"))
        assert code < lanes
        channels = re.findall(r"\d+", shown.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        ink = re.findall(
            r"\d+", shown.page.evaluate("getComputedStyle(document.querySelector('.pn-say')).color")
        )
        assert (sum(map(int, ink[:3])) > 3 * 128) == (theme == "dark")
        assert (sum(map(int, channels[:3])) < 3 * 128 and len(channels) == 3) == (theme == "dark")


def test_a_step_of_a_thousand_lanes_is_quick(shown_thousand):
    # Processor time, which another process on this machine does not lengthen, by the browser's own trace.
    count, events, ended, page = 30, [], [], shown_thousand.page
    shown_thousand.go(0)
    session = shown_thousand.context.new_cdp_session(page)
    session.on("Tracing.dataCollected", lambda data: events.extend(data["value"]))
    session.on("Tracing.tracingComplete", lambda _: ended.append(True))
    categories = "-*,devtools.timeline,blink.user_timing"
    session.send("Tracing.start", {"transferMode": "ReportEvents", "categories": categories})
    page.evaluate(
        """async count => {
            const rest = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
            for (let i = 0; i <= count; i++) {
                performance.mark('a step');
                document.querySelector('.pn-do-forward').click();
                await rest();
            }
        }""",
        count,
    )
    session.send("Tracing.end")
    while not ended:
        page.wait_for_timeout(20)
    marks = sorted(event["ts"] for event in events if event["name"] == "a step")
    assert len(marks) == count + 1
    costs = [0.0] * count
    for event in events:
        if (
            event["name"] in ("FunctionCall", "UpdateLayoutTree", "Layout")
            and marks[0] <= event["ts"] < marks[-1]
        ):
            step = sum(mark <= event["ts"] for mark in marks) - 1
            costs[step] += event.get("tdur", event["dur"]) / 1000
    assert min(costs) > 0
    assert statistics.median(costs) < 8


def test_a_page_says_what_failed_and_what_is_left_out(browser, tmp_path):
    with lockstep.recording() as recorded, pytest.raises(IndexError):
        lockstep.launch(add_up, 3, THREADS, np.zeros(1, np.float32), np.zeros(100, np.float32))
    with Page(browser, tmp_path / "failed.html", recorded) as shown:
        assert "Left out: 1 of 3 thread blocks is not recorded" in shown.page.inner_text(".pn-about")
        shown.page.select_option("#pn-track", "1")
        shown.page.click(".pn-do-last")
        assert "The launch ended here. KernelIndexError: values[100] out of bounds" in shown.said


def test_names_cannot_break_out_of_the_page(browser, tmp_path):
    recorded = lockstep.record(add_up, 1, THREADS, np.zeros(1, np.float32), np.zeros(THREADS, np.float32))
    hostile = "</script><script>document.title = 'broken'</script><!--"
    recorded._recorder.functions.described[0]["lines"][1] += f"  # {hostile}"
    with Page(browser, tmp_path / "hostile.html", recorded) as shown:
        assert hostile in shown.page.inner_text(".pn-code")
        assert shown.page.title() == "add_up, in lockstep"
    assert json.loads(recorded.json())["functions"][0]["name"] == "add_up"


def test_a_kernel_without_statements_has_nothing_to_play(browser, tmp_path):
    @cuda.jit
    def nothing():
        pass

    file = tmp_path / "nothing.html"
    file.write_text(lockstep.record(nothing, 1, 32).page(), encoding="utf-8")
    page = browser.new_page()
    page.goto(file.as_uri())
    assert page.inner_text(".pn-kernel") == "No step was recorded."
    page.close()

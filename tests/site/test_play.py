"""The page "A batch being served" in a real browser, against the allocator's own word and the real kernel."""

import json

import numpy as np
import pytest
from reader import FAINT, NARROW, WIDE, Reader
from recorded_pools import at_random, batches, large, pool_at
from site_folder import SITE, needs_site

import paged_numba as pn
from paged_numba import lockstep

pytestmark = needs_site

PAGE = "play/batch.html"
NAMES = ("tour", "fork", "recompute", "swap", "system_prompt", "window")

# What `recording.js` makes of a recording, in the words of `recorded_pools.state_of`.
STATES = """async recording => {
    const { statesOf } = await import(new URL('../_static/play/recording.js', document.baseURI));
    return statesOf(recording).map(({ sequences, blocks }) => {
        const count = kind => blocks.filter(block => block.kind == kind).length;
        const held = blocks.filter(block => block.holders.length);
        return {
            tables: Object.fromEntries([...sequences].filter(([, { table }]) => table)
                .map(([name, { length, table }]) => [name, [length, table]])),
            used: held.length, shared: count('shared'), cached: count('cached'), free: count('free'),
            stored: held.reduce((sum, { filled }) => sum + filled, 0),
            swapped: [...sequences.values()].filter(({ table }) => !table).length,
            findable: blocks.flatMap(({ cached }, number) => cached ? [number] : []),
        };
    });
}"""

# What can be seen: of the pool, of the block tables, and of what happened to blocks in this step.
SEEN = """() => {
    const kinds = [...document.querySelectorAll('.pn-grid .pn-block')].map(block => block.dataset.kind);
    const count = kind => kinds.filter(one => one == kind).length;
    const rows = [...document.querySelectorAll('.pn-row')].filter(row => row.checkVisibility());
    return {
        used: count('used') + count('shared'), shared: count('shared'), cached: count('cached'), free: count('free'),
        swapped: rows.filter(row => row.textContent.includes('in host memory')).length,
        tables: Object.fromEntries(rows.filter(row => !row.textContent.includes('in host memory')).map(row => [
            row.querySelector('.pn-name').textContent,
            [parseInt(row.querySelector('p').childNodes[2].data), [...row.querySelectorAll('.pn-entry:not([hidden])')]
                .map(({ textContent }) => textContent == '\u2013' ? -1 : Number(textContent))]])),
        events: Object.fromEntries([...document.querySelectorAll('.pn-grid .pn-block')]
            .flatMap(({ dataset: { event } }, number) => event ? [[number, event]] : [])),
        say: document.querySelector('.pn-say').textContent,
    };
}"""


@pytest.fixture(scope="module")
def open_batch(readers):
    """Return a function that opens a recording, and returns the page."""

    def opened(name, theme="light", width=WIDE):
        # Another query: a new fragment alone would not load the page anew.
        page = readers(theme).open(f"{PAGE}?{name}#{name}", width)
        page.wait_for_selector(f"[data-batch={name}]")
        return page

    return opened


def go_to(page, step):
    page.locator(".pn-line").fill(str(step))


def facts(page):
    """Return what is said of the chosen token, by heading."""
    terms, texts = (page.locator(f".pn-token {tag}").all_inner_texts() for tag in ("dt", "dd"))
    return dict(zip(terms, texts, strict=True))


# The states of the page are those of the pool.


def test_the_site_has_the_recordings_that_the_package_makes():
    for name, (recording, _) in batches().items():
        on_site = json.loads((SITE / "_static" / "play" / f"{name}.json").read_text(encoding="utf-8"))
        assert on_site == json.loads(json.dumps(recording))
        assert on_site["made_by"]["version"] == f"paged_numba {pn.__version__}"


@pytest.mark.parametrize("seed", [None, *range(6)])
def test_states_are_those_of_the_pool(open_batch, seed):
    made = [*batches().values()] if seed is None else [at_random(seed)]
    page = open_batch("fork")
    for recording, states in made:
        assert page.evaluate(STATES, recording) == states
    if seed is not None:
        assert len(states) >= 60


@pytest.mark.parametrize("name", NAMES)
def test_what_is_seen_is_the_pool_forwards_and_backwards(open_batch, name):
    recording, states = batches()[name]
    page, last = open_batch(name), len(states) - 1
    for step in (0, 1, 2, last // 3, last // 2, last // 2 + 1, last, last - 1, last // 3, 1):
        go_to(page, step)
        seen, state = page.evaluate(SEEN), states[step]
        assert {key: seen[key] for key in seen if key in state} == {
            key: state[key] for key in state if key in seen
        }
        assert seen["events"] == {
            str(block): event for block, (event, _) in recording["steps"][step]["events"].items()
        }
        assert seen["say"] == f"Step {step} of {last}. {recording['steps'][step]['say']}"


def test_it_plays_to_the_end_as_the_allocator_does(open_batch):
    _, states = batches()["system_prompt"]
    page = open_batch("system_prompt")
    page.locator(".pn-speed").select_option("10")
    page.get_by_role("button", name="Play", exact=True).click()
    # Screen readers read nothing out while it plays.
    assert page.locator(".pn-say").get_attribute("aria-live") == "off"
    page.get_by_role("button", name="Play", exact=True).wait_for()
    assert page.locator(".pn-say").get_attribute("aria-live") == "polite"
    seen = page.evaluate(SEEN)
    assert seen["say"].startswith(f"Step {len(states) - 1} of")
    assert {key: states[-1][key] for key in ("used", "shared", "cached", "free")} == {
        key: seen[key] for key in ("used", "shared", "cached", "free")
    }
    assert states[-1]["cached"] > 0
    page.get_by_role("button", name="Play", exact=True).click()  # from the start again
    page.get_by_role("button", name="Pause").click()
    assert int(page.locator(".pn-line").input_value()) < len(states) - 1


def test_nothing_moves_by_itself(open_batch):
    page = open_batch("fork")
    page.wait_for_timeout(700)
    assert page.locator(".pn-line").input_value() == "0"
    assert page.evaluate("document.querySelector('.pn-player').getAnimations({ subtree: true }).length") == 0


@pytest.mark.parametrize("name", ["tour", "recompute", "system_prompt"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_no_part_moves_from_step_to_step(open_batch, name, width):
    page = open_batch(name, width=width)
    tops = page.evaluate("""async () => {
        const line = document.querySelector('.pn-line'), seen = {};
        for (let step = 0; step <= line.max; step++) {
            line.value = step;
            line.dispatchEvent(new Event('input'));
            await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
            for (const part of document.querySelectorAll('.pn-player h3'))
                (seen[part.textContent] ??= []).push(part.getBoundingClientRect().top + scrollY);
        }
        return seen;
    }""")
    moved = {part: max(seen) - min(seen) for part, seen in tops.items()}
    assert len(moved) >= 5
    assert max(moved.values()) < 3


def test_the_time_line_can_be_dragged(open_batch):
    page = open_batch("tour")
    box = page.locator(".pn-line").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 8, middle)
    page.mouse.down()
    seen = []
    for share in (0.25, 0.5, 0.75):
        page.mouse.move(box["x"] + share * box["width"], middle)
        seen.append(int(page.locator(".pn-line").input_value()))
        assert page.evaluate(SEEN)["say"].startswith(f"Step {seen[-1]} of ")
    page.mouse.up()
    assert seen == sorted(set(seen))
    assert 30 < seen[1] < 50


# A token.


@pytest.mark.parametrize(
    ("name", "step", "seq", "logical", "offset"),
    [("tour", 40, "C", 4, 4), ("tour", 30, "C", 3, 15), ("fork", 10, "B", 2, 0), ("window", 30, "A", 5, 2)],
)
def test_a_click_gives_the_numbers_of_the_token(open_batch, name, step, seq, logical, offset):
    recording = batches()[name][0]
    size = recording["block_size"]
    pool = pool_at(name, step)
    page = open_batch(name)
    go_to(page, step)
    block = int(pool.block_table(seq)[logical])
    # In the pool, then in the block table of the sequence.
    row = page.locator(".pn-row", has=page.locator(".pn-name", has_text=f"{seq}").first).first
    for place in (page.locator(".pn-grid .pn-block").nth(block), row.locator(".pn-entry").nth(logical)):
        box = place.bounding_box()
        # From the inner edge of the border, which is 1 pixel wide.
        place.click(position={"x": (offset + 0.5) / size * box["width"] - 1, "y": box["height"] / 2})
        shown = facts(page)
        position = int(shown["Position"].split(",")[0])
        (slot,) = pool.slots(seq, position, position + 1).tolist()
        assert position == min(logical * size + offset, pool.seq_len(seq) - 1)
        assert shown["Logical block"] == f"{position} // {size} = {logical}"
        assert shown["Offset"] == f"{position} % {size} = {position % size}"
        assert shown["Block"] == f"entry {logical} of {seq}'s block table: {block}"
        assert shown["Slot"] == f"{block} * {size} + {position % size} = {slot}"
        assert page.locator(".pn-grid [data-at]").get_attribute("aria-label").startswith(f"Block {block}: ")
        pressed = page.locator(".pn-slots [aria-pressed=true]")
        assert pressed.get_attribute("aria-label") == f"Slot {slot}: token {position} of {seq}"


def test_a_chosen_token_stays_chosen_and_says_when_it_is_gone(open_batch):
    page = open_batch("swap")
    go_to(page, 5)
    page.locator(".pn-entry:visible").nth(5).click()  # of B's first block, after the five of A
    title = page.locator(".pn-token h3")
    assert title.inner_text().endswith(" of B")
    go_to(page, 6)
    assert page.locator(".pn-token p").inner_text() == "At this step B is swapped out."
    go_to(page, 10)
    assert facts(page)["Block"] == "entry 0 of B's block table: 0"
    go_to(page, 0)
    assert page.locator(".pn-token p").inner_text() == "At this step B is not in the pool."


def test_a_shared_a_cached_and_a_free_slot(open_batch):
    page = open_batch("fork")
    go_to(page, 3)
    page.locator(".pn-grid .pn-block").nth(1).click()
    assert facts(page)["Shared"].startswith("B and C hold the block, too")
    page.locator(".pn-grid .pn-block").nth(9).click()
    assert facts(page)["Holds"] == "no token"
    page = open_batch("system_prompt")
    go_to(page, len(batches()["system_prompt"][1]) - 1)
    page.locator(".pn-grid .pn-block[data-kind=cached]").first.click()
    assert facts(page)["Holds"].startswith("a token of a prefix")


def keys_read_by(length, block_size, window):
    """Return, by position, (block, thread, pass) that reads the key in a launch of the real kernel, and the launch."""
    num_blocks = -(-length // block_size) + 3
    cache = pn.PagedKVCache(num_blocks, block_size, 2, 32, target="lockstep")
    keys = np.ones((length, 2, 32), np.float32)
    cache.add("other", keys[: block_size + 1], keys[: block_size + 1])
    cache.add("a", keys[:1], keys[:1])
    cache.free("other")
    if length > 1:
        cache.append("a", keys[1:], keys[1:])
    with lockstep.tracing() as accesses:
        cache.attend(["a"], np.ones((1, 4, 32), np.float32), window=window, algorithm="block")
    token = 2 * 32  # elements of a slot: KV heads times head_dim
    by_slot, values, num_pass = {}, {}, -1
    for access in accesses:
        if access.array == "key_cache" and access.elements[0] % token == 0:
            num_pass += 1
            for thread, at in zip(access.threads, access.elements, strict=True):
                by_slot[at // token] = [thread, num_pass]
        elif access.array == "value_cache":
            values.setdefault(access.elements[0] // token, set()).update(access.threads)
    slots = cache.allocator.slots("a", 0, length).tolist()
    assert all(values[slot] == set(range(32)) for slot in by_slot)  # a thread for each dimension: warp 0
    table = cache.allocator.block_table("a").tolist()
    return table, [by_slot.get(slot) for slot in slots], {access.kernel for access in accesses}


@pytest.mark.parametrize(
    ("length", "block_size", "window"),
    [(1, 4, None), (150, 4, None), (243, 16, None), (23, 4, 8), (100, 8, 70)],
)
def test_the_named_warp_is_the_one_that_reads_the_key(open_batch, length, block_size, window):
    table, read_by, kernels = keys_read_by(length, block_size, window)
    recording = batches()["tour"][0] | {"block_size": block_size, "window": window}
    assert kernels == {recording["launch"]["kernel"]}
    paths = open_batch("fork").evaluate(
        """async ([recording, length, table]) => {
            const { pathOf } = await import(new URL('../_static/play/recording.js', document.baseURI));
            return Array.from({ length }, (_, position) => pathOf(recording, { length, table }, position));
        }""",
        [recording, length, table],
    )
    assert [
        path["reader"] and [path["reader"]["thread"], path["reader"]["pass"]] for path in paths
    ] == read_by
    assert all(path["reader"]["warp"] == path["reader"]["thread"] // 32 for path in paths if path["reader"])
    assert {path["reader"]["numPasses"] for path in paths if path["reader"]} == {
        1 + max(n for _, n in filter(None, read_by))
    }


# Keyboard, touch, screens and themes.

FOCUSED = """() => {
    const { activeElement: at } = document, style = getComputedStyle(at);
    const width = style.outlineStyle == 'none' ? 0 : parseFloat(style.outlineWidth);
    return [at.className, at.getAttribute('aria-label') ?? at.value, width];
}"""


def test_the_keyboard_alone_gets_everywhere(open_batch):
    page = open_batch("fork")
    keys = page.keyboard
    page.locator(".pn-choice").focus()
    line = page.locator(".pn-line")
    stops = []
    go_to(page, 9)
    page.locator(".pn-choice").focus()
    while not stops or (stops[-1][0].startswith("pn-") and len(stops) < 30):
        keys.press("Tab")
        stops.append(page.evaluate(FOCUSED))
    names = [name for name, _, _ in stops[:-1]]
    assert names == [
        *(f"pn-do-{name}" for name in ("first", "back", "play", "forward", "last")),
        *(
            "pn-speed",
            "pn-line",
            "pn-block",
            "pn-entry",
            "pn-entry",
            "pn-entry",
        ),  # one stop for each block table
    ]
    assert all(width >= 2 for _, _, width in stops[:-1])

    page.locator(".pn-choice").focus()
    keys.press("Tab")
    for key, step in (("End", 21), ("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1)):
        keys.press(key)
        assert line.input_value() == str(step)
    keys.press("Tab")
    keys.press("Tab")
    keys.press("Space")
    assert page.evaluate("document.activeElement.title") == "Pause"
    keys.press("Space")
    keys.press("Tab")
    keys.press("Enter")  # one step forward
    line.focus()
    keys.press("Home")
    for _ in range(10):
        keys.press("ArrowRight")
    assert line.input_value() == "10"
    keys.press("Tab")
    for key, block in (
        ("ArrowRight", 1),
        ("End", 11),
        ("Home", 0),
        ("ArrowDown", 8),
        ("ArrowUp", 0),
        ("ArrowRight", 1),
    ):
        keys.press(key)
        assert page.evaluate(FOCUSED)[1].startswith(f"Block {block}: ")
    assert line.input_value() == "10"  # the arrows move in the pool; these two step
    keys.press(".")
    keys.press(",")
    assert line.input_value() == "10"
    keys.press("Enter")
    assert page.locator(".pn-token h3").inner_text() == "Token 15 of A"
    keys.press("Tab")
    keys.press("ArrowLeft")
    keys.press("Enter")
    assert page.locator(".pn-token h3").inner_text() == "Token 14 of A"
    assert page.evaluate(FOCUSED)[1] == "Slot 14: token 14 of A"
    keys.press("Tab")
    keys.press("End")
    keys.press("Enter")
    assert page.locator(".pn-token h3").inner_text() == "Token 25 of A"


def test_the_focus_is_kept_when_what_had_it_is_gone(open_batch):
    page = open_batch("fork")
    go_to(page, 9)
    page.locator(".pn-entry:visible").nth(4).click()  # the first block but one of B, after the four of A
    page.locator(".pn-slots button").nth(3).focus()
    page.keyboard.press(".")  # a token more: the slots are drawn anew
    assert page.evaluate(FOCUSED)[1].startswith("Slot ")
    page.locator(".pn-entry:visible").nth(4).focus()
    page.keyboard.press(".")  # B is done
    assert page.evaluate(FOCUSED)[0] == "pn-line"
    page.keyboard.press("ArrowRight")
    assert page.locator(".pn-line").input_value() == "12"
    # The last entry of A, the one stop of its table, is not there at step 1.
    page.locator(".pn-entry:visible").nth(3).focus()
    for _ in range(11):
        page.keyboard.press(",")
    assert page.locator(".pn-line").input_value() == "1"
    assert page.locator(".pn-entry:visible[tabindex='0']").count() == 1


def test_a_recording_is_chosen_by_keyboard_and_by_address(open_batch):
    page = open_batch("fork")
    page.locator(".pn-choice").focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("[data-batch=recompute]")
    assert page.url.endswith("#recompute")
    assert "7 blocks" in page.locator(".pn-about").inner_text()


def test_touch(browser, address):
    context = browser.new_context(has_touch=True, is_mobile=True, viewport={"width": NARROW, "height": 740})
    page = context.new_page()
    page.goto(f"{address}{PAGE}#fork")
    page.wait_for_selector("[data-batch=fork]")
    for _ in range(3):
        page.locator(".pn-do-forward").tap()
    assert page.locator(".pn-line").input_value() == "3"
    page.locator(".pn-grid .pn-block").nth(1).tap()
    assert page.locator(".pn-token h3").inner_text().endswith("of A")
    page.locator(".pn-slots button").nth(2).tap()
    assert page.locator(".pn-token h3").inner_text() == "Token 10 of A"
    sizes = [
        (box["width"], box["height"])
        for one in page.locator(
            ".pn-buttons button, .pn-slots button, .pn-entry:visible, .pn-grid .pn-block"
        ).all()
        if (box := one.bounding_box())
    ]
    assert min(min(size) for size in sizes) >= 24  # Web Content Accessibility Guidelines 2.2, 2.5.8
    context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_cut_off_or_faint(readers, open_batch, theme):
    for name, step in (("tour", 25), ("swap", 14), ("system_prompt", 26)):
        page = open_batch(name, theme, NARROW)
        go_to(page, step)
        page.locator(".pn-grid .pn-block").first.click()
        for width in (NARROW, WIDE):
            assert readers(theme).complaints(width) == []
        assert page.evaluate(FAINT) == []


def test_kinds_and_events_differ_without_colour(open_batch):
    page = open_batch("system_prompt")
    looks = page.locator(".pn-legend .pn-block").evaluate_all(
        """blocks => blocks.map(block => {
            const { borderStyle, borderWidth } = getComputedStyle(block);
            const pattern = getComputedStyle(block.querySelector('i')).backgroundImage.match(/repeating|radial/g);
            return [borderStyle, borderWidth, pattern, block.textContent, block.hasAttribute('data-cached')].join();
        })"""
    )
    assert len(looks) == 10
    assert len(set(looks)) == 10


def test_without_scripts_the_steps_are_text(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address + PAGE)
    items = page.locator(".pn-player li").all_inner_texts()
    assert items == [step["say"] for step in batches()["tour"][0]["steps"]]
    assert "scripts are off" in page.locator(".pn-player").inner_text()
    context.close()


# What a step costs.


# Counts, for each step that the player shows, the elements that it changes, and the blocks that these belong to.
CHANGES = """() => {
    window.changes = [];
    new MutationObserver(records => {
        const elements = new Set(records.map(({ target }) => target.closest ? target : target.parentElement));
        const blocks = new Set([...elements].map(element => element.closest('.pn-block')).filter(Boolean));
        changes.push([elements.size, blocks.size]);
    }).observe(
        document.querySelector('[data-batch=tour]'),
        { attributes: true, childList: true, characterData: true, subtree: true },
    );
}"""


def test_a_step_changes_few_of_1000_blocks(browser, address):
    """What a step costs is what it changes: drawing all blocks again would take longer than a frame of the screen."""
    reader = Reader(browser, address, "light")
    recording = large()
    reader.page.route("**/_static/play/tour.json", lambda route: route.fulfill(json=recording))
    page = reader.open(PAGE)
    page.wait_for_selector("[data-batch=tour]")
    assert page.locator(".pn-grid .pn-block").count() == 1000
    page.locator(".pn-speed").select_option("10")
    play = page.get_by_role("button", name="Play", exact=True)
    for width in (WIDE, NARROW):
        page.set_viewport_size({"width": width, "height": 900})
        go_to(page, len(recording["steps"]) - 26)
        page.evaluate(CHANGES)
        play.click()
        play.wait_for()
        changes = page.evaluate("changes")
        assert len(changes) >= 25
        assert all(elements <= 400 and blocks <= 150 for elements, blocks in changes), changes
        assert max(blocks for _, blocks in changes) > 50  # the observer sees the grid
        assert page.locator(".pn-grid .pn-block:not([data-kind=free])").count() > 900
        assert reader.complaints(width) == []
    reader.context.close()

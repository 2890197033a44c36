"""What holds for every picture: it stands alone, in the reader's theme, and can be printed, saved and shown."""

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seen import PAGES, elements, texts

import paged_numba as pn
from paged_numba import draw
from paged_numba.draw.kernels.tree import Step
from paged_numba.draw.letters import fitted, text_width
from paged_numba.draw.picture import Picture
from paged_numba.draw.svg import COLOURS, SHARED, Drawing, look_of


@given(st.text(st.characters(codec=None), max_size=5))
def test_any_text_can_be_drawn(words):
    for picture in (
        draw.BlockTables(1, 1, {words: [0]}, {words: 1}),
        draw.WarpAccess(words, {0: 0}, 4),
        draw.Tree(words, [Step(0, 0, 0, ())]),
    ):
        assert texts(picture)


def test_a_legend_takes_as_many_rows_as_it_needs():
    drawing = Drawing(200, 50, "T")
    drawing.legend(10, 30, [("none", "blue"), ("none", "red"), ("none", "a blue block"), ("none", "l" * 99)])
    root = ET.fromstring(str(drawing))
    places = [
        (float(element.get("x")), float(element.get("y")))
        for element in root.iter()
        if element.get("class") == "edge"
    ]
    # "blue" is 2.25 ems of 12 pixels: the next swatch stands after 19 + 27 and 14. The third does not fit beside them.
    assert places == [(10, 30), (10 + 19 + text_width("blue") + 14, 30), (10, 48), (10, 66)]
    assert drawing.height == 66 + 24
    (cut,) = [element for element in root.iter() if "…" in (element.text or "")]
    assert text_width(cut.text) <= 200 - 12 - 29
    assert cut[0].text == "l" * 99


def test_states_differ_by_more_than_colour():
    looks = [look_of(number) for number in range(49)]
    assert len({*looks, SHARED}) == 50
    assert len(set(COLOURS)) == 7
    assert [look.hatching for look in looks] == [number // 7 for number in range(49)]


def test_a_picture_stands_alone(pool, tmp_path):
    picture = draw.BlockTables.of(pool)
    with pytest.raises(ValueError, match=r"path must end in \.svg, got path=.*picture\.png"):
        picture.save(tmp_path / "picture.png")
    picture.save(tmp_path / "picture.svg")
    text = (tmp_path / "picture.svg").read_text(encoding="utf-8")
    assert text == picture.svg() + "\n"
    assert text.strip() in picture._repr_html_()
    assert "prefers-color-scheme:dark" in text
    # An id would have to be unique in a page with several pictures.
    assert " id=" not in text
    assert "url(" not in text
    assert text.count("http") == text.count("http://www.w3.org/2000/svg") == 1
    assert draw.BlockTables.of(pn.BlockAllocator(2, 2)).svg()
    assert draw.PoolHistory().svg()


def test_show_prints_and_saves_in_a_script_and_only_returns_the_picture_elsewhere(
    pool, tmp_path, capsys, monkeypatch
):
    picture, path = draw.BlockTables.of(pool), tmp_path / "picture.svg"
    assert picture.show(path) is picture
    assert capsys.readouterr().out == f"{picture.text()}\nSaved as {path}.\n"
    path.unlink()
    monkeypatch.setattr(Picture, "inline", True)
    assert picture.show(path) is picture
    assert (capsys.readouterr().out, path.exists()) == ("", False)


@pytest.fixture
def pictures(pool):
    """One picture of each kind that pools are drawn in, with a title of its own."""
    history, schedule = draw.PoolHistory(title="<Over time>"), draw.Schedule(title="<Requests>")
    for picture in (history, schedule):
        picture.record(pool)
    return [
        draw.BlockTables.of(pool, title="<Tables>"),
        draw.TokenPath.of(pool, "a", 5, title="<Path>"),
        history,
        schedule,
    ]


def test_every_picture_has_a_title_a_description_a_text_and_a_figure(pictures):
    for picture in pictures:
        assert picture.title in texts(picture)
        assert str(picture).split("\n")[0] == picture.title
        assert picture.title not in picture.description
        assert picture.description.endswith(".")
        (svg,), (desc,) = elements(picture, "svg"), elements(picture, "desc")
        assert svg.get("aria-label") == desc.text == picture.description
        figure = ET.fromstring(picture._repr_html_())
        assert (figure.tag, figure[-1].tag, figure[-1].text) == ("figure", "figcaption", picture.caption)
        assert picture.caption.endswith(".")
        assert f"--width:{svg.get('width')}px" in figure.get("style")


def test_a_caption_leaves_out_what_the_picture_says_by_itself(pictures):
    tables, _, history, _ = pictures
    for picture in (tables, history):
        assert picture.description.startswith(f"{picture.caption} ")
        assert picture.caption.count(". ") == 0
    access = draw.WarpAccess("x", {lane: 4 * lane for lane in range(32)}, 4)
    assert access.caption == "32 lanes of a warp access 4 bytes each."
    assert any("4 sectors" in text for text in texts(access))


def test_a_drawing_is_wide_enough_for_its_title():
    threads = draw.Threads(1, 1, 1, title="One thread with one element, and a title that is wider than it")
    assert threads.title in texts(threads)


def test_a_title_is_text(pool):
    for make in (
        lambda title: draw.BlockTables.of(pool, title=title),
        lambda title: draw.TokenPath.of(pool, "a", 0, title=title),
        lambda title: draw.PoolHistory(title=title),
        lambda title: draw.Schedule(title=title),
    ):
        with pytest.raises(TypeError, match="title must be a str, got title=7"):
            make(7)


def test_without_the_style_sheet_a_picture_is_as_in_light_mode(pictures):
    for picture in pictures:
        (style,) = elements(picture, "style")
        # Programs that do not know variables skip the whole rule.
        assert re.fullmatch(r"@supports\(fill:var\(--ink\)\)\{.*\}", style.text)
        (svg,) = elements(picture, "svg")
        assert svg.get("fill") == "#1a1a1a"
        for element in svg.iter():
            assert not element.get("style")
            css = element.get("class", "").split()
            for word, attribute, colour in (
                ("bg", "fill", "#ffffff"),
                ("q", "fill", "#6b6b6b"),
                ("edge", "stroke", "#6b6b6b"),
                ("line", "stroke", "#1a1a1a"),
            ):
                assert word not in css or element.get(attribute) == colour
            if element.tag.endswith("rect"):
                assert element.get("fill")


def contrast(one, other):
    """Return the contrast ratio of WCAG 2 between two colours."""

    def luminance(colour):
        colour = colour if len(colour) == 7 else "#" + "".join(2 * digit for digit in colour[1:])
        parts = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_texts_on_colours_are_readable():
    for look in [*map(look_of, range(7)), SHARED]:
        assert contrast(look.colour, look.ink) == max(
            contrast(look.colour, "#000"), contrast(look.colour, "#fff")
        )
        assert contrast(look.colour, look.ink) >= 4.5
        # A line, on the paper of either mode.
        assert contrast(look.stroke, "#ffffff") >= 2
        assert contrast(look.stroke, "#161616") >= 3


@given(st.integers(0, 48), *(st.floats(1, 200) for _ in range(4)))
def test_hatching_stays_in_its_rectangle(number, x, y, width, height):
    drawing = Drawing(500, 500, "")
    drawing.rect(x, y, width, height, look_of(number))
    lines = [element for element in ET.fromstring(str(drawing)).iter() if element.tag.endswith("path")]
    assert len(lines) == (number >= 7)
    for place in re.findall(r"([-\d.]+),([-\d.]+)", lines[0].get("d") if lines else ""):
        assert x - 0.06 <= float(place[0]) <= x + width + 0.06
        assert y - 0.06 <= float(place[1]) <= y + height + 0.06


@given(st.text(st.characters(codec="utf-8"), max_size=40), st.floats(0, 300), st.booleans())
def test_fitted_text_fits_and_is_cut_no_more_than_needed(words, room, middle):
    shown = fitted(words, room, middle=middle)
    assert text_width(shown) <= room or not shown
    if text_width(words) <= room:
        assert shown == words
    elif shown:
        head, tail = shown.split("…")[0], shown.split("…")[-1]
        assert words.startswith(head)
        assert words.endswith(tail)


@pytest.mark.parametrize("system", ["light", "dark"])
@pytest.mark.parametrize(("page", "dark"), PAGES)
def test_the_theme_of_the_page_goes_before_the_preference_of_the_system(
    browser, pictures, system, page, dark
):
    context = browser.new_context(color_scheme=system)
    shown = context.new_page()
    shown.set_content(f"<!doctype html>{page}{pictures[0]._repr_html_()}</body></html>")
    script = "(name) => getComputedStyle(document.querySelector(name)).{}"
    found = (
        shown.evaluate(script.format("fill"), "svg .title"),
        shown.evaluate(script.format("fill"), "svg .bg"),
        shown.evaluate(script.format("fill"), "svg .q"),
        shown.evaluate(script.format("stroke"), "svg .edge"),
    )
    context.close()
    grey = "rgb(160, 160, 160)" if (dark if dark is not None else system == "dark") else "rgb(107, 107, 107)"
    if dark if dark is not None else system == "dark":
        assert found == ("rgb(232, 232, 232)", "rgb(22, 22, 22)", grey, grey)
    else:
        assert found == ("rgb(26, 26, 26)", "rgb(255, 255, 255)", grey, grey)

"""The picture of an attention mask: its text, description and cells against the matrix."""

from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paged_numba import draw


@st.composite
def masks(draw_):
    num_keys = draw_(st.integers(1, 64))
    num_queries = draw_(st.integers(1, min(num_keys, 12)))
    return np.random.default_rng(draw_(st.integers(0, 99))).random((num_queries, num_keys)) < draw_(
        st.sampled_from([0.0, 0.5, 1.0])
    )


@given(seen=masks())
def test_text_and_cells_say_which_keys_are_looked_at(seen):
    picture = draw.Mask(seen)
    assert picture == draw.Mask(seen.tolist())
    _, *rows, _ = picture.text().split("\n")
    first = seen.shape[1] - seen.shape[0]
    assert [row.split()[1] for row in rows] == [str(first + i) for i in range(len(seen))]
    signs = [row.split()[2] for row in rows]
    assert [[sign in "#@" for sign in row] for row in signs] == seen.tolist()
    assert [[key for key, sign in enumerate(row) if sign in "@o"] for row in signs] == [
        [first + i] for i in range(len(seen))
    ]
    tips = [
        tip.text for tip in ElementTree.fromstring(picture.svg()).iter("{http://www.w3.org/2000/svg}title")
    ]
    assert sum("looks at" in tip for tip in tips) == seen.sum()
    assert sum("does not look at" in tip for tip in tips) == (~seen).sum()


@given(seen=masks())
def test_everything_is_drawn_inside_the_picture(seen):
    svg = ElementTree.fromstring(draw.Mask(seen, title="mask <1>").svg())
    for part in svg.iter():
        for name, size, most in (("x", "width", svg.get("width")), ("y", "height", svg.get("height"))):
            if part.tag.endswith("rect") and not part.get(size).endswith("%"):
                assert (
                    0 <= float(part.get(name)) <= float(part.get(name)) + float(part.get(size)) <= float(most)
                )


def test_description_counts_keys_and_own_keys():
    words = draw.Mask(np.tri(3, 5, 1, dtype=bool)).description
    assert words == "The queries at positions 2 to 4 look at 2, 3, 4 of 5 keys. 0 of 3 look at their own key."
    assert "3 of 3 look at their own" in draw.Mask(np.tri(3, 5, 2, dtype=bool)).description


@pytest.mark.parametrize(
    "seen", [[], [[]], [[True], [True]], [[True] * 65], [[True, True], [True]], [[1, 0]], "11", None, [None]]
)
def test_other_masks_are_refused(seen):
    with pytest.raises((TypeError, ValueError), match="seen"):
        draw.Mask(seen)

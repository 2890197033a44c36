"""The picture of online softmax: its numbers against softmax in two passes."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seen import elements, texts

from paged_numba import draw

scores = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=64)


@given(scores=scores)
def test_weights_repaired_on_the_way_are_those_of_two_passes(scores):
    picture = draw.OnlineSoftmax(scores)
    weights = []
    for factor, weight in zip(picture.factors, picture.first_weights, strict=True):
        weights = [*(old * factor for old in weights), weight]
    two_passes = np.exp(np.array(scores) - max(scores))
    np.testing.assert_allclose(weights, two_passes, rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(picture.last_weights, two_passes, rtol=1e-9)


@given(scores=scores)
def test_the_maximum_rises_where_a_score_exceeds_all_before_it(scores):
    picture = draw.OnlineSoftmax(scores)
    assert picture.maxima == [max(scores[: token + 1]) for token in range(len(scores))]
    assert picture.rises == [token for token in range(1, len(scores)) if scores[token] > max(scores[:token])]


@given(scores=scores)
def test_text_has_a_row_for_each_token_and_ends_with_the_sum_of_the_weights(scores):
    _, _, _, *rows = draw.OnlineSoftmax(scores).text().split("\n")
    assert [row.split()[0] for row in rows] == [str(token) for token in range(len(scores))]
    assert rows[-1].split()[5] == f"{math.fsum(draw.OnlineSoftmax(scores).last_weights):.4f}"


@given(scores=scores)
def test_everything_is_drawn_inside_the_picture(scores):
    svg = ElementTree.fromstring(draw.OnlineSoftmax(scores, title="weights <1>").svg())
    width, height = float(svg.get("width")), float(svg.get("height"))
    for part in svg.iter():
        for name, most in (("x", width), ("cx", width), ("y", height), ("cy", height)):
            if part.tag.endswith(("rect", "circle", "text")) and re.match(r"-?[\d.]+$", part.get(name, "")):
                assert 0 <= float(part.get(name)) <= most
    bars = [part for part in svg.iter() if "weight at the end" in (part.findtext("{*}title") or "")]
    assert len(bars) == len(scores)


@given(scores=scores, title=st.sampled_from(("", "<Scores>")))
def test_title_and_description_are_in_the_picture(scores, title):
    picture = draw.OnlineSoftmax(scores, title=title)
    assert picture.title == (title or f"{len(scores)} score{'s' * (len(scores) > 1)}, one by one")
    assert picture.text().split("\n")[0] == picture.title in texts(picture)
    (svg,) = elements(picture, "svg")
    assert svg.get("aria-label") == picture.description


def test_the_largest_score_has_weight_one_and_the_description_says_what_is_rescaled():
    picture = draw.OnlineSoftmax([1, 3, 2, 5])
    assert picture.last_weights[3] == 1
    assert picture.description.endswith("multiplied by 0.14 at token 1, by 0.14 at token 3.")
    assert draw.OnlineSoftmax([2, 1]).description.endswith("so no weight is rescaled.")
    assert draw.OnlineSoftmax(range(9)).description.endswith("by 0.37 at token 4, and 4 times more.")


@pytest.mark.parametrize("scores", [[], [0] * 65, [math.nan], [-math.inf], [1e7], [10**400], ["1"], 3, None])
def test_other_scores_are_refused(scores):
    with pytest.raises((TypeError, ValueError), match="scores"):
        draw.OnlineSoftmax(scores)

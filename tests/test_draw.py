"""The data behind the pictures of what kernels do, worked out by hand."""

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from paged_numba import draw, lockstep
from paged_numba.draw.kernels.tree import Step

sys.path.insert(0, str(Path(__file__).parent / "lockstep"))


@pytest.fixture(scope="module")
def kernels():
    return pytest.importorskip("tutorial_kernels", reason="Numba is not installed")


def trace_copy(kernels, stride, offset=0):
    source, target = np.zeros(128 * 32 + 8, np.float32), np.zeros(128, np.float32)
    with lockstep.tracing() as accesses:
        lockstep.launch(kernels.copy_with_stride, 1, 128, source, target, stride, offset)
    return accesses


def texts(picture):
    """Return the texts in a picture, cut ones whole, as in their tooltips; its XML must be well-formed."""
    found = [element for element in ET.fromstring(picture.svg()).iter() if element.tag.endswith("text")]
    return [(list(element) or [element])[0].text for element in found]


@pytest.mark.parametrize(
    ("stride", "offset", "sectors", "lines", "caption"),
    [
        (1, 0, [0, 1, 2, 3], [0], "4 sectors of 32 bytes in 1 cache line of 128, 100% useful"),
        (1, 1, [0, 1, 2, 3, 4], [0, 1], "5 sectors of 32 bytes in 2 cache lines of 128, 80% useful"),
        (2, 0, list(range(8)), [0, 1], "8 sectors of 32 bytes in 2 cache lines of 128, 50% useful"),
        (32, 0, [*range(0, 128, 4)], [*range(32)], "32 sectors of 32 bytes in 32 cache lines of 128, 12.5% useful"),
        (0, 40, [5], [1], "1 sector of 32 bytes in 1 cache line of 128, 12.5% useful"),
    ],
)  # fmt: skip
def test_warp_access(kernels, stride, offset, sectors, lines, caption):
    picture = draw.WarpAccess.of(trace_copy(kernels, stride, offset), "source")
    assert picture.addresses == {lane: 4 * (lane * stride + offset) for lane in range(32)}
    assert (picture.itemsize, picture.sectors, picture.lines) == (4, sectors, lines)
    assert caption in texts(picture)
    assert "load of source: target[i] = source[i * stride + offset]" in texts(picture)


def test_warp_access_of_another_warp_and_line(kernels):
    accesses = trace_copy(kernels, 1)
    line = accesses[0].line.number
    picture = draw.WarpAccess.of(accesses, "target", "store", line=line, warp=2)
    assert picture.addresses == {lane: 4 * (64 + lane) for lane in range(32)}
    with pytest.raises(ValueError, match="got none with array='source' kind='atomic' line=None warp=0"):
        draw.WarpAccess.of(accesses, "source", "atomic")


def test_inactive_lanes_have_no_address(kernels):
    a, b, c = (np.zeros(1000, np.float32) for _ in range(3))
    with lockstep.tracing((7, 0, 0)) as accesses:
        lockstep.launch(kernels.vector_add, 8, 128, a, b, c)
    # Block 7 begins at element 896 and ends at 999: its last warp has 8 lanes.
    picture = draw.WarpAccess.of(accesses, "a", warp=3)
    assert picture.addresses == {lane: 4 * (992 + lane) for lane in range(8)}
    assert picture.sectors == [124]


def test_trace_counts_barriers_and_refuses_blocks_outside_the_grid(kernels):
    data, out = np.zeros(256, np.float32), np.zeros(2, np.float32)
    with lockstep.options(max_lanes=128), lockstep.tracing((1, 0, 0)) as accesses:
        lockstep.launch(kernels.reduce_sequential, 2, 128, data, out)
    assert [a.epoch for a in accesses if a.array == "data"] == [0]
    assert [a.epoch for a in accesses if a.array == "out"] == [8]
    assert next(a for a in accesses if a.array == "data").elements == tuple(range(128, 256))
    message = r"thread_block must lie in the grid, got thread_block=\(2, 0, 0\)"
    with lockstep.tracing((2, 0, 0)), pytest.raises(ValueError, match=message):
        lockstep.launch(kernels.reduce_sequential, 2, 128, data, out)


def test_tree_of_a_reduction(kernels):
    with lockstep.tracing() as accesses:
        lockstep.launch(kernels.reduce_sequential, 1, 128, np.zeros(128, np.float32), np.zeros(1, np.float32))
    tree = draw.Tree.of(accesses, "partial")
    expected = [Step(0, thread, thread, ()) for thread in range(128)]
    for epoch in range(1, 8):
        stride = 128 >> epoch
        expected += [Step(epoch, t, t, (t, t + stride), begins=(epoch - 1,) * 2) for t in range(stride)]
    assert tree.steps == expected
    assert tree.races == []
    assert tree.epochs == list(range(8))
    assert {"start", "barrier 7", "64 threads", "1 thread"} <= set(texts(tree))
    with pytest.raises(
        ValueError, match="array must name a shared array that was stored to, got array='data'"
    ):
        draw.Tree.of(accesses, "data")

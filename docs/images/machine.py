"""Draw `machine.svg`: the groups of threads, the parts of a GPU that run them, and their memories."""

from pathlib import Path

from paged_numba.draw.picture import Picture
from paged_numba.draw.svg import COLOURS, Drawing, Look

BLUE, ORANGE, GREEN, PINK = COLOURS[:4]
WIDTH, TOP, ROW = 880, 78, 128
GROUP, PART, MEMORY = 30, 320, 620
"""Left edges of the three columns."""

ROWS = (
    (
        "grid",
        "all threads of a launch",
        "GPU",
        "132 multiprocessors",
        "global memory",
        "141 GB, behind a cache (L2)",
    ),
    (
        "thread block",
        "256 threads, say",
        "multiprocessor",
        "4 schedulers of warps",
        "shared memory",
        "up to 227 KiB",
    ),
    (
        "warp",
        "32 threads",
        "32 lanes",
        "one instruction at a time",
        "shuffles",
        "lanes read one another's registers",
    ),
    (
        "thread",
        "one run of the kernel",
        "lane",
        "one number at a time",
        "registers",
        "at most 255, of 4 bytes",
    ),
)


class Machine(Picture):
    """Four rows: grid, thread block, warp, thread."""

    description = (
        "Four rows, from large to small. A grid of thread blocks runs on the whole GPU and shares global memory. A "
        "thread block runs on one multiprocessor and shares its shared memory. A warp of 32 threads runs on 32 lanes, "
        "which execute one instruction together. A thread runs in one lane and has registers of its own."
    )

    def draw(self) -> Drawing:
        """Return the picture."""
        drawing = Drawing(
            WIDTH,
            TOP + ROW * len(ROWS) + 8,
            "What you launch, where it runs, and its memory (sizes of an H200)",
            self.description,
        )
        for x, words in ((GROUP, "you launch"), (PART, "it runs on"), (MEMORY, "its memory")):
            drawing.text(x, 58, words, "left q")
        for row, (group, size, part, parts, memory, room) in enumerate(ROWS):
            y = TOP + ROW * row
            if row:
                drawing.line(GROUP, y - 14, WIDTH - GROUP, y - 14, css="edge faint")
            for x, name, words in ((GROUP, group, size), (PART, part, parts), (MEMORY, memory, room)):
                drawing.text(x, y + 12, name, "left strong")
                drawing.text(x, y + 28, words, "left q")
            (_grid, _thread_block, _warp, _thread)[row](drawing, y + 40)
        return drawing


def _cells(drawing, x, y, columns, rows, size, fill, gap=2):
    for row in range(rows):
        for column in range(columns):
            drawing.rect(x + column * (size + gap), y + row * (size + gap), size, size, fill)


def _grid(drawing, y):
    _cells(drawing, GROUP, y, 8, 3, 18, BLUE, gap=4)
    _cells(drawing, PART, y, 12, 3, 18, ORANGE, gap=2)
    drawing.rect(MEMORY, y, 220, 60, GREEN)
    for sector in range(1, 22):
        drawing.line(MEMORY + 10 * sector, y, MEMORY + 10 * sector, y + 60, css="edge faint")
    drawing.text(MEMORY + 110, y + 34, "sectors of 32 bytes", on=Look(GREEN))


def _thread_block(drawing, y):
    for warp in range(8):
        _cells(drawing, GROUP, y + 8 * warp, 32, 1, 5, BLUE, gap=1)
    drawing.rect(PART, y, 240, 62, ORANGE)
    for scheduler in range(4):
        drawing.rect(PART + 8 + 58 * scheduler, y + 10, 50, 42, "none")
        drawing.text(PART + 33 + 58 * scheduler, y + 35, "32 lanes", "small", on=Look(ORANGE))
    drawing.rect(MEMORY, y + 6, 160, 48, GREEN)
    drawing.text(MEMORY + 80, y + 34, "32 banks", on=Look(GREEN))


def _warp(drawing, y):
    _cells(drawing, GROUP, y + 12, 32, 1, 6, BLUE, gap=1)
    _cells(drawing, PART, y + 12, 32, 1, 6, ORANGE, gap=1)
    drawing.text(PART, y + 40, "an if that only some lanes take costs both branches", "left small q")
    _cells(drawing, MEMORY, y + 12, 8, 1, 14, GREEN, gap=6)
    for lane in range(0, 8, 2):
        x = MEMORY + 7 + 20 * lane
        drawing.arrow(x, y + 26, x + 20, y + 46, PINK)
        drawing.arrow(x + 20, y + 26, x, y + 46, PINK)


def _thread(drawing, y):
    drawing.rect(GROUP, y + 8, 14, 14, BLUE)
    drawing.rect(PART, y + 8, 14, 14, ORANGE)
    _cells(drawing, MEMORY, y + 8, 12, 1, 14, GREEN, gap=2)


if __name__ == "__main__":
    Machine().save(Path(__file__).with_name("machine.svg"))

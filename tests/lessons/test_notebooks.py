"""The lessons as notebooks: jupytext takes no line of their prose for a command of IPython."""

import re

import pytest
from reading import TUTORIALS

# As in jupytext/magics.py: it uncomments such lines, and the notebook then fails.
COMMANDS = "cat|cd|cp|mv|rm|rmdir|mkdir|copy|ddir|echo|ls|ldir|ren"
COMMAND = re.compile(rf"# *(?:(?:{COMMANDS})(?:$|\s$|\s[^=,])|[?!] *\S|%+[a-zA-Z]|\S*\?\s*$)")


@pytest.mark.parametrize("path", sorted(TUTORIALS.rglob("*.py")), ids=lambda path: path.stem)
def test_no_line_of_prose_reads_as_a_command(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [line for line in lines if COMMAND.match(line) and not line.startswith("# %%")]
    assert not found, "rewrap these lines, so that they begin with another word"


@pytest.mark.parametrize(
    ("line", "is_command"),
    [
        ("# copy first, then write", True),
        ("# more?", True),
        ("# copying is slow", False),
        ("# So much more?", False),
    ],
)
def test_commands_are_told_from_prose(line, is_command):
    assert bool(COMMAND.match(line)) == is_command

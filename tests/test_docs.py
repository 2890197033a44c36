"""README and docs: every example runs and prints the output shown; every command and link works."""

import ast
import builtins
import cmath
import io
import json
import math
import operator
import os
import re
import runpy
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from paged_numba import lockstep, models, targets
from paged_numba.commands import main as cli
from paged_numba.draw.text import table
from paged_numba.errors import UnsupportedConstructError
from paged_numba.lockstep.language import intrinsics
from paged_numba.lockstep.language.arrays import methods
from paged_numba.lockstep.language.types import bfloat16, libdevice
from paged_numba.ops import layouts
from paged_numba.ops.attention import ALGORITHMS

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


# The README.


def test_readme_has_exactly_two_commands():
    commands = blocks(TEXTS["README.md"], "sh")
    assert len(commands) == 2
    assert all(command.count("\n") == 1 for command in commands)


def test_readme_is_read_in_a_minute():
    assert len(TEXTS["README.md"].split()) <= 1000


# Examples. Each Python code block is a separate program; its first line may name its file. The text block after it is
# its output, and the pictures that it saves are in docs/images.

EXAMPLES = [
    pytest.param(code, printed, id=f"{name}-{place}")
    for name, text in TEXTS.items()
    for place, (code, printed) in enumerate(
        re.findall(r"^```python\n(.*?)^```\n(?:\n(?:[^\n`]*:\n\n)?```text\n(.*?)^```$)?", text, re.M | re.S)
    )
]


@pytest.mark.parametrize(("code", "printed"), EXAMPLES)
def test_example_prints_what_stands_there(code, printed, tmp_path):
    for package in ("stumpy", "torch"):
        if f"import {package}" in code:
            pytest.importorskip(package, reason=f"{package} is not installed")
    named = re.match(r"# (\w+\.py)\n", code)
    script = tmp_path / (named[1] if named else "example.py")
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PATH": "", "PYTHONPATH": str(ROOT), "PAGED_NUMBA_TARGET": "lockstep"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert unindented(done.stdout) == unindented(printed)
    for picture in tmp_path.glob("*.svg"):
        committed = IMAGES / picture.name
        assert committed.read_text(encoding="utf-8") == picture.read_text(encoding="utf-8"), (
            f"run docs/images/make.py: {picture.name} is not what its example draws"
        )


def unindented(text):
    return [line.rstrip() for line in text.rstrip().splitlines()]


def test_examples_are_found():
    assert len(EXAMPLES) == sum(text.count("```python\n") for text in TEXTS.values())
    assert sum(bool(example.values[1]) for example in EXAMPLES) == sum(
        text.count("```text\n") for text in TEXTS.values()
    )


def test_every_picture_is_drawn_by_an_example():
    drawn = {name for text in TEXTS.values() for name in re.findall(r'\.save\("([^"]+)"\)', text)}
    assert {path.name for path in IMAGES.glob("*.svg")} == drawn | {"machine.svg"}


def test_the_machine_is_drawn_by_its_script():
    made = runpy.run_path(str(IMAGES / "machine.py"))["Machine"]()
    assert (IMAGES / "machine.svg").read_text(encoding="utf-8") == made.svg() + "\n"


# Commands.


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        pytest.param(*block.removeprefix("$ ").split("\n", 1), id=f"{name}-{place}")
        for name, text in TEXTS.items()
        for place, block in enumerate(blocks(text, "console"))
    ],
)
def test_command_prints_the_lines_that_are_shown(command, shown, capsys, monkeypatch):
    monkeypatch.setenv(targets.ENVIRONMENT, "lockstep")
    typed, _, command = command.rpartition(" | ")
    if typed:
        # What printf writes is the standard input.
        (text,) = re.fullmatch("printf '([^'%]*)'", typed).groups()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.replace("\\n", "\n").encode())))
    words = shlex.split(command)[1:]
    for known in models.find():
        if known.name in words and known.path is None:
            pytest.skip(known.install)
    assert cli.main(words) == 0
    # In this order, whatever the space between words; other lines may come between.
    lines = iter([timeless(line) for line in capsys.readouterr().out.splitlines()])
    for line in shown.splitlines():
        assert timeless(line) in lines, f"{command!r} does not print {line!r} there"


def timeless(line):
    """Return the words of a line, without seconds and what there is of something in a second."""
    return re.sub(r"\d+\.\d(?= s\b| a second| tokens a second)", "#", line).split()


def test_every_command_is_one_that_the_command_line_takes(monkeypatch):
    mentioned = {words for text in TEXTS.values() for words in re.findall(r"`(paged-numba [^`]*)`", text)}
    assert len(mentioned) > 5
    taken = []
    for name in cli.COMMANDS:
        module = cli._command(name)
        monkeypatch.setattr(module, "run", lambda options: taken.append(options) or 0)
    for words in sorted(mentioned):
        assert words.split()[1] in cli.COMMANDS
        assert cli.main(shlex.split(words)[1:]) == 0
    assert len(taken) == len(mentioned)


# Figures of speed.


def test_figures_of_speed_are_those_of_the_committed_benchmark():
    record = json.loads((ROOT / "docs" / "results" / "lockstep.json").read_text(encoding="utf-8"))
    header, *rows = record["rows"]
    assert table(header, rows) in TEXTS["docs/speed.md"]
    assert {"date", "commit", "machine", "python", "packages"} <= set(record["provenance"])
    assert record["provenance"]["machine"] == "Linux x86_64, 2 cores"
    assert "2 cores of a shared x86-64 machine" in " ".join(TEXTS["docs/speed.md"].split())
    ours, theirs = (record["simulator"][f"{side}_s"] for side in ("lockstep", "simulator"))
    assert rows[0][1] == f"{1e3 * ours:.2f}"
    assert f"took it {1e3 * ours:.1f} ms, and Numba's simulator {theirs:.1f} s" in " ".join(
        TEXTS["README.md"].split()
    )
    design = " ".join(TEXTS["docs/design.md"].split())
    assert f"took it {theirs:.1f} seconds" in design
    assert f"took {1e3 * ours:.1f} milliseconds" in design


def test_figures_of_a_model_are_those_of_the_committed_benchmark():
    record = json.loads((ROOT / "docs" / "results" / "model.json").read_text(encoding="utf-8"))
    header, *rows = record["rows"]
    assert table(header, rows) in TEXTS["docs/speed.md"]
    assert (record["model"], record["batch"], record["context"]) == ("smollm2", 1, 256)
    ours, dense = (record["sides"][side] for side in ("paged, lockstep", "dense NumPy"))
    assert ours["tokens_per_s"] >= 5
    assert 0.6 < ours["attention_s"] / ours["step_s"] < 0.72
    assert 60 < ours["attention_s"] / dense["attention_s"] < 80
    assert max(record["logit_errors"].values()) < 1e-5 * record["logit_scale"]


# Links.


def anchors(text):
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    prose = re.sub(r"^```.*?^```$|`[^`]*`", "", TEXTS[name], flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("name", TEXTS)
def test_files_that_are_named_exist(name):
    for path in re.findall(r"`((?:paged_numba|tutorials|tests|docs)/[\w/.]*)`", TEXTS[name]):
        assert (ROOT / path).exists(), path


def test_every_page_is_listed_once_by_the_pages_that_list_pages():
    lists = [TEXTS[f"docs/{name}.md"] for name in ("index", "guides", "explanation", "reference")]
    listed = [page for text in lists for page in re.findall(r"^\|[^\n]*\]\((\w+\.md)\)", text, re.M)]
    assert sorted(listed) == sorted({page.name for page in PAGES} - {"README.md", "index.md"})
    for text in lists[1:]:
        tree = text.partition(":hidden:\n")[2].split()
        assert [f"{page}.md" for page in tree if page not in ("api", "```")] == re.findall(
            r"^\|[^\n]*\]\((\w+\.md)\)", text, re.M
        )


@pytest.mark.parametrize("name", sorted(set(TEXTS) - {"README.md", "docs/index.md"}))
def test_page_opens_with_the_question_that_it_answers(name):
    title, opening, *_ = TEXTS[name].split("\n\n")
    assert re.fullmatch("# [^\n]+", title)
    assert "?" in opening


def test_kernels_page_names_every_kernel():
    kernels = {path.stem for path in (ROOT / "paged_numba" / "kernels").glob("*.py")} - {"__init__"}
    assert kernels <= set(re.findall(r"`(\w+)`", TEXTS["docs/kernels.md"]))


@pytest.mark.parametrize("name", TEXTS)
def test_source_of_the_package_is_included_by_name_not_copied(name):
    for path, options in re.findall(r"^```\{literalinclude\} (\S+)\n(.*?)^```$", TEXTS[name], re.M | re.S):
        source = ((ROOT / name).parent / path).read_text(encoding="utf-8")
        (function,) = re.findall(r"^:pyobject: (\w+)$", options, re.M)
        assert re.search(rf"^def {function}\(", source, re.M)
    defined = {
        function
        for path in (ROOT / "paged_numba" / "kernels").glob("*.py")
        for function in re.findall(r"^def (\w+)\(", path.read_text(encoding="utf-8"), re.M)
    }
    assert not defined & set(re.findall(r"^ *def (\w+)\(", TEXTS[name], re.M))


def test_operations_page_explains_every_algorithm():
    assert set(ALGORITHMS) <= set(re.findall(r"^\| `(\w+)` \|", TEXTS["docs/operations.md"], re.M))


def test_operations_page_has_the_largest_sizes_of_every_algorithm():
    rows = re.findall(
        r"^\| ([^|]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", TEXTS["docs/operations.md"], re.M
    )
    listed = {
        name: [int(size.replace(",", "")) for size in sizes]
        for names, *sizes in rows
        for name in re.findall(r"`(\w+)`", names)
    }
    assert listed.keys() == {*ALGORITHMS, "packed"} - {"auto"}
    for name, sizes in listed.items():
        limits = layouts.CACHE_LIMITS | layouts.ATTENTION_LIMITS.get(name, {})
        assert sizes == [limits[size] for size in ("head_dim", "value_head_dim", "block_size")], name


def test_models_page_lists_every_checkpoint_with_source_and_licence():
    for known in models.find():
        (row,) = [
            row for row in TEXTS["docs/models.md"].splitlines() if row.startswith(f"| `{known.name}` |")
        ]
        assert f"]({known.source})" in row
        assert f"`{known.install}`" in row
        assert row.endswith(f"| {known.licence} |")


def test_models_page_counts_what_the_reference_holds():
    reference = json.loads((ROOT / "tests/models/smollm2_reference.json").read_text(encoding="utf-8"))
    lengths = [len(prompt["ids"]) for prompt in reference["prompts"]]
    answer_lengths = {len(prompt["tokens"]) for prompt in reference["prompts"]}
    assert f"{len(lengths)} prompts of {min(lengths)} to {max(lengths)} tokens" in TEXTS["docs/models.md"]
    assert "; 32 greedy tokens each" in TEXTS["docs/models.md"]
    assert answer_lengths == {32}
    assert f"token ids of {len(reference['texts'])} texts" in TEXTS["docs/models.md"]


# What lockstep runs and refuses, as docs/language.md lists it. By the page's name of each refused construct: the
# body of a kernel, and the name in the error (the same name if None).

REFUSED = {
    "a list": ("y = [1, 2]", None),
    "a set": ("y = {1, 2}", None),
    "a dictionary": ("y = {1: 2}", None),
    "a list comprehension": ("y = [i for i in range(3)]", None),
    "a set comprehension": ("y = {i for i in range(3)}", None),
    "a dictionary comprehension": ("y = {i: i for i in range(3)}", None),
    "a generator expression": ("y = sum(i for i in range(3))", None),
    "an f-string": ('print(f"{x[0]}")', None),
    "a decorated function inside a kernel": ("@plain\ndef f(y):\n    return y", None),
    "the capture of a variable that is no constant by a function that is a value": (
        "y = x[0]\nz = (lambda: y, 1)",
        "the capture of 'y'",
    ),
    "a variable that may hold one or another function": (
        "f = max\nif x[0] > 1:\n    f = min\ny = f(x[0], x[1])",
        "may be the function",
    ),
    "a class": ("class C:\n    pass", None),
    "a pattern of match that takes its subject apart": (
        "match x:\n    case (0, y):\n        pass",
        "the pattern `[0, y]`, which takes its subject apart",
    ),
    "with": ("with x:\n    pass", None),
    "try": ("try:\n    pass\nfinally:\n    pass", None),
    "del": ("y = 1\ndel y", None),
    "global": ("global y", None),
    "nonlocal of a name outside the kernel": ("nonlocal enclosed", "nonlocal"),
    "import": ("import math\nfrom math import pi", None),
    "yield": ("yield x[0]", None),
    "async": ("async def f():\n    pass", "async def"),
    "a starred expression": ("y, *z = (1, 2, 3)", None),
    "two stars in a call": ("y = max(**x)", "a starred argument"),
    "stars of an inner function that is called directly": (
        "def f(*y):\n    return y\nf(1)",
        "passes only one argument to the *args",
    ),
    "the operator @": ("y = x @ x", "`x @ x`"),
    "an assignment expression after and, or, or in a ternary": (
        "y = x[0] > 0 and (z := 1)",
        "an assignment expression after `and`, `or` or in a ternary",
    ),
    "break or continue in the else of a loop": (
        "while True:\n    for i in range(2):\n        pass\n    else:\n        break",
        None,
    ),
    "a kernel that returns a value": ("return x[0]", None),
    "a call of a plain Python function": ("y = plain(x)", "the plain Python function 'plain'"),
    "a call of any other function": ("y = np.dot(x, x)", "a call of `np.dot`"),
    "a list or another object from outside as a value": ("y = OUTSIDE", "`OUTSIDE` (a list) as a value"),
    "an undefined name": ("y = nowhere", "the undefined name 'nowhere'"),
    "a shape that is not constant": (
        "y = cuda.local.array(x.size, np.int8)",
        "a shape must be made of integers",
    ),
}


def section(heading):
    return TEXTS["docs/language.md"].split(f"## {heading}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("construct", REFUSED)
def test_lockstep_refuses_what_the_page_lists(construct, tmp_path):
    body, named = REFUSED[construct]
    path = tmp_path / "refused.py"
    path.write_text(
        "import numpy as np\nfrom paged_numba.lockstep.cuda import facade as cuda\n"
        "OUTSIDE = [1]\ndef plain(y):\n    return y\n"
        f"def make():\n    enclosed = 1\n    def kernel(x):\n{textwrap.indent(body, ' ' * 8)}\n    return kernel\n",
        encoding="utf-8",
    )
    kernel = runpy.run_path(str(path))["make"]()
    with pytest.raises(UnsupportedConstructError, match=re.escape(named or construct)) as info:
        lockstep.launch(kernel, 1, 1, np.zeros(2))
    assert re.search(r": \w.*, refused\.py:\d+$", str(info.value)), "it must say what to do, and where"


def test_language_page_lists_all_that_is_refused():
    cells = re.findall(r"^\| ([^|]*?) \| [^|]*\|$", section("What does not run"), re.M)[1:]
    assert sorted(name for cell in cells for name in re.split("; |, such as .*", cell) if name) == sorted(
        REFUSED
    )


def test_language_page_decides_on_all_syntax():
    """Each kind of statement and expression is in the page's kernel, which runs, or in a kernel that is refused."""
    asynchronous = "async with x:\n    await x\nasync for y in x:\n    yield"
    bodies = [*(body for body, _ in REFUSED.values()), "yield from x"]
    texts = [
        *blocks(section("Statements and expressions"), "python"),
        *(f"def f(x):\n{textwrap.indent(body, '    ')}" for body in bodies),
        f"async def f(x):\n{textwrap.indent(asynchronous, '    ')}",
    ]
    found = {type(node) for text in texts for node in ast.walk(ast.parse(text))}
    later_than_python_3_10 = {"TryStar", "TypeAlias", "TemplateStr", "Interpolation"}
    for kind in (ast.stmt, ast.expr):
        missing = {child.__name__ for child in set(kind.__subclasses__()) - found}
        assert missing <= later_than_python_3_10


def names_of(group):
    """Return the names that a row of the page's table lists."""
    (row,) = re.findall(rf"^\| {re.escape(group)} \| (.*) \|$", TEXTS["docs/language.md"], re.M)
    return re.findall(r"`([^`]*)`", re.sub(r"\([^)]*\)", "", row))


def test_language_page_lists_what_a_kernel_may_call_on_cuda():
    groups = (
        *("threads", "memory", "barriers and fences", "warps"),
        *("atomics", "cache hints", "bits and numbers", "float16"),
    )
    listed = [name for group in groups for name in names_of(group)]
    vectors = names_of("vector types")
    with_x, with_number = (
        vectors[: vectors.index("x1")],
        vectors[vectors.index("x4") + 1 : vectors.index("1")],
    )
    listed += [f"{name}x{count}" for name in with_x for count in (1, 2, 3, 4)]
    listed += [f"{name}{count}" for name in with_number for count in (1, 2, 3, 4)]
    assert {f"{name}{end}" for name in names_of("`libdevice`")[:6] for end in ("", "f")} == set(
        libdevice.ABSENT
    )
    listed += [f"libdevice.{name}" for name in libdevice.LIBDEVICE]
    listed += [names_of("bfloat16")[0], *(f"bf16.{name}" for name in bfloat16.BFLOAT16)]
    listed += [f"fp8.{name}" for name in names_of("fp8")[2:]]
    assert len(listed) == len(set(listed))
    runs = {*intrinsics.INTRINSICS, *intrinsics.DECLARATIONS, "cuda.warpsize"}
    runs |= {f"cuda.{name}" for name in intrinsics.MACHINE_VALUES}
    assert {f"cuda.{name}" for name in listed} == runs


@pytest.mark.parametrize(
    ("group", "module"),
    [("builtins", builtins), ("`math`", math), ("`cmath`", cmath), ("`operator`", operator), ("`np`", np)],
)
def test_language_page_lists_what_a_kernel_may_call_of_python(group, module):
    runs = {
        name
        for name, value in vars(module).items()
        if callable(value) and intrinsics.intrinsic_of(value) is not None
    }
    runs = {name for name in runs if not name.startswith("_")}
    if module is np:  # ufuncs and scalar types run all
        classes = {"ndindex", "ndenumerate", "nditer", "finfo", "iinfo"}
        runs = {n for n in runs if not isinstance(getattr(np, n), (np.ufunc, type))} | classes
        runs = {n for n in runs if getattr(np, n).__name__ == n}  # without aliases
    runs |= {"isinstance"} if module is builtins else set()
    # Python 3.10 lacks math.exp2.
    assert {name for name in names_of(group) if hasattr(module, name)} == runs


def test_language_page_lists_what_arrays_have():
    assert sorted(names_of("attributes")) == sorted(methods.ATTRIBUTES)
    assert sorted(names_of("methods")) == sorted(methods.METHODS)

"""Exercises on the site: for each a page, a notebook and the learner's file, made from the package; and their index."""

import ast
import json
import re
import tempfile
import textwrap
from collections import defaultdict
from html import escape
from pathlib import Path

from lessons import TUTORIALS, in_rst, opening
from sphinx.application import Sphinx
from sphinx_gallery import notebook

from paged_numba import exercises
from paged_numba.exercises.catalogue import Exercise
from paged_numba.exercises.catalogue import exercises as all_exercises
from paged_numba.exercises.checker.property_task import PropertyTask
from paged_numba.exercises.skeletons import lines_to_write

NEEDS = (
    "A check runs on your machine and needs no GPU. It needs the package with the extra ``learn``: "
    '``pip install ".[learn]"`` in a clone of the repository, as :doc:`for the lessons </index>`.'
)
STAGES = """\
1. Your answer runs, and Numba accepts it if it is a kernel.
2. Its results are right, for inputs at boundaries and for many inputs drawn at random.
3. The sanitizer finds nothing in its launches.
4. It moves no more data than it must."""
OPTIONS = """\
* ``--hint`` shows the first hint; repeat the option for more.
* ``--watch`` checks again each time you save the file.
* ``--html FILE`` writes the verdict as a page, with its picture."""
VERDICT_OF = "the index in the thread block alone"
"""The wrong answer to exercise 1 whose verdict the index shows."""


def code_of(text: str) -> str:
    """Return a learner's file without the statement, which is its docstring."""
    statement = ast.parse(text).body[0]
    return "\n".join(text.splitlines()[statement.end_lineno :]).strip()


def mended(exercise: Exercise) -> bool:
    """Tell whether the learner mends what the skeleton holds."""
    return "# Mend this part:" in exercise.skeleton


def what_is_written(exercise: Exercise) -> str:
    """Return the kind and name of the answer."""
    task = exercise.task()
    if isinstance(task, PropertyTask):
        kind, where = "property", ""
    elif task.kernel:
        kind, where = "kernel", ""
    else:
        is_class = any(
            isinstance(node, ast.ClassDef) and node.name == task.answer
            for node in ast.parse(exercise.marked).body
        )
        kind, where = "class" if is_class else "function", " on the host"
    return f"{kind} ``{task.answer}``{where}"


def link_to_lesson(stem: str) -> str:
    """Return a link to a lesson, with its title."""
    return f":doc:`{opening(TUTORIALS / f'{stem}.py')[0]} </lessons/{stem}>`"


def python(code: str) -> str:
    """Return code as a block of a page."""
    return ".. code-block:: python\n\n" + textwrap.indent(code, "   ")


def commands(*lines: str) -> str:
    """Return command lines as a block of a page."""
    return ".. code-block:: console\n\n" + "\n".join(f"   $ {line}" for line in lines)


def heading(text: str) -> str:
    """Return a heading of a section."""
    return f"{text}\n{'-' * len(text)}"


def page_of(exercise: Exercise) -> str:
    """Return the page of an exercise: the task, how to begin, hints and solution, both folded away."""
    task, number, stem = exercise.task(), exercise.number, Path(exercise.file_name).stem
    title, underline, statement = exercise.statement.split("\n", 2)
    hints = [
        # Raw: hints are no reStructuredText, and the quotes in their code must stay straight.
        in_rst(
            "dropdown",
            f"Hint {i} of {len(task.hints)}",
            {},
            in_rst("raw", "html", {}, f'<p class="sd-card-text">{escape(hint)}</p>'),
        )
        for i, hint in enumerate(task.hints, 1)
    ]
    solution = in_rst("dropdown", "Show it", {}, python(code_of(exercise.solution)))
    parts = [
        f"{title}\n{underline}",
        f"After lesson {link_to_lesson(task.lesson)}. You {'mend' if mended(exercise) else 'write'} "
        f"the {what_is_written(exercise)} "
        f"({lines_to_write(exercise.marked)} lines).",
        statement.strip(),
        heading("Begin"),
        f"``start`` writes ``{exercise.file_name}`` to the current folder. Write your answer in that "
        "file, then ``check`` it:",
        commands(f"paged-numba start {number}", f"paged-numba check {number}"),
        f"Or download :download:`the notebook <{stem}.ipynb>` or :download:`the file <{stem}.py>`. {NEEDS}",
        "Below the task, the file holds:",
        python(code_of(exercise.skeleton)),
        heading("Hints"),
        *hints,
        heading("Solution"),
        in_rst("dropdown", "A solution", {}, f"Any answer that passes the check is right.\n\n{solution}"),
    ]
    return "\n\n".join(parts) + "\n"


def index_of(found: tuple[Exercise, ...]) -> str:
    """Return the page that lists the exercises and says how they go."""
    rows = [("Exercise", "Lesson", "You write")]
    rows += [
        (
            f":doc:`/exercises/{Path(one.file_name).stem}`",
            link_to_lesson(one.task().lesson),
            f"{what_is_written(one)}, {lines_to_write(one.marked)} lines{' to mend' * mended(one)}",
        )
        for one in found
    ]
    cells = "\n".join(
        f"{'*' if first else ' '} - {cell}"
        for row in rows
        for first, cell in zip((True, False, False), row, strict=True)
    )
    pages = "\n".join(Path(one.file_name).stem for one in found)
    answer, verdict = shown_verdict(found[0])
    parts = [
        "Exercises\n=========",
        "After a lesson, write the kernel, the allocator or the property yourself. If your answer is wrong, the check "
        "shows the smallest input on which it fails, and draws a picture of it.",
        commands("paged-numba start 1", "paged-numba check 1", "paged-numba progress"),
        "``start`` writes a file with the task to the current folder; it never overwrites a file. Write your answer "
        "in that file. ``check`` goes through these stages and stops at the first that fails:",
        STAGES,
        "If you write a property, one stage replaces the last two: your property must find the wrong kernels or "
        "allocators on which it is run. ``progress`` lists the exercises and says which are done. ``check`` has "
        "these options:",
        OPTIONS,
        "Each exercise is also a notebook. There, these lines check your answer and show the verdict:",
        python("from paged_numba import exercises\n\nexercises.check(1, scale)"),
        NEEDS,
        heading("In the order of the lessons"),
        in_rst("list-table", "", {"header-rows": "1", "class": "exercises-table"}, cells),
        heading("What a check says"),
        "This answer to exercise 1 is wrong:",
        python(answer),
        "With more than one thread block, all thread blocks take the same elements. The check reports this verdict:",
        in_rst("raw", "html", {}, verdict),
        in_rst("toctree", "", {"hidden": ""}, pages),
    ]
    return "\n\n".join(parts) + "\n"


def shown_verdict(exercise: Exercise) -> tuple[str, str]:
    """Return a wrong answer, and its verdict as HTML."""
    (wrong,) = (one for one in exercise.task().wrong if one.what == VERDICT_OF)
    source = exercise.solution.replace(wrong.old, wrong.new)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / exercise.file_name
        path.write_text(source, encoding="utf-8")
        verdict = exercises.check(exercise.number, path)
    if verdict.passed or verdict.picture is None:
        raise ValueError(f"the index shows a verdict on a wrong answer, with its picture, got\n{verdict}")
    return code_of(source), verdict._repr_html_()


def notebook_of(exercise: Exercise) -> dict:
    """Return the notebook of an exercise: the task, the skeleton's code and the check."""
    levels = {(None, "="): 1, (None, "-"): 2}
    text = notebook.rst2md(exercise.statement, {}, "", levels).strip()
    how = (
        "Write your answer in the next cell, run that cell, then run the check. It needs no GPU, only the package "
        f"with the extra `learn`. The page of exercise {exercise.number} on the site has hints and a solution."
    )
    answer = exercise.task().answer
    check = f"from paged_numba import exercises\n\nexercises.check({exercise.number}, {answer})"
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "cells": [
            cell("task", "markdown", f"{text}\n\n{how}"),
            cell("answer", "code", code_of(exercise.skeleton)),
            cell("check", "code", check),
        ],
    }


def cell(name: str, kind: str, text: str) -> dict:
    """Return a cell of a notebook, of the format's version 4."""
    code = {"execution_count": None, "outputs": []} if kind == "code" else {}
    lines = text.splitlines(keepends=True)
    return {"id": name, "cell_type": kind, "metadata": {}, "source": lines, **code}


def write_pages(app: Sphinx) -> None:
    """Write the pages, notebooks and learners' files to a folder that git ignores."""
    folder = Path(app.srcdir, "exercises")
    folder.mkdir()
    found = all_exercises()
    for one in found:
        path = folder / one.file_name
        path.write_text(one.skeleton, encoding="utf-8")
        path.with_suffix(".rst").write_text(page_of(one), encoding="utf-8")
        path.with_suffix(".ipynb").write_text(json.dumps(notebook_of(one), indent=1) + "\n", encoding="utf-8")
    (folder / "index.rst").write_text(index_of(found), encoding="utf-8")


def add_links(app: Sphinx, docname: str, source: list[str]) -> None:
    """Add the links to its exercises to the end of a lesson's text."""
    del app
    of_lesson = defaultdict(list)
    for one in all_exercises():
        of_lesson[f"lessons/{one.task().lesson}"].append(f":doc:`/exercises/{Path(one.file_name).stem}`")
    if docname in of_lesson:
        # What follows the text: the time that the lesson took, if it was run, and its downloads.
        end = re.search(r"^\.\. (rst-class:: sphx-glr-timing|_sphx_glr_download_)", source[0], re.M)
        if end is None:
            raise ValueError(f"{docname} must end in downloads")
        links = f"**Exercises.** {', '.join(of_lesson[docname])}\n\n"
        source[0] = source[0][: end.start()] + links + source[0][end.start() :]


def setup(app: Sphinx):
    """Write the pages before Sphinx looks for them, and link the lessons to them."""
    app.connect("builder-inited", write_pages)
    app.connect("source-read", add_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

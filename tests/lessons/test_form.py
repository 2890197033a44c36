"""The form of every lesson: length, folds, closing parts, pictures; and that no word comes before it is explained."""

import ast
import re

import pytest
from reading import NUMBER, Lesson, glossary, lesson, lessons

LESSONS = [entry.number for entry in lessons()]
MOST_LINES, MOST_KERNEL_LINES = 154, {6: 35}
LONG = {16: 190}  # which brings the lessons before it together
CLOSING = (
    "**In two sentences.**",
    "**Check yourself.**",
    ".. dropdown:: Answers",
    "**Try next.**",
    "**In the engines.**",
)


@pytest.fixture(params=LESSONS, ids=lambda number: f"{number:02d}")
def each(request):
    return lesson(request.param)


def kernels(entry):
    """Return the definitions of a lesson's kernels and device functions."""
    return [
        node
        for node in ast.walk(ast.parse(entry.text))
        if isinstance(node, ast.FunctionDef)
        and any("cuda.jit" in ast.unparse(d) for d in node.decorator_list)
    ]


def kernel_lines(entry):
    """Return how many lines of kernels a lesson has, without blank lines, comments and docstrings."""
    count = 0
    for node in kernels(entry):
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        lines = {line for part in body for line in range(part.lineno, part.end_lineno + 1)}
        texts = [entry.text.split("\n")[line - 1].strip() for line in lines]
        count += 1 + sum(bool(text) and not text.startswith("#") for text in texts)
    return count


def test_lesson_has_the_form_of_a_lesson(each):
    lines = each.text.splitlines()
    assert len(lines) <= LONG.get(each.number, MOST_LINES)
    title, underline, blank, question = each.cells[0][0].split("\n")[:4]
    assert re.fullmatch(rf"{each.number:02d} · \w.*", title)
    assert underline == "=" * len(title), "the underline is as long as the title"
    assert (blank, question[:2]) == ("", "**"), "the lesson opens with its question, in bold"
    assert re.search(r"\*\*[^*]+\?\*\*", each.cells[0][0], re.DOTALL)
    assert "You will see" in each.cells[0][0], "it says what the reader will see"
    places = [each.prose.rfind(part) for part in CLOSING]
    assert min(places) > 0, f"the lesson lacks {CLOSING[places.index(min(places))]}"
    assert places == sorted(places)
    closing = each.prose[places[1] :]
    assert [f"{n}." for n in (1, 2, 3) if f"\n{n}. " in closing] == ["1.", "2.", "3."]
    assert 1 <= each.prose.count(".. dropdown:: Predict") <= 4
    assert kernel_lines(each) <= MOST_KERNEL_LINES.get(each.number, 25)
    assert all(len(node.args.args) <= 7 or each.number == 10 for node in kernels(each))


def test_broken_kernels_are_called_broken_in_the_cell_before(each):
    # A kernel whose name says that it is wrong.
    wrong = re.compile(r"\b(?:broken|wrong|racy|forgets|unguarded|without_\w+)\w*\b")
    for before, (prose, code) in zip(each.cells, each.cells[1:], strict=False):
        if re.search(rf"def {wrong.pattern}", code):
            assert "broken" in (before[0] + prose).lower()


def test_pictures_end_their_cells_and_are_saved(each):
    shown = re.findall(r"\.show\(\"([^\"]+)\"\)", each.code)
    assert shown, "each lesson has a picture"
    for _, code in each.cells:
        if ".show(" in code:
            last = ast.parse(code).body[-1]
            assert ".show(" in ast.unparse(last), "the picture is the last value of its cell"
            assert code.count(".show(") == 1, "a page shows the last value of a cell only"
    each.run()
    for name in shown:
        assert name.startswith(f"{each.number:02d}_")
        assert each.saved[name].startswith("<svg")
        assert f"Saved as {name}." in each.output
    assert sorted(each.saved) == sorted(set(shown)), "a lesson leaves nothing behind but its pictures"


def test_output_reads_well_in_a_terminal(each):
    assert each.output
    assert max(map(len, each.output.splitlines())) <= 110


def test_code_is_what_a_reader_would_type(each):
    imports = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(each.text))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    assert all("testing" not in line and "commands" not in line for line in imports)


def words_used(entry):
    """Yield the term, and whether it is linked, for each glossary word where a lesson's prose first uses it."""
    prose = re.sub(r"``.*?``|`[^`<]+ <[^`]+>`_", "~", entry.prose, flags=re.DOTALL)
    prose = " ".join(prose.split())
    plain = re.sub(r":\w+:`(?:([^`<]*?) <[^`]*>|([^`]*))`", lambda found: found[1] or found[2], prose)
    for term, names in glossary().items():
        if term != names[0]:
            continue
        word = "|".join(
            re.escape(name.strip("`")) + r"(?:s|es)?" for name in names if not name.startswith("`")
        )
        if word and re.search(rf"\b(?:{word})\b", plain, re.IGNORECASE):
            linked = any(
                re.search(rf":term:`(?:[^`<]* <{re.escape(name)}>|{re.escape(name)})`", prose)
                for name in names
            )
            first = re.search(rf"\b(?:{word})\b", plain, re.IGNORECASE)
            yield term, linked, plain[max(0, first.start() - 30) : first.end() + 20]


PLAIN_ENGLISH: dict[str, str] = {
    # Words of the glossary that lessons use in their everyday sense before the word is explained: which sense.
}


def test_no_word_is_used_before_it_is_explained():
    explained, early = set(), []
    for entry in lessons():
        for term, linked, where in words_used(entry):
            if linked:
                explained.add(term)
            elif term not in explained and term not in PLAIN_ENGLISH:
                early.append(
                    f"lesson {entry.number:02d} uses {term!r} before a lesson links it: ...{where}..."
                )
    assert not early, "\n".join(early)


def a_lesson(tmp_path, prose, code="x = 1\n"):
    path = tmp_path / "07_example.py"
    path.write_text(f'"""\n07 · Example\n============\n\n{prose}\n"""\n\n{code}', encoding="utf-8")
    return Lesson(path)


@pytest.mark.parametrize(
    ("prose", "claims", "given", "message"),
    [
        ("It moves 29 sectors.", {"moves 29 sectors": 29}, [], None),
        ("It moves 29 sectors.", {"moves 29 sectors": 30}, [], "29 should be 30"),
        ("It moves 29 sectors.", {}, [], r"neither claimed nor given .*\['29'\]"),
        ("It moves 29 sectors.", {"moves 28 sectors": 28}, [], "does not say"),
        ("It moves 29 sectors, 8 times.", {"29 sectors": 29}, ["8 times"], None),
        ("It moves 1,024 sectors\nin 2.5 rounds.", {"1,024 sectors in 2.5 rounds": (1024, 2.49)}, [], None),
        ("As in lesson 06 and lessons 07 to 09, ``arange(4)``, SOSP 2023.", {}, [], None),
        ("It is 3.", {"It is 3": (3, 4)}, [], "has the numbers"),
    ],
)
def test_numbers_are_checked(prose, claims, given, message, tmp_path):
    entry = a_lesson(tmp_path, prose)
    if message is None:
        entry.check_numbers(claims, given)
    else:
        with pytest.raises(AssertionError, match=message):
            entry.check_numbers(claims, given)


def test_a_lesson_is_read_into_prose_and_code(tmp_path):
    entry = a_lesson(tmp_path, "Words.", "x = 1  # a comment\n\n# %%\n# More words.\n\ny = '# no comment'\n")
    assert entry.cells[1] == ("More words.\n", "\ny = '# no comment'\n")
    assert "comment" not in entry.code.replace("# no comment", "")
    assert NUMBER.findall("-1, 0.5 and 1,024 or 1e-4; not x1, a1b") == ["-1", "0.5", "1,024", "1e-4"]
    assert entry.run()["y"] == "# no comment"

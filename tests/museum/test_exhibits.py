"""The bug museum: on the wrong code a usual test passes, ours fails as the page says; both pass on the right code."""

import html
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest
from reading import NUMBER, TUTORIALS, Lesson

from paged_numba.allocator.allocator import BlockAllocator
from paged_numba.allocator.queries import PoolQueries
from paged_numba.testing.mutants import Difference, caught, installed
from paged_numba.testing.mutants.allocators import ALLOCATOR_MUTANTS, BoundaryOffByOne
from paged_numba.testing.mutants.caches import CACHE_MUTANTS
from paged_numba.testing.mutants.kernel_mutant import changed_source
from paged_numba.testing.mutants.kernels import KERNEL_MUTANTS
from paged_numba.testing.mutants.plans import PLAN_MUTANTS
from paged_numba.testing.mutants.prefixes import PREFIX_MUTANTS
from paged_numba.testing.mutants.servers import SERVER_MUTANTS

PATHS = sorted((TUTORIALS / "museum").glob("*.py"))
PARTS = (
    "What was reported",
    "The fault",
    "How it shows",
    "The test that does not see it",
    "The test that does",
    "**In one sentence.**",
)
FIELDS = re.compile(
    r"^:Reported: (?P<reported>(?:.+\n)+?):Caught by: (?:.+\n)+?:Its message: ``(?P<message>.+)``$", re.M
)
REPORT = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+/(?:issues|pull)/\d+")
# Mutants that state machines find too seldom: each has a test of its own, by its name.
HUNTED_BY_NAME = Path(__file__).parents[1] / "test_traps_allocator.py"


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def exhibit(request):
    return Lesson(request.param)


def hunted(mutant):
    """Tell whether a property test must find the mistake."""
    if mutant in (*KERNEL_MUTANTS, *PLAN_MUTANTS, *ALLOCATOR_MUTANTS, *CACHE_MUTANTS, *SERVER_MUTANTS):
        return True
    name = mutant.__name__
    return name in PREFIX_MUTANTS or re.search(rf"\b{name}\b", HUNTED_BY_NAME.read_text(encoding="utf-8"))


def test_exhibits_count_through():
    assert [path.name[:2] for path in PATHS] == [f"{number:02d}" for number in range(1, len(PATHS) + 1)]
    assert len(PATHS) >= 20


def test_exhibit_has_the_form_of_an_exhibit(exhibit):
    assert 40 <= sum(line not in ("", "#", "# %%") for line in exhibit.text.splitlines()) <= 80
    title, underline, blank, wrong = exhibit.cells[0][0].split("\n")[:4]
    assert re.fullmatch(rf"{exhibit.number:02d} · \w.*", title)
    assert underline == "=" * len(title)
    assert (blank, wrong[:2]) == ("", "**"), "it opens with what went wrong, in bold"
    places = [exhibit.prose.find(f"{part}\n{'-' * len(part)}") for part in PARTS[:-1]]
    places.append(exhibit.prose.find(PARTS[-1]))
    assert -1 not in places, f"the exhibit lacks {PARTS[places.index(-1)]!r}"
    assert places == sorted(places)
    assert re.search(r":doc:`[^`]*</lessons/\w+>`", exhibit.prose[places[-2] :]), "it links to a lesson"
    assert re.search(r"``tests/[\w/]+\.py``", exhibit.prose[places[-2] :]), "it names our test"
    assert re.search(r"^Difference\.of\(WRONG\)\.show\(\)\s*$", exhibit.cells[2][1], re.M)


def test_links_lead_to_public_reports(exhibit):
    opening = exhibit.cells[0][0]
    assert REPORT.search(FIELDS.search(opening)["reported"])
    links = re.findall(r"\w+://[^\s>`]+", exhibit.text)
    assert all(link.startswith("https://") for link in links)


def test_exhibit_shows_what_its_page_says(exhibit):
    made = exhibit.run()
    wrong, message = made["WRONG"], FIELDS.search(exhibit.cells[0][0])["message"]
    shown = str(Difference.of(wrong))
    assert shown in exhibit.output
    assert hunted(wrong)
    # It has printed the message of a failure, and run to its end: on the wrong code ours fails, and theirs passes.
    for line in ("their_test()", "print(caught(our_test))"):
        assert f"\nwith installed(WRONG):\n    {line}\n" in exhibit.text
    assert message in exhibit.output.replace(shown, "")
    made["their_test"]()
    made["our_test"]()
    assert max(map(len, exhibit.output.splitlines())) <= 110


def test_numbers_in_the_prose_are_of_the_report_or_computed(exhibit):
    known = set(NUMBER.findall(exhibit.code + exhibit.output))
    for prose, _ in exhibit.cells[2:]:
        text = re.sub(r"``.*?``|:doc:`.*?`|[Ll]essons? \d\d", "~", prose, flags=re.DOTALL)
        assert set(NUMBER.findall(text)) <= known


@pytest.mark.parametrize("mutant", [*KERNEL_MUTANTS, BoundaryOffByOne], ids=str)
def test_a_difference_leads_from_the_right_code_to_the_wrong(mutant):
    if isinstance(mutant, type):
        right = "".join(inspect.getsource(right) for right in (BlockAllocator, PoolQueries))
        wrong = inspect.getsource(mutant)
    else:
        right, wrong = (
            inspect.getsource(import_module(f"paged_numba.kernels.{mutant.module}")),
            changed_source(mutant),
        )
    shown = Difference.of(mutant)
    marks = [mark for mark, _ in shown.lines]
    assert {"-", "+"} <= set(marks) <= {"-", "+", " ", "..."}
    for mark, line in shown.lines:
        assert mark != "-" or line.strip() in right
        assert mark != "+" or line.strip() in wrong
    assert len(marks) < 30
    page = shown._repr_html_()
    assert page.count('class="gone"') == marks.count("-")
    assert page.count('class="new"') == marks.count("+")
    text = html.unescape(
        re.sub(r"<[^>]+>", "", page[page.index("<pre") : page.index("</pre>")].replace("</span>", "\n"))
    )
    assert [line.rstrip() for line in text.splitlines()] == str(shown).splitlines()[1:]


def test_a_test_that_passes_on_the_wrong_code_is_an_error():
    with pytest.raises(AssertionError, match="passes on the wrong code"):
        caught(lambda: None)


def test_only_what_has_mutants_can_be_replaced():
    with (
        pytest.raises(TypeError, match=r"derived from one of BlockAllocator, .*, got mutant=int"),
        installed(int),
    ):
        pass

"""The built site as files: links, downloads, text alternatives, and what stands on each kind of page."""

import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from site_folder import EXHIBITS, LESSONS, PAGES, ROOT, SITE, needs_site

pytestmark = needs_site


class Page(HTMLParser):
    """Collects what a page refers to, the ids in it, and its pictures.

    Attributes
    ----------
    links, loaded : list of str
        Where a reader can go, and what the browser loads by itself.
    ids : set of str
    silent : list of str
        Pictures that have no text alternative.
    """

    def __init__(self, name):
        super().__init__()
        self.links, self.loaded, self.ids, self.silent = [], [], set(), []
        self.feed((SITE / name).read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.append(found["href"])
        elif "src" in found:
            self.loaded.append(found["src"])
        picture = tag == "img" or (tag == "svg" and "pn" in (found.get("class") or "").split())
        if picture and found.get("alt", found.get("aria-label")) is None:
            self.silent.append(f"{tag} {found.get('src', '')}")


READ = {name: Page(name) for name in PAGES}


def outside(target):
    return bool(urlsplit(target).scheme) or target.startswith("//")


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files_and_anchors_that_exist(name):
    missing = []
    for target in (*READ[name].links, *READ[name].loaded):
        if outside(target) or target == "#":
            continue
        parts = urlsplit(target)
        file = (SITE / name).parent / unquote(parts.path) if parts.path else SITE / name
        file = file.resolve()
        if not file.is_file():
            missing.append(target)
        elif parts.fragment and file.suffix == ".html":
            other = READ.get(file.relative_to(SITE.resolve()).as_posix())
            if other is not None and unquote(parts.fragment) not in other.ids:
                missing.append(target)
    assert missing == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_nothing_from_elsewhere_and_no_picture_is_silent(name):
    assert [
        target for target in READ[name].loaded if outside(target) and not target.startswith("data:")
    ] == []
    assert READ[name].silent == []


def test_a_missing_file_and_a_silent_picture_would_be_noticed():
    page = Page.__new__(Page)
    HTMLParser.__init__(page)
    page.links, page.loaded, page.ids, page.silent = [], [], set(), []
    page.feed('<a href="x.html#y"><img src="z.svg"></a><script src="https://elsewhere/s.js"></script>')
    assert (page.links, page.silent) == (["x.html#y"], ["img z.svg"])
    assert [target for target in page.loaded if outside(target)] == ["https://elsewhere/s.js"]


def test_every_lesson_and_every_page_of_docs_is_there():
    for folder, names, scripts in ("lessons", LESSONS, "tutorials"), ("museum", EXHIBITS, "tutorials/museum"):
        stems = {path.stem for path in (ROOT / scripts).glob("*.py")}
        assert {name.removeprefix(f"{folder}/").removesuffix(".html") for name in names} == stems
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} <= {
        name.removesuffix(".html") for name in PAGES
    }


@pytest.mark.parametrize("name", [*LESSONS, *EXHIBITS])
def test_a_lesson_has_pictures_running_time_and_downloads_and_says_nothing_of_files(name):
    text = (SITE / name).read_text(encoding="utf-8")
    assert "<figure" in text
    assert "Total running time of the script" in text
    assert "Saved as" not in text
    downloads = [target for target in READ[name].links if "_downloads/" in target]
    assert {target.rpartition(".")[2] for target in downloads} >= {"ipynb", "py"}


@pytest.mark.parametrize("name", LESSONS)
def test_answers_are_folded(name):
    folds = re.findall(r"<details[^>]*>", (SITE / name).read_text(encoding="utf-8"))
    assert not any(re.search(r"\sopen\b", fold) for fold in folds)
    assert folds or not name[len("lessons/")].isdigit()  # the worked examples ask nothing


@pytest.mark.parametrize("name", [*LESSONS, *EXHIBITS])
def test_a_notebook_has_no_markup_of_another_language(name):
    (target,) = (target for target in READ[name].links if target.endswith(".ipynb"))
    notebook = json.loads(((SITE / name).parent / target).read_text(encoding="utf-8"))
    prose = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    assert prose
    for text in prose:
        assert not re.search(r"^\s*\.\. |:\w+:`|``", text, re.M), text
        assert text.count("<details>") == text.count("</details>") == text.count("<summary>")


def test_the_build_leaves_nothing_among_the_lessons():
    for folder in ("tutorials", "tutorials/museum"):
        assert {path.suffix for path in (ROOT / folder).iterdir() if path.is_file()} <= {".py", ".rst"}


def test_the_museum_lists_every_exhibit_with_its_report():
    links = READ["museum/index.html"].links
    assert {name.removeprefix("museum/") for name in EXHIBITS} <= set(links)
    assert len({link for link in links if re.search(r"/(issues|pull)/\d+$", link)}) >= len(EXHIBITS) // 2


def test_lessons_and_the_api_link_to_each_other():
    assert "../api/paged_numba.BlockAllocator.html#paged_numba.BlockAllocator" in READ[LESSONS[0]].links
    assert f"../{LESSONS[0]}" in READ["api/paged_numba.BlockAllocator.html"].links


def test_names_in_prose_link_to_the_api_but_words_do_not():
    def links(page, prefix="api/paged_numba."):
        found = {target.partition("#")[2] for target in READ[page].links if target.startswith(prefix)}
        return found - {""}  # without the bars' links to whole pages

    assert {"paged_numba.write_kv", "paged_numba.reference.attention"} <= links("operations.html")
    assert {"paged_numba.kernels.write_kv_kernel", "paged_numba.kernels.attention_tile_kernel_for"} <= links(
        "kernels.html"
    )
    assert links("conventions.html") == set()  # names of arguments


def test_constants_have_their_own_descriptions():
    assert "algorithm" in (SITE / "api" / "paged_numba.ops.ALGORITHMS.html").read_text(encoding="utf-8")
    assert "Built-in" not in (SITE / "api.html").read_text(encoding="utf-8")


def test_formulas_need_no_script():
    assert not any("mathjax" in target.lower() for page in READ.values() for target in page.loaded)
    # What a script would have to draw: sphinx.ext.mathjax and its kin leave TeX in such elements.
    assert not any('class="math ' in (SITE / name).read_text(encoding="utf-8") for name in PAGES)

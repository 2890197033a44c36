"""Sphinx configuration. The lessons run during the build, and the pages need no network."""

import os
import shutil
import sys
from pathlib import Path

# Before anything imports Numba or matplotlib: the pages are the same on a machine with a GPU or a screen.
os.environ["PAGED_NUMBA_TARGET"] = "lockstep"
os.environ["MPLBACKEND"] = "agg"

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]

for generated in ("api", "exercises", "gen_backreferences", "lessons", "museum"):
    # By an earlier build, which may have known names and lessons that are gone.
    shutil.rmtree(DOCS / generated, ignore_errors=True)

from hypothesis import HealthCheck, settings
from lessons import keep_thumbnails

import paged_numba
from paged_numba.draw.picture import Picture

# A lesson's `picture.show("name.svg")` prints and saves nothing: the page shows the picture.
Picture.inline = True
# The same examples at each build, however busy the machine is.
settings.register_profile(
    "site",
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("site")

project = "paged_numba"
author = "The paged_numba developers"
copyright = "the paged_numba developers, Apache-2.0"  # noqa: A001 (the name that Sphinx reads)
version = release = paged_numba.__version__
language = "en"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
    # From docs/_ext.
    "exercises",
    "kernel_player",
    "lessons",
    "mathml",
    "museum",
    "names",
    "notebooks",
    "play",
    "pool_animation",
]
exclude_patterns = ["_build", "_ext", "_templates", "images", "gen_backreferences"]
templates_path = ["_templates"]
nitpicky = True
suppress_warnings = [
    "config.cache",  # sphinx_gallery_conf holds a function
    "sphinx_gallery.duplicate_filename",  # the museum lies in the folder of the lessons, and is found twice
]
default_role = "name"  # docs/_ext/names.py
highlight_language = "none"  # what is not said to be Python is a picture or output
toc_object_entries_show_parents = "hide"  # the bar has no room for the name of a class before each method

# Markdown. The anchors of headings are those of GitHub, where the pages are read as well.
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

# The API. Docstrings say types in words, so annotations need no links into other projects.
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_validation_checks = {
    "all",  # but for these:
    "ES01",  # a docstring whose first sentence says all ends there
    "EX01",  # tests/test_doctests.py says which names need an example
    "SA01",  # and which need neighbours
    "RT01",  # "Return the number of ..." says what is returned
    "PR08",  # descriptions may begin with a dtype
}
numpydoc_validation_exclude = {
    r"\.(ALGORITHMS|GPUS|inline|title)$",  # variables
    r"\.GPU$",  # its fields are described as attributes
    r"\.kernels\.",  # the first comment of a kernel has the shapes and dtypes
    r"\.cuda\.(DeviceArray|Device|Event|Kernel|Stream)\b",  # the methods are Numba's
    # Made by the package for its users, who read their attributes.
    r"\.(Allocation|AllocatorStats|BatchAllocation|Checkpoint|Choice|Completion|Counters|Finding|Findings?\.add\w*)$",
    r"\.(Known|OutOfBlocksError|Output|Plan|Recording|Report|Result|StepPlan|Timing|Tokenizer|Verdict)$",
    r"\.draw\.(BlockTables|Mask|TokenPath|Tree|WarpAccess)$",
}
bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

sphinx_gallery_conf = {
    "examples_dirs": ["../tutorials", "../tutorials/museum"],
    "gallery_dirs": ["lessons", "museum"],
    "copyfile_regex": r"index\.rst",  # the museum's; with an index of its own it is no part of the lessons
    "filename_pattern": r"\.py$",  # the default runs plot_* only, and shows the others without output
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "run_stale_examples": True,  # the cache compares scripts; a change of the package would not run them again
    "capture_repr": ("_repr_html_",),  # without __repr__: a last expression that is no picture prints nothing
    "image_scrapers": (keep_thumbnails,),
    "reset_modules": (),
    "min_reported_time": 0,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    "download_all_examples": False,
    # Links from the code of lessons to the API, and (directive `lessons-that-use`) back.
    "doc_module": ("paged_numba",),
    "reference_url": {"paged_numba": None},
    "backreferences_dir": "gen_backreferences",
    "inspect_global_variables": True,
}

html_theme = "pydata_sphinx_theme"
html_title = "paged_numba"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"  # without one, a browser asks for favicon.ico, which is not there
html_copy_source = html_show_sourcelink = False
html_show_sphinx = False
html_math_renderer = "mathml"
# Code of 110 columns needs the room of the left bar; the path above the title and the links below remain.
html_sidebars = {
    "index": [],
    "exercises/*": [],
    "lessons/*": [],
    "museum/*": [],
    "play/*": [],
    "api/paged_numba.kernels.*": [],
    "search": [],
}
html_theme_options = {
    "logo": {"text": "paged_numba"},
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 7,  # all of them
    "show_prev_next": True,
    # Few headings, and a column that is in the same place on each page.
    "secondary_sidebar_items": {
        "**": ["page-toc"],
        "index": [],
        **{f"lessons/{path.stem}": [] for path in (DOCS.parent / "tutorials").glob("*.py")},
        **{f"museum/{path.stem}": [] for path in (DOCS.parent / "tutorials" / "museum").glob("*.py")},
        **{f"play/{path.stem}": [] for path in (DOCS / "play").glob("*.md")},
    },
    "show_toc_level": 2,
    "pygments_light_style": "a11y-light",
    "pygments_dark_style": "github-dark",
    "footer_start": ["copyright"],
    "footer_end": [],
}

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"

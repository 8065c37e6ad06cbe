"""The documentation site: ``python -m sphinx -W docs build/site``. Everything it needs is in the page's own folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
import made
from sphinx.application import Sphinx

project = "cosearch"
author = "the cosearch authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["figures", "evidence/figures"]
html_theme = "furo"
html_title = "cosearch"
html_copy_source = False
html_show_sphinx = False
html_show_search_summary = False  # it would fetch pages, which a browser refuses to a site read from a folder
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["static"]
html_css_files = ["wide_tables.css"]
pygments_style, pygments_dark_style = "friendly", "github-dark"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "undoc-members": False}
autodoc_preserve_defaults = True
suppress_warnings = ["misc.highlighting_failure"]  # a JSON file of the examples begins with its name as a comment


def fill_page(app: Sphinx, name: str, source: list[str]) -> None:
    """The parts of a page that are made from the code and from the saved results."""
    source[0] = made.fill(source[0])


def as_markup(app: Sphinx, what: str, name: str, found: object, options: object, lines: list[str]) -> None:
    """A module's docstring as reStructuredText: its indented equations and drawings are kept as they stand."""
    if what == "module":
        lines[:] = made.with_literal_blocks(lines)


def setup(app: Sphinx) -> None:
    """Write the pages of the methods, and connect both."""
    made.write_methods()
    app.connect("source-read", fill_page)
    app.connect("autodoc-process-docstring", as_markup)

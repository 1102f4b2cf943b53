"""The documentation site: README.md, docs/, benchmarks/ and pages that are made from the code. `make docs` builds it.

The source folder is the repository, so that the links that people follow on GitHub are those of the site too. Before
Sphinx reads any page, `scripts/site_models.py` and `scripts/site_reference.py` write those of models and interfaces.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from importlib.metadata import version as version_of
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from scripts.site_models import EXPLORERS, write_model_pages  # noqa: E402  # the line above finds it
from scripts.site_reference import write_reference_pages  # noqa: E402

DOCS = ROOT / "docs"
REPOSITORY = os.environ.get("VAEZOO_REPOSITORY", "")  # where links to source files lead; empty: to copies in the site

project = "vaezoo"
project_copyright = "the authors of vaezoo"
version = release = version_of("vaezoo")
root_doc = "README"
smartquotes = False  # they would make one dash of the two in --out
include_patterns = ["*.md", "docs/**", "benchmarks/*.md", "runtime/README.md", "examples/*.ipynb"]
exclude_patterns = [".*", "build", "dist", "runs", "exports", "web", "vaezoo", "cli", "tests", "**/node_modules"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]

html_theme = "furo"
html_title = "vaezoo"
html_copy_source = False
html_show_sphinx = False
html_math_renderer = "mathml"
html_static_path = ["site.css"]
html_css_files = ["site.css"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # as GitHub makes them

# An output is taken from the cache while its notebook stays the same. `make clean` empties the cache.
nb_execution_mode = os.environ.get("VAEZOO_EXECUTE", "cache")
nb_execution_cache_path = str(ROOT / "build" / "jupyter-cache")
nb_execution_in_temp = True
nb_execution_timeout = 120  # seconds for each cell
nb_execution_raise_on_error = True
nb_ipywidgets_js: dict[str, object] = {}  # they would come from another host

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88

# The pages below each heading of the side bar.
CONTENTS = {
    "Start": ["docs/first-vae", "docs/README", "docs/gallery"],
    "Tutorials": ["docs/tutorials/*", "examples/*"],
    "Models": ["docs/models/index", "docs/models", "docs/pretrained", "docs/other-zoos"],
    "Guides": [
        *(
            "docs/data",
            "docs/tables",
            "docs/counts",
            "docs/text",
            "docs/series",
            "docs/sound",
            "docs/anomalies",
            "docs/training",
        ),
        *("docs/evaluation", "docs/explore", "docs/import", "docs/export", "docs/deployment", "docs/plugins"),
    ],
    "Reference": ["docs/reference/index", "docs/reference/command-line", "runtime/README", "docs/guarantees"],
    "Benchmarks": ["docs/benchmarks", "benchmarks/README", "benchmarks/GPU"],
    "Project": ["docs/architecture", "docs/fault-injection", "CONTRIBUTING", "SECURITY", "CHANGELOG"],
}


def contents() -> str:
    """Returns the side bar as MyST. It is no part of README.md, because GitHub would show it."""
    blocks = []
    for caption, pages in CONTENTS.items():
        found = [page for page in pages if any(ROOT.glob(f"{page}.*"))]
        blocks.append("\n".join(["```{toctree}", ":hidden:", ":glob:", f":caption: {caption}", "", *found, "```"]))
    return "\n\n".join(blocks)


def prepare_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Adds the side bar to the first page, and turns links to files that are no pages."""
    folder = Path(app.env.doc2path(docname)).parent
    text = re.sub(r"\]\(([^)\s#]+)\)", lambda link: f"]({target_of(app, folder, link[1])})", source[0])
    source[0] = f"{text}\n\n{contents()}\n" if docname == root_doc else text


def target_of(app: Sphinx, folder: Path, target: str) -> str:
    """Returns the target of a link on the site. Without a repository, a folder is given by its first file."""
    path = (folder / target).resolve()
    if "://" in target or not path.exists() or app.env.path2doc(str(path)) in app.env.found_docs:
        return target
    if REPOSITORY and path.suffix not in (".png", ".gif"):
        return f"{REPOSITORY}/{path.relative_to(ROOT).as_posix()}"
    return f"{target.rstrip('/')}/{min(f.name for f in path.iterdir() if f.is_file())}" if path.is_dir() else target


def write_pages(app: Sphinx) -> None:
    """Writes the pages that are made from the code."""
    write_model_pages(DOCS / "models")
    write_reference_pages(DOCS / "reference")


def finish(app: Sphinx, error: Exception | None) -> None:
    """Makes README.html the page of the site's address, and copies the explorers into the site."""
    if error is None and app.builder.name == "html":
        out = Path(app.outdir)
        shutil.copy(out / "README.html", out / "index.html")
        if EXPLORERS.exists():
            shutil.copytree(EXPLORERS, out / "explorers", dirs_exist_ok=True)


def mark_up(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Makes reStructuredText of a docstring, in which only backticks are markup."""
    name_only = re.compile(r"[A-Za-z][\w.]*")
    parts = re.split(r"`+([^`]+)`+", "\n".join(lines))
    parts[::2] = map(escaped, parts[::2])
    parts[1::2] = [f":py:obj:`{code}`" if name_only.fullmatch(code) else f"``{code}``" for code in parts[1::2]]
    lines[:] = "".join(parts).split("\n")


def skips(app: Sphinx, what: str, name: str, value: object, skip: bool, options: object) -> bool | None:
    """Leaves out the fields of a NamedTuple, which the docstring of the class describes."""
    return True if str(getattr(value, "__doc__", "")).startswith("Alias for field number") else None


def mark_up_help(app: Sphinx, context: object, lines: list[str]) -> None:
    """Makes reStructuredText of a command's help. Lines that click leaves as they are begin with a bar."""
    marked = []
    for line, before in zip(lines, ["", *lines], strict=False):
        if not line.startswith("| "):
            marked.append(escaped(line))
            continue
        marked += [] if before.startswith("| ") else ["::", ""]
        marked.append(f"    {line[2:]}")
    lines[:] = marked


def mark_up_options(app: Sphinx, context: object, lines: list[str]) -> None:
    """The same for the help of options. What is not indented, or begins with a colon, comes from sphinx-click."""
    for number, line in enumerate(lines):
        if line.startswith(" ") and line.lstrip()[:1] not in ":|":
            lines[number] = escaped(line).replace(r"\*\*Required\*\*", "**Required**")


def escaped(text: str) -> str:
    """Returns text in which nothing is markup of reStructuredText but backticks."""
    return re.sub(r"([\\*|]|_(?=\W|$))", r"\\\1", text)


def show_math(translator: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    """Writes a formula as MathML, which browsers show without a script. A command that is unknown is a warning."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    formula = convert(node.astext(), display=display)
    if "\\" in formula:
        logging.getLogger(__name__).warning("latex2mathml knows not all of %s", node.astext(), location=node)
    translator.body.append(f'<div class="formula">{formula}</div>' if display == "block" else formula)
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Connects what is above to Sphinx."""
    app.add_html_math_renderer("mathml", inline_renderers=(show_math, None), block_renderers=(show_math, None))
    app.connect("builder-inited", write_pages)
    app.connect("source-read", prepare_page)
    app.connect("build-finished", finish)
    app.connect("autodoc-process-docstring", mark_up, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skips)
    app.connect("sphinx-click-process-description", mark_up_help)
    app.connect("sphinx-click-process-options", mark_up_options)

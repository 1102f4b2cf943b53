"""The pages of the Python interface and of the command line on the site. `make docs` writes them to docs/reference/."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path

import vaezoo
from scripts.site_models import write

# Page -> title and the packages of vaezoo whose public names it holds.
PAGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "models": ("Models", ("registry", "spec", "vae", "gaussian_vae", "composition", "nn")),
    "data": ("Data", ("data", "examples")),
    "training": ("Training", ("training", "recipes", "pretrained")),
    "evaluation": ("Evaluation and outputs", ("evaluation",)),
    "export": ("Export and import", ("export", "interop")),
    "objectives": ("Objectives", ("objectives",)),
    "distributions": ("Posteriors, priors and likelihoods", ("posteriors", "priors", "likelihoods")),
    "helpers": ("Errors and helpers", ("errors", "core")),
}
# Modules with public names of their own.
MODULES = {"runtime": ("Runtime without torch", "vaezoo.runtime"), "testing": ("Conformance suite", "vaezoo.testing")}


def write_reference_pages(folder: Path) -> None:
    """Writes the pages, and the one that lists them."""
    folder.mkdir(exist_ok=True)
    pages = {name: page(title, public_names(packages)) for name, (title, packages) in PAGES.items()}
    pages |= {name: page(title, names_of(module)) for name, (title, module) in MODULES.items()}
    toctree = "\n".join(["```{toctree}", *pages, "```"])
    pages["index"] = f"# Python\n\nAll public names, with their signatures.\n\n{toctree}\n"
    pages["command-line"] = (
        f"# Command line\n\n{rst('.. click:: vaezoo_cli.main:vaezoo', 'prog: vaezoo', 'nested: full')}"
    )
    for name, text in pages.items():
        write(folder / f"{name}.md", text)


def public_names(packages: tuple[str, ...]) -> list[str]:
    """Returns the public names that some packages of vaezoo define."""
    return [f"vaezoo.{name}" for name in vaezoo.__all__ if package_of(name) in packages]


def package_of(name: str) -> str:
    """Returns the package or module below vaezoo that defines a public name. A constant is where its type is."""
    value = getattr(vaezoo, name)
    module = value.__name__ if inspect.ismodule(value) else value.__module__
    return module.split(".")[1]


def names_of(module: str) -> list[str]:
    """Returns the public names of a module."""
    return [f"{module}.{name}" for name in importlib.import_module(module).__all__]


def page(title: str, names: Iterable[str]) -> str:
    """Returns a page with the documentation of names."""
    return f"# {title}\n\n" + "\n\n".join(map(documented, names)) + "\n"


def documented(name: str) -> str:
    """Returns the directive that shows the docstring of a name."""
    value = getattr(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2])
    if inspect.ismodule(value):
        return rst(f".. automodule:: {value.__name__}", "members:")
    if inspect.isclass(value):
        derived = value.__bases__ not in ((object,), (tuple,))
        return rst(f".. autoclass:: {name}", "members:", *(["show-inheritance:"] if derived else []))
    return rst(f".. auto{'function' if callable(value) else 'data'}:: {name}")


def rst(directive: str, *options: str) -> str:
    """Returns a directive of reStructuredText within Markdown."""
    return "\n".join(["```{eval-rst}", directive, *(f"   :{option}" for option in options), "```"])

"""Optional dependencies: how to install the packages of an extra."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from vaezoo.errors import VaezooError, first_line


@contextmanager
def eval_dependencies(user: str = "this evaluation") -> Iterator[None]:
    """Wraps imports of packages of the extra `eval`.

    Args:
        user: What needs them, for the error.

    Raises:
        VaezooError: If one is missing. Its hint says how to install the extra.
    """
    try:
        yield
    except ImportError as error:
        raise VaezooError(
            f"{user} needs a package that is missing: {first_line(error)}", install_hint("eval")
        ) from error


@contextmanager
def table_dependencies(user: str) -> Iterator[None]:
    """Wraps imports of packages of the extra `tables`, as `eval_dependencies` does."""
    try:
        yield
    except ImportError as error:
        raise VaezooError(
            f"{user} need a package that is missing: {first_line(error)}", install_hint("tables")
        ) from error


@contextmanager
def plot_dependencies() -> Iterator[None]:
    """Wraps imports of packages of the extra `plot`, as `eval_dependencies` does."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise VaezooError(f"this plot needs {error.name}, which is not installed", install_hint("plot")) from error


def install_hint(extra: str) -> str:
    """Returns how to install an extra from where this package came from.

    From a local folder pip installs it with the package. Otherwise the hint lists the extra's packages.
    """
    try:
        distribution = Distribution.from_name("vaezoo")
    except PackageNotFoundError:
        return f"install the packages of the extra '{extra}', listed in pyproject.toml"
    source = json.loads(distribution.read_text("direct_url.json") or "{}")
    url = urlsplit(source.get("url", ""))
    folder = url2pathname(url.path)
    if "dir_info" in source and Path(folder).is_dir():
        editable = "-e " if source["dir_info"].get("editable") else ""
        return f'pip install {editable}"{folder}[{extra}]"'
    packages = ", ".join(_packages(distribution, extra))
    return f"install the packages of the extra '{extra}': {packages}"


def _packages(distribution: Distribution, extra: str) -> list[str]:
    """Returns the requirements of an extra, such as `["scikit-learn", "torchmetrics"]`."""
    marker = re.compile(rf"\bextra\s*==\s*['\"]{re.escape(extra)}['\"]")
    requirements = (text.partition(";") for text in distribution.requires or ())
    return [requirement.strip() for requirement, _, markers in requirements if marker.search(markers)]

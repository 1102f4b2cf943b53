"""The registry of models: built-in and third-party models, found through the entry points of installed packages.

Package metadata name the models. A model's package is imported when the model is used, so a broken package only stops
commands that use it. The order of packages does not matter. The environment variable VAEZOO_PLUGINS limits the packages
to those that it names, separated by commas. This module imports torch only to build a model.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from vaezoo.core.options import configure
from vaezoo.errors import PluginError, VaezooError, VaezooWarning, format_error, safe_repr, suggest

if TYPE_CHECKING:
    from vaezoo.data.base import Dataset, DataSpec
    from vaezoo.objectives.base import Objective
    from vaezoo.spec import ModelSpec
    from vaezoo.vae import VAE

GROUP = "vaezoo.models"
PACKAGE = "vaezoo"
PLUGINS_ENV = "VAEZOO_PLUGINS"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
DISTRIBUTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
VERSION = re.compile(r"[A-Za-z0-9.!+_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Registration:
    """A model as its package's metadata announce it.

    Attributes:
        name: Name of the model.
        distribution: Name of the package.
        version: Version of the package.
        entry_point: Location of the ModelSpec.
        summary: Summary of the package.
    """

    name: str
    distribution: str
    version: str
    entry_point: EntryPoint
    summary: str = ""

    @property
    def full_name(self) -> str:
        """`distribution/name`, which is unique even if two packages have a model of the same name."""
        return f"{self.distribution}/{self.name}"

    @property
    def built_in(self) -> bool:
        """Whether the model is part of vaezoo."""
        return self.distribution == PACKAGE

    @property
    def allowed(self) -> bool:
        """Whether the names can be shown, typed and used in paths."""
        return bool(NAME.fullmatch(self.name) and DISTRIBUTION.fullmatch(self.distribution))

    def describe(self) -> tuple[str, str]:
        """Returns the summary and the reference of the model, without importing its package.

        For a built-in model they are those of its ModelSpec. For others they are the package's summary and "".
        """
        texts = _read_texts(self.entry_point) if self.built_in else {}
        return texts.get("summary", self.summary), texts.get("reference", "")

    def load(self) -> ModelSpec[object]:
        """Imports the package and returns its ModelSpec.

        Raises:
            PluginError: If the import fails in any way, or the entry point does not name a ModelSpec.
        """
        from vaezoo.spec import ModelSpec

        if not self.allowed:
            raise PluginError(f"{self} has a name that is not allowed", "use a-z, 0-9, '.', '_' and '-', at most 64")
        with contextlib.redirect_stdout(sys.stderr), record_interrupts() as interrupts:  # stdout is for our data
            try:
                spec = self.entry_point.load()
            except BaseException as e:  # third-party code may raise anything, even KeyboardInterrupt
                if interrupts:
                    raise KeyboardInterrupt from None
                raise self.failure("imported", e, f"fix, update or uninstall {self.distribution}") from e
        if not isinstance(spec, ModelSpec):
            raise PluginError(
                f"{self} is of type {type(spec).__name__}, not a ModelSpec", f"update {self.distribution}"
            )
        return spec

    def build(self, options: Mapping[str, object], data: DataSpec) -> tuple[object, VAE, Objective]:
        """Imports the package and builds the model's config, network and objective.

        Raises:
            VaezooError: If an option does not exist, or its value is not of its type.
            UnsupportedDataError: If the model does not support such data.
            PluginError: If the model's code fails, or does not return a VAE and an Objective.
        """
        from vaezoo.objectives.base import Objective
        from vaezoo.vae import VAE

        spec = self.load()
        try:
            with contextlib.redirect_stdout(sys.stderr):
                config = configure(spec.config, options)
                vae, objective = spec.build(config, data), spec.objective(config, data)
            for result, expected in ((vae, VAE), (objective, Objective)):
                if not isinstance(result, expected):
                    raise TypeError(f"it returns a {type(result).__name__} instead of a {expected.__name__}")
        except VaezooError:
            raise
        except Exception as e:  # third-party code may raise anything
            raise self.failure("built", e) from e
        return config, vae, objective

    def failure(self, action: str, error: BaseException, hint: str = "") -> PluginError:
        """Returns the error that the model cannot be imported, built or trained, with the reason."""
        return PluginError(
            f"{self} cannot be {action}: {format_error(error)}",
            hint or f"check the options; 'vaezoo check {self.full_name}' says more",
        )

    def __str__(self) -> str:
        return f"model '{safe_repr(self.name)}' of {safe_repr(self.distribution)} {self.version}"


def list_models() -> list[Registration]:
    """Returns all registered models, sorted by name, without importing any.

    It leaves out packages with unreadable metadata and models whose names are not allowed, with one VaezooWarning for
    each package. A name in VAEZOO_PLUGINS that no installed package has is also a VaezooWarning.
    """
    registered, problems = _registered()
    refused = {r.distribution: f"{r} is left out: its name is not allowed" for r in registered if not r.allowed}
    for message in (*problems, *refused.values()):
        warnings.warn(message, VaezooWarning, stacklevel=2)
    return [r for r in registered if r.allowed]


def find_model(name: str) -> Registration:
    """Returns the registration of a model.

    Args:
        name: Its name, or `distribution/name`. The name of a built-in model always means the built-in model.

    Raises:
        VaezooError: If no model has that name.
        PluginError: If two packages have a model of that name.
    """
    registered, _ = _registered()
    matches = [r for r in registered if name in (r.name, r.full_name)]
    if not matches:
        package = name.rpartition("/")[0]
        otherwise = f"install the package {package}" if package else "'vaezoo list' shows the models"
        hint = suggest(name, [r.name for r in registered if r.allowed], otherwise)
        if PLUGINS_ENV in os.environ:
            hint += f"; {PLUGINS_ENV} leaves out the packages that it does not name"
        raise VaezooError(f"no model named '{safe_repr(name)}'", hint)
    if len(matches) > 1 and not matches[0].built_in:
        candidates = ", ".join(r.full_name for r in matches)
        raise PluginError(f"two packages have a model named '{name}': {candidates}", "give one of the full names")
    return matches[0]


def get_model(name: str) -> ModelSpec[object]:
    """Returns the ModelSpec of a model. Raises the errors of `find_model` and `Registration.load`."""
    return find_model(name).load()


def create_model(name: str, data: DataSpec | Dataset, options: Mapping[str, object] | None = None) -> VAE:
    """Builds an untrained model.

    Args:
        name: A registered model.
        data: The data set to build it for, or its spec.
        options: Option -> value, for options that differ from the default.

    Raises:
        VaezooError: If there is no such model or option, or a value is not of its type.
        UnsupportedDataError: If the model does not support such data.
    """
    from vaezoo.data.base import Dataset

    _, vae, _ = find_model(name).build(options or {}, data.spec if isinstance(data, Dataset) else data)
    return vae


@contextlib.contextmanager
def record_interrupts() -> Iterator[list[int]]:
    """Yields a list that gets an item when the user interrupts the block.

    If it stays empty, a KeyboardInterrupt came from the code in the block.
    """
    interrupts: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield interrupts  # no interrupt can arrive here
        return

    def record(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, record)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


def _registered() -> tuple[list[Registration], list[str]]:
    """Returns the registrations of the packages that VAEZOO_PLUGINS allows, sorted, and messages about problems.

    If two packages have the same name, the first one on the path counts.
    """
    text = os.environ.get(PLUGINS_ENV)
    chosen = None if text is None else {_normal(name) for name in (PACKAGE, *text.split(","))}
    by_package: dict[str, list[Registration]] = {}
    problems = []
    for distribution in distributions():
        try:
            registrations = _registrations_of(distribution)
        except Exception as e:  # third-party metadata may be malformed in any way
            if chosen is None:
                problems.append(f"a package in {distribution.locate_file('')} is left out: {format_error(e)}")
            continue
        name = _normal(registrations[0].distribution) if registrations else ""
        if registrations and (chosen is None or name in chosen):
            by_package.setdefault(name, registrations)
    for name in sorted((chosen or set()) - {"", PACKAGE, *by_package}):
        problems.append(f"{PLUGINS_ENV} names '{safe_repr(name)}', but no installed package with models has that name")
    registered = [registration for registrations in by_package.values() for registration in registrations]
    return sorted(registered, key=lambda r: (r.name, not r.built_in, r.distribution)), problems


def _registrations_of(distribution: Distribution) -> list[Registration]:
    """Returns the models of one package."""
    entry_points = [ep for ep in distribution.entry_points if ep.group == GROUP]
    if not entry_points:  # true of most packages, whose metadata need not be read
        return []
    metadata = distribution.metadata
    name, version, summary = (metadata[field] or "" for field in ("Name", "Version", "Summary"))
    version = version if VERSION.fullmatch(version) else "?"
    return [Registration(ep.name, name, version, ep, safe_repr(summary)) for ep in entry_points]


def _read_texts(entry_point: EntryPoint) -> dict[str, str]:
    """Reads the keyword arguments of a built-in's ModelSpec that are strings, from the source file.

    Importing the module would import torch, which takes seconds.
    """
    source = Path(__file__).parents[1].joinpath(*entry_point.module.split(".")).with_suffix(".py")
    texts = {}
    for node in ast.parse(source.read_text("utf-8")).body if source.is_file() else ():
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == entry_point.attr:
            for keyword in node.value.keywords if isinstance(node.value, ast.Call) else ():
                if keyword.arg and isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str):
                    texts[keyword.arg] = keyword.value.value
    return texts


def _normal(name: str) -> str:
    """Returns the normalised form of a package's name, in which all its spellings are equal."""
    return re.sub(r"[-_.]+", "-", name).strip().lower()

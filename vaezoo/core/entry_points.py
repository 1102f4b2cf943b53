"""Entry points of installed packages: how models and parts of models are found, built-in and third-party ones alike.

Package metadata name them. A package is imported when something of it is used, so a broken package only stops commands
that use it. The order of packages does not matter. The environment variable VAEZOO_PLUGINS limits the packages to those
that it names, separated by commas.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions
from types import FrameType
from typing import TypeVar

from vaezoo.errors import PluginError, VaezooError, format_error, safe_repr, suggest

PACKAGE = "vaezoo"
PLUGINS_ENV = "VAEZOO_PLUGINS"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
DISTRIBUTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
VERSION = re.compile(r"[A-Za-z0-9.!+_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Plugin:
    """What a package's metadata announce: a model, or a part of one.

    Attributes:
        name: Its name.
        distribution: Name of the package.
        version: Version of the package.
        entry_point: Location of the object.
        summary: Summary of the package.
    """

    name: str
    distribution: str
    version: str
    entry_point: EntryPoint
    summary: str = ""

    @property
    def full_name(self) -> str:
        """`distribution/name`, which is unique even if two packages have something of the same name."""
        return f"{self.distribution}/{self.name}"

    @property
    def built_in(self) -> bool:
        """Whether it is part of vaezoo."""
        return self.distribution == PACKAGE

    @property
    def allowed(self) -> bool:
        """Whether the names can be shown, typed and used in paths."""
        return bool(NAME.fullmatch(self.name) and DISTRIBUTION.fullmatch(self.distribution))

    def load_object(self) -> object:
        """Imports the package and returns what the entry point names.

        Raises:
            PluginError: If the name is not allowed, or the import fails in any way.
        """
        if not self.allowed:
            raise PluginError(f"{self} has a name that is not allowed", "use a-z, 0-9, '.', '_' and '-', at most 64")
        with contextlib.redirect_stdout(sys.stderr), record_interrupts() as interrupts:  # stdout is for our data
            try:
                return self.entry_point.load()
            except BaseException as e:  # third-party code may raise anything, even KeyboardInterrupt
                if interrupts:
                    raise KeyboardInterrupt from None
                raise self.failure("imported", e, f"fix, update or uninstall {self.distribution}") from e

    def failure(self, action: str, error: BaseException, hint: str = "") -> PluginError:
        """Returns the error that this cannot be imported, built or trained, with the reason."""
        return PluginError(
            f"{self} cannot be {action}: {format_error(error)}",
            hint or f"check the options; 'vaezoo check {self.full_name}' says more",
        )

    def __str__(self) -> str:
        kind = self.entry_point.group.rpartition(".")[2].removesuffix("s")
        return f"{kind} '{safe_repr(self.name)}' of {safe_repr(self.distribution)} {self.version}"


PluginT = TypeVar("PluginT", bound=Plugin)


def find_plugins(group: str, kind: type[PluginT]) -> tuple[list[PluginT], list[str]]:
    """Returns the entry points of a group of the packages that VAEZOO_PLUGINS allows, and messages about problems.

    They are sorted by name. If two packages have the same name, the first one on the path counts.
    """
    text = os.environ.get(PLUGINS_ENV)
    chosen = None if text is None else {_normal(name) for name in (PACKAGE, *text.split(","))}
    by_package: dict[str, list[PluginT]] = {}
    problems = []
    for distribution in distributions():
        try:
            plugins = _plugins_of(distribution, group, kind)
        except Exception as e:  # third-party metadata may be malformed in any way
            if chosen is None:
                problems.append(f"a package in {distribution.locate_file('')} is left out: {format_error(e)}")
            continue
        name = _normal(plugins[0].distribution) if plugins else ""
        if plugins and (chosen is None or name in chosen):
            by_package.setdefault(name, plugins)
    for name in sorted((chosen or set()) - {"", PACKAGE, *by_package}):
        problems.append(f"{PLUGINS_ENV} names '{safe_repr(name)}', but no installed package with models has that name")
    found = [plugin for plugins in by_package.values() for plugin in plugins]
    return sorted(found, key=lambda p: (p.name, not p.built_in, p.distribution)), problems


def choose(name: str, found: list[PluginT], what: str, list_hint: str) -> PluginT:
    """Returns the plugin of a name. The name of a built-in one always means the built-in one.

    Args:
        name: Its name, or `distribution/name`.
        found: What there is.
        what: What it is, such as "model", for the error.
        list_hint: Where the names are listed.

    Raises:
        VaezooError: If there is none.
        PluginError: If two packages have one of that name.
    """
    matches = [p for p in found if name in (p.name, p.full_name)]
    if not matches:
        package = name.rpartition("/")[0]
        otherwise = f"install the package {package}" if package else list_hint
        hint = suggest(name, [p.name for p in found if p.allowed], otherwise)
        if PLUGINS_ENV in os.environ:
            hint += f"; {PLUGINS_ENV} leaves out the packages that it does not name"
        raise VaezooError(f"no {what} named '{safe_repr(name)}'", hint)
    if len(matches) > 1 and not matches[0].built_in:
        candidates = ", ".join(p.full_name for p in matches)
        raise PluginError(f"two packages have a {what} named '{name}': {candidates}", "give one of the full names")
    return matches[0]


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


def _plugins_of(distribution: Distribution, group: str, kind: type[PluginT]) -> list[PluginT]:
    """Returns what one package announces in a group."""
    entry_points = [ep for ep in distribution.entry_points if ep.group == group]
    if not entry_points:  # true of most packages, whose metadata need not be read
        return []
    metadata = distribution.metadata
    name, version, summary = (metadata[field] or "" for field in ("Name", "Version", "Summary"))
    version = version if VERSION.fullmatch(version) else "?"
    return [kind(ep.name, name, version, ep, safe_repr(summary)) for ep in entry_points]


def _normal(name: str) -> str:
    """Returns the normalised form of a package's name, in which all its spellings are equal."""
    return re.sub(r"[-_.]+", "-", name).strip().lower()

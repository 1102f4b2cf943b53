"""The models there are: built in and third-party, found through the entry points of installed packages.

Names are listed from package metadata; a model's package is imported when the model is used. A broken
package never stops a command that does not use it, and the order of packages decides nothing.
The environment variable VAEZOO_PLUGINS, names of packages separated by commas, leaves out all others.
"""

from __future__ import annotations

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
from types import FrameType

from vaezoo.data.base import Dataset, DataSpec
from vaezoo.errors import PluginError, VaezooError, VaezooWarning, format_error, safe_repr, suggest
from vaezoo.objectives.base import Objective
from vaezoo.spec import ModelSpec, configure
from vaezoo.vae import VAE

GROUP = "vaezoo.models"
PACKAGE = "vaezoo"
PLUGINS_ENV = "VAEZOO_PLUGINS"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
DISTRIBUTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
VERSION = re.compile(r"[A-Za-z0-9.!+_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Registration:
    """A model as its package's metadata announces it.

    Attributes:
        name: The model's name.
        distribution: The package that brings it, and `version`, its version.
        entry_point: Where its ModelSpec lies.
        summary: What the package says of itself.
    """

    name: str
    distribution: str
    version: str
    entry_point: EntryPoint
    summary: str = ""

    @property
    def full_name(self) -> str:
        """`distribution/name`, which is unique where the name alone is not."""
        return f"{self.distribution}/{self.name}"

    @property
    def built_in(self) -> bool:
        """Whether the model is one of ours."""
        return self.distribution == PACKAGE

    @property
    def allowed(self) -> bool:
        """Whether the names can be shown, typed and used in paths."""
        return bool(NAME.fullmatch(self.name) and DISTRIBUTION.fullmatch(self.distribution))

    def load(self) -> ModelSpec[object]:
        """Imports the package and returns its ModelSpec.

        Raises:
            PluginError: If the import fails in any way or gives something else than a ModelSpec.
        """
        if not self.allowed:
            raise PluginError(f"{self} has a name that is not allowed", "use a-z, 0-9, '.', '_' and '-', at most 64")
        with contextlib.redirect_stdout(sys.stderr), interrupts() as arrived:  # stdout is for our commands' data
            try:
                spec = self.entry_point.load()
            except BaseException as e:  # a third party's code may raise anything, and KeyboardInterrupt by itself
                if arrived:
                    raise KeyboardInterrupt from None
                raise self.failure("imported", e, f"mend, update or uninstall {self.distribution}") from e
        if not isinstance(spec, ModelSpec):
            raise PluginError(f"{self} is a {type(spec).__name__}, no ModelSpec", f"update {self.distribution}")
        return spec

    def build(self, options: Mapping[str, object], data: DataSpec) -> tuple[object, VAE, Objective]:
        """Imports the package and builds the model's config, network and objective.

        Raises:
            VaezooError: If an option does not exist or does not fit.
            UnsupportedDataError: If the model cannot take such data.
            PluginError: If the model's own code fails, or makes something else than a VAE and an Objective.
        """
        spec = self.load()
        try:
            with contextlib.redirect_stdout(sys.stderr):
                config = configure(spec.config, options)
                vae, objective = spec.build(config, data), spec.objective(config, data)
            for made, kind in ((vae, VAE), (objective, Objective)):
                if not isinstance(made, kind):
                    raise TypeError(f"it makes a {type(made).__name__} where a {kind.__name__} belongs")
        except VaezooError:
            raise
        except Exception as e:  # a third party's code may raise anything
            raise self.failure("built", e) from e
        return config, vae, objective

    def failure(self, what: str, error: BaseException, hint: str = "") -> PluginError:
        """Returns the error that says that the model cannot be imported, built or trained, and why."""
        return PluginError(
            f"{self} cannot be {what}: {format_error(error)}",
            hint or f"check the options; 'vaezoo check {self.full_name}' says more",
        )

    def __str__(self) -> str:
        return f"model '{safe_repr(self.name)}' of {safe_repr(self.distribution)} {self.version}"


def list_models() -> list[Registration]:
    """Returns all registered models, sorted by name, without importing any.

    Packages whose metadata cannot be read, and models whose names are not allowed, are left out with one VaezooWarning
    a package; a name in VAEZOO_PLUGINS that no package has gets one, too.
    """
    registered, wrong = _registered()
    refused = {r.distribution: f"{r} is left out: its name is not allowed" for r in registered if not r.allowed}
    for message in (*wrong, *refused.values()):
        warnings.warn(message, VaezooWarning, stacklevel=2)
    return [r for r in registered if r.allowed]


def find_model(name: str) -> Registration:
    """Returns the registration of a model.

    Args:
        name: Its name, or `distribution/name`. A built-in's name always means the built-in.

    Raises:
        VaezooError: If there is none of that name.
        PluginError: If two packages claim the name.
    """
    registered, _ = _registered()
    matches = [r for r in registered if name in (r.name, r.full_name)]
    if not matches:
        package = name.rpartition("/")[0]
        otherwise = f"install the package {package}" if package else "'vaezoo list' shows the models there are"
        hint = suggest(name, [r.name for r in registered if r.allowed], otherwise)
        if PLUGINS_ENV in os.environ:
            hint += f"; {PLUGINS_ENV} leaves out the packages that it does not name"
        raise VaezooError(f"no model named '{safe_repr(name)}'", hint)
    if len(matches) > 1 and not matches[0].built_in:
        claims = ", ".join(r.full_name for r in matches)
        raise PluginError(f"two packages have a model named '{name}': {claims}", "name it in full, or uninstall one")
    return matches[0]


def get_model(name: str) -> ModelSpec[object]:
    """Returns the ModelSpec of a model; for errors see `find_model` and `Registration.load`."""
    return find_model(name).load()


def create_model(name: str, data: DataSpec | Dataset, options: Mapping[str, object] | None = None) -> VAE:
    """Builds an untrained model.

    Args:
        name: A registered model.
        data: What it is made for, a data set or its spec.
        options: Option -> value, where it differs from the default.

    Raises:
        VaezooError: If there is no such model or option, or a value does not fit.
        UnsupportedDataError: If the model cannot take such data.
    """
    _, vae, _ = find_model(name).build(options or {}, data.spec if isinstance(data, Dataset) else data)
    return vae


@contextlib.contextmanager
def interrupts() -> Iterator[list[int]]:
    """Gives a list that fills when the user interrupts the block: a KeyboardInterrupt without is the code's own."""
    arrived: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield arrived  # no interrupt arrives here
        return

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield arrived
    finally:
        signal.signal(signal.SIGINT, before)


def _registered() -> tuple[list[Registration], list[str]]:
    """Returns, sorted, what packages announce that VAEZOO_PLUGINS lets in, and what is wrong with it and with others.

    Of two packages of one name the first on the path counts.
    """
    text = os.environ.get(PLUGINS_ENV)
    chosen = None if text is None else {_normal(name) for name in (PACKAGE, *text.split(","))}
    found: dict[str, list[Registration]] = {}
    wrong = []
    for distribution in distributions():
        try:
            announced = _announced(distribution)
        except Exception as e:  # metadata are a third party's, too
            if chosen is None:
                wrong.append(f"a package in {distribution.locate_file('')} is left out: {format_error(e)}")
            continue
        name = _normal(announced[0].distribution) if announced else ""
        if announced and (chosen is None or name in chosen):
            found.setdefault(name, announced)
    for name in sorted((chosen or set()) - {"", PACKAGE, *found}):
        wrong.append(f"{PLUGINS_ENV} names '{safe_repr(name)}', and no installed package with models is called so")
    registered = [registration for announced in found.values() for registration in announced]
    return sorted(registered, key=lambda r: (r.name, not r.built_in, r.distribution)), wrong


def _announced(distribution: Distribution) -> list[Registration]:
    """Returns the models of one package."""
    models = [ep for ep in distribution.entry_points if ep.group == GROUP]
    if not models:  # of most packages; their metadata need not be read
        return []
    told = distribution.metadata
    name, version, summary = (told[field] or "" for field in ("Name", "Version", "Summary"))
    version = version if VERSION.fullmatch(version) else "?"
    return [Registration(ep.name, name, version, ep, safe_repr(summary)) for ep in models]


def _normal(name: str) -> str:
    """Returns a package's name as all its spellings have it."""
    return re.sub(r"[-_.]+", "-", name).strip().lower()

"""The models there are: built in and third-party, found through the entry points of installed packages.

Names are listed from package metadata; a model's package is imported when the model is used. A broken
package never stops a command that does not use it, and the order of packages decides nothing.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from vaezoo.data.base import Dataset, DataSpec
from vaezoo.errors import PluginError, VaezooError, suggest
from vaezoo.objectives import Objective
from vaezoo.spec import ModelSpec, configure
from vaezoo.vae import VAE

GROUP = "vaezoo.models"
OURSELVES = "vaezoo"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Registration:
    """A model as its package's metadata announces it.

    Attributes:
        name: The model's name.
        distribution: The package that brings it, and `version`, its version.
        entry_point: Where its ModelSpec lies.
    """

    name: str
    distribution: str
    version: str
    entry_point: EntryPoint

    @property
    def full_name(self) -> str:
        """`distribution/name`, which is unique where the name alone is not."""
        return f"{self.distribution}/{self.name}"

    def load(self) -> ModelSpec[object]:
        """Imports the package and returns its ModelSpec.

        Raises:
            PluginError: If the import fails in any way or gives something else than a ModelSpec.
        """
        who = f"model '{self.name}' of {self.distribution} {self.version}"
        if not NAME.fullmatch(self.name):
            raise PluginError(f"{who} has a name that is not allowed", "use a-z, 0-9, '.', '_' and '-', at most 64")
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout belongs to the data of our commands
                spec = self.entry_point.load()
        except (Exception, SystemExit) as e:  # a third party's code may raise anything
            reason = f"{type(e).__name__}: {e}".splitlines()[0]
            raise PluginError(
                f"{who} cannot be imported: {reason}", f"mend, update or uninstall {self.distribution}"
            ) from e
        if not isinstance(spec, ModelSpec):
            raise PluginError(f"{who} is a {type(spec).__name__}, no ModelSpec", f"update {self.distribution}")
        return spec

    def build(self, options: Mapping[str, object], data: DataSpec) -> tuple[object, VAE, Objective]:
        """Imports the package and builds the model's config, network and objective.

        Raises:
            VaezooError: If an option does not exist or does not fit.
            UnsupportedDataError: If the model cannot take such data.
            PluginError: If the model's own code fails.
        """
        spec = self.load()
        config = configure(spec.config, options)
        try:
            return config, spec.build(config, data), spec.objective(config, data)
        except VaezooError:
            raise
        except Exception as e:  # a third party's code may raise anything
            reason = f"{type(e).__name__}: {e}".splitlines()[0]
            raise PluginError(
                f"model '{self.name}' of {self.distribution} {self.version} cannot be built: {reason}",
                f"check the options; 'vaezoo check {self.full_name}' says more",
            ) from e


def list_models() -> list[Registration]:
    """Returns all registered models, sorted by name, without importing any."""
    found = [Registration(ep.name, ep.dist.name, ep.dist.version, ep) for ep in entry_points(group=GROUP) if ep.dist]
    return sorted(found, key=lambda r: (r.name, r.distribution != OURSELVES, r.distribution))


def find_model(name: str) -> Registration:
    """Returns the registration of a model.

    Args:
        name: Its name, or `distribution/name`. A built-in's name always means the built-in.

    Raises:
        VaezooError: If there is none of that name.
        PluginError: If two packages claim the name.
    """
    registered = list_models()
    matches = [r for r in registered if name in (r.name, r.full_name)]
    if not matches:
        package = name.rpartition("/")[0]
        otherwise = f"install the package {package}" if package else "'vaezoo list' shows the models there are"
        hint = suggest(name, [r.name for r in registered], otherwise)
        raise VaezooError(f"no model named '{name}'", hint)
    if len(matches) > 1 and matches[0].distribution != OURSELVES:
        claims = ", ".join(r.full_name for r in matches)
        raise PluginError(f"two packages have a model named '{name}': {claims}", "name it in full, or uninstall one")
    return matches[0]


def get_model(name: str) -> ModelSpec[object]:
    """Returns the ModelSpec of a model; for errors see `find_model` and `Registration.load`."""
    return find_model(name).load()


def create(name: str, data: DataSpec | Dataset, options: Mapping[str, object] | None = None) -> VAE:
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

"""The registry of models: built-in and third-party models, found through the entry points of installed packages.

See `vaezoo.core.entry_points`. This module imports torch only to build a model.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vaezoo.core.entry_points import PACKAGE, PLUGINS_ENV, Plugin, choose, find_plugins
from vaezoo.core.options import configure
from vaezoo.description import Description, read_description
from vaezoo.errors import PluginError, VaezooError, VaezooWarning

if TYPE_CHECKING:
    from vaezoo.data.base import Dataset
    from vaezoo.data.spec import DataSpec
    from vaezoo.objectives.base import Objective
    from vaezoo.spec import ModelSpec
    from vaezoo.vae import VAE

__all__ = ["PACKAGE", "PLUGINS_ENV", "Registration", "create_model", "find_model", "get_model", "list_models"]

GROUP = "vaezoo.models"


@dataclass(frozen=True, slots=True)
class Registration(Plugin):
    """A model as its package's metadata announce it."""

    def describe(self) -> Description:
        """Returns what the model's ModelSpec says about it, without importing its package.

        The summary is that of the package if the source of the ModelSpec cannot be read.
        """
        is_valid = self.entry_point.pattern.match(self.entry_point.value)
        found = read_description(self.entry_point.module, self.entry_point.attr) if is_valid else Description()
        return found if found.summary else found._replace(summary=self.summary)

    def load(self) -> ModelSpec[object]:
        """Imports the package and returns its ModelSpec.

        Raises:
            PluginError: If the import fails in any way, or the entry point does not name a ModelSpec.
        """
        from vaezoo.spec import ModelSpec

        spec = self.load_object()
        if not isinstance(spec, ModelSpec):
            raise PluginError(
                f"{self} is of type {type(spec).__name__}, not a ModelSpec",
                f"fix or update {self.distribution}: its entry point must name a ModelSpec",
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
        from vaezoo.vae import VAE, check_inputs

        spec = self.load()
        try:
            with contextlib.redirect_stdout(sys.stderr):
                config = configure(spec.config, {**spec.data_defaults(data), **options})
                with self.named():
                    vae, objective = spec.build(config, data), spec.objective(config, data)
            for result, expected in ((vae, VAE), (objective, Objective)):
                if not isinstance(result, expected):
                    raise TypeError(f"it returns a {type(result).__name__} instead of a {expected.__name__}")
            check_inputs(vae)
        except VaezooError:
            raise
        except Exception as e:  # third-party code may raise anything
            raise self.failure("built", e) from e
        return config, vae, objective

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Puts the package's name before the message of a VaezooError of its code. Our own models need none."""
        try:
            yield
        except VaezooError as e:
            if not self.built_in:
                e.message = f"{self}: {e.message}"
            raise

    @contextlib.contextmanager
    def failures(self, action: str) -> Iterator[None]:
        """Turns an unexpected error of a plugin's model into a PluginError. Such a model may raise anything.

        Args:
            action: What was done with the model, such as "evaluated".
        """
        try:
            yield
        except (VaezooError, OSError):
            raise
        except Exception as e:
            if self.built_in:
                raise
            raise self.failure(action, e) from e


def list_models() -> list[Registration]:
    """Returns all registered models, sorted by name, without importing any.

    It leaves out packages with unreadable metadata and models whose names are not allowed, with one VaezooWarning for
    each package. A name in VAEZOO_PLUGINS that no installed package has is also a VaezooWarning.
    """
    registered, problems = find_plugins(GROUP, Registration)
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
    registered, _ = find_plugins(GROUP, Registration)
    return choose(name, registered, "model", "'vaezoo list' shows the models")


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

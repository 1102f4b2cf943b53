"""What a class of diffusers is: a table of settings that have other names here, and some of one value."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from vaezoo.errors import InputError, safe_repr

CONFIG = "config.json"
CLASS = "_class_name"
MAX_CHANNELS = 1_000  # of images
MAX_LAYERS = 100  # of blocks at one resolution; published models have at most 3

Settings = Mapping[str, object]


class Format(ABC):
    """One class of diffusers.

    Attributes:
        name: The class.
        model: Our name of it.
        defaults: All settings, with the values that diffusers gives those that a file leaves out.
        options: Setting -> option of the model, for those that only have another name.
        fixed: Setting -> the values that the model can have.
        kept: Settings that change nothing in the model, or have several forms. Exports of an imported run write them
            back.
        renamed: Old parts of the weights' names, or their own ones -> those of the model.
        exported: Names of weights in the model -> those in the class. None: it does not have them.
    """

    name: ClassVar[str]
    model: ClassVar[str]
    defaults: ClassVar[Settings]
    options: ClassVar[Mapping[str, str]]
    fixed: ClassVar[Mapping[str, Sequence[object]]]
    kept: ClassVar[tuple[str, ...]]
    renamed: ClassVar[Mapping[str, str]] = {}
    exported: ClassVar[Mapping[str, str | None]] = {}

    def read(self, settings: Settings) -> dict[str, object]:
        """Returns the options of the model.

        Args:
            settings: The contents of config.json.

        Raises:
            InputError: If a setting is not known, or has a value that the model cannot have.
        """
        own = {name: value for name, value in settings.items() if not name.startswith("_")}
        if unknown := [name for name in own if name not in self.defaults]:
            what = f"{CONFIG} has the setting '{safe_repr(unknown[0])}', which {self.name} does not have here"
            raise InputError(what, "update vaezoo, or remove the setting if it changes nothing")
        full = {**self.defaults, **own}
        for name, values in self.fixed.items():
            self.require(full, name, *values)
        if "out_channels" in full:
            self.require(full, "out_channels", full["in_channels"])
        return {option: full[name] for name, option in self.options.items()} | self.read_layers(full)

    def channels(self, settings: Settings) -> int:
        """Returns the channels of the images. Raises InputError if that is not a number."""
        count = settings.get("in_channels", self.defaults["in_channels"])
        if type(count) is not int or not 1 <= count <= MAX_CHANNELS:
            raise InputError(f"'in_channels' is {safe_repr(count)}, not 1 to {MAX_CHANNELS}", f"correct {CONFIG}")
        return count

    def write(self, options: Mapping[str, object], channels: int, size: int) -> dict[str, object]:
        """Returns the settings of a model, all that diffusers has.

        Args:
            options: All options of the model.
            channels: Channels of its images.
            size: Height of the images that it was made for.

        Raises:
            VaezooError: If the class of diffusers does not have an option.
        """
        named = {name: options[option] for name, option in self.options.items()}
        shared = {name: channels for name in ("in_channels", "out_channels") if name in self.defaults}
        return {CLASS: self.name, **self.defaults, **named, **shared, **self.write_layers(options, size)}

    def rename(self, weight: str) -> str:
        """Returns the name of a weight in the model."""
        for old, new in self.renamed.items():
            weight = re.sub(old, new, weight)
        return weight

    def export(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns weights of the model by their names in the class, without those that it does not have."""
        named = {self.exported.get(name, name): tensor for name, tensor in weights.items()}
        return {name: tensor for name, tensor in named.items() if name is not None}

    def require(self, settings: Settings, name: str, *values: object) -> None:
        """Raises InputError unless a setting has one of some values."""
        if settings[name] not in values:
            what = f"{CONFIG} has {name} {safe_repr(settings[name])}, which {self.model} does not have"
            raise InputError(what, f"import a model with {name} {safe_repr(values[0])}")

    @abstractmethod
    def read_layers(self, settings: Settings) -> dict[str, object]:
        """Returns further options. Raises InputError for settings that the model cannot have."""

    @abstractmethod
    def write_layers(self, options: Mapping[str, object], size: int) -> dict[str, object]:
        """Returns further settings; see `write`."""


def as_list(settings: Mapping[str, object], name: str) -> list[object]:
    """Returns a setting that is a list and not empty. Raises InputError for anything else."""
    value = settings[name]
    if not isinstance(value, list) or not value:
        raise InputError(f"'{name}' is {safe_repr(value)}, not a list of numbers", f"correct {CONFIG}")
    return value


def check_layers(name: str, *counts: object) -> None:
    """Raises InputError unless these are numbers of layers. To build too many would take forever."""
    for count in counts:
        if type(count) is not int or not 1 <= count <= MAX_LAYERS:
            raise InputError(f"'{name}' is {safe_repr(count)}, not 1 to {MAX_LAYERS} layers", f"correct {CONFIG}")

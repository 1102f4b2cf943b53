"""Which class of diffusers is which model, and what its settings mean.

A class is a table: settings have other names here, and some must have the value that the model has. Nothing of
diffusers is imported.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from vaezoo.errors import InputError, VaezooError, safe_repr

CONFIG = "config.json"
CLASS = "_class_name"
CODE = ("auto_map", "custom_pipeline", "trust_remote_code")  # settings that ask for a program of the folder
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
        kept: Settings that change nothing in the model. Exports of an imported run write them back.
        renamed: Old parts of the weights' names -> those of today.
    """

    name: ClassVar[str]
    model: ClassVar[str]
    defaults: ClassVar[Settings]
    options: ClassVar[Mapping[str, str]]
    fixed: ClassVar[Mapping[str, Sequence[object]]]
    kept: ClassVar[tuple[str, ...]]
    renamed: ClassVar[Mapping[str, str]] = {}

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
        self.require(full, "out_channels", full["in_channels"])
        return {option: full[name] for name, option in self.options.items()} | self.read_layers(full)

    def channels(self, settings: Settings) -> int:
        """Returns the channels of the images. Raises InputError if that is no number."""
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
        shared = {"in_channels": channels, "out_channels": channels}
        return {CLASS: self.name, **self.defaults, **named, **shared, **self.write_layers(options, size)}

    def rename(self, weight: str) -> str:
        """Returns the name of a weight in the model."""
        for old, new in self.renamed.items():
            weight = re.sub(old, new, weight)
        return weight

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


class AutoencoderKL(Format):
    """The autoencoder of Stable Diffusion 1 to 3, SDXL and FLUX."""

    name = "AutoencoderKL"
    model = "autoencoder-kl"
    defaults: ClassVar[Settings] = {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D"],
        "block_out_channels": [64],
        "layers_per_block": 1,
        "act_fn": "silu",
        "latent_channels": 4,
        "norm_num_groups": 32,
        "sample_size": 32,
        "scaling_factor": 0.18215,
        "shift_factor": None,
        "latents_mean": None,
        "latents_std": None,
        "force_upcast": True,
        "use_quant_conv": True,
        "use_post_quant_conv": True,
        "mid_block_add_attention": True,
    }
    options: ClassVar[Mapping[str, str]] = {
        "block_out_channels": "channels",
        "layers_per_block": "layers_per_block",
        "latent_channels": "latent_channels",
        "norm_num_groups": "norm_groups",
        "mid_block_add_attention": "mid_attention",
        "use_quant_conv": "quant_conv",
        "use_post_quant_conv": "post_quant_conv",
        "scaling_factor": "scaling_factor",
    }
    fixed: ClassVar[Mapping[str, Sequence[object]]] = {"act_fn": ("silu", "swish")}
    kept = ("act_fn", "sample_size", "latents_mean", "latents_std", "force_upcast")
    # The names of attention before diffusers 0.13.
    renamed: ClassVar[Mapping[str, str]] = {
        r"(\.attentions\.\d+\.)query\.": r"\1to_q.",
        r"(\.attentions\.\d+\.)key\.": r"\1to_k.",
        r"(\.attentions\.\d+\.)value\.": r"\1to_v.",
        r"(\.attentions\.\d+\.)proj_attn\.": r"\1to_out.0.",
    }

    def read_layers(self, settings: Settings) -> dict[str, object]:
        channels = as_list(settings, "block_out_channels")
        self.require(settings, "down_block_types", ["DownEncoderBlock2D"] * len(channels))
        self.require(settings, "up_block_types", ["UpDecoderBlock2D"] * len(channels))
        check_layers("layers_per_block", settings["layers_per_block"])
        shift = settings["shift_factor"]
        return {"shift_factor": 0.0 if shift is None else shift}

    def write_layers(self, options: Mapping[str, object], size: int) -> dict[str, object]:
        channels, shift = as_list(options, "channels"), options["shift_factor"]
        return {
            "down_block_types": ["DownEncoderBlock2D"] * len(channels),
            "up_block_types": ["UpDecoderBlock2D"] * len(channels),
            "sample_size": size,
            "shift_factor": None if shift == 0 else shift,
        }


class AutoencoderTiny(Format):
    """TAESD, for several latent diffusion models."""

    name = "AutoencoderTiny"
    model = "tiny-autoencoder"
    defaults: ClassVar[Settings] = {
        "in_channels": 3,
        "out_channels": 3,
        "encoder_block_out_channels": [64, 64, 64, 64],
        "decoder_block_out_channels": [64, 64, 64, 64],
        "act_fn": "relu",
        "upsample_fn": "nearest",
        "latent_channels": 4,
        "upsampling_scaling_factor": 2,
        "num_encoder_blocks": [1, 3, 3, 3],
        "num_decoder_blocks": [3, 3, 3, 1],
        "latent_magnitude": 3,
        "latent_shift": 0.5,
        "force_upcast": False,
        "scaling_factor": 1.0,
        "shift_factor": 0.0,
        "block_out_channels": None,  # diffusers writes decoder_block_out_channels under this name, too
    }
    options: ClassVar[Mapping[str, str]] = {
        "latent_channels": "latent_channels",
        "scaling_factor": "scaling_factor",
        "shift_factor": "shift_factor",
        "num_encoder_blocks": "blocks",
    }
    fixed: ClassVar[Mapping[str, Sequence[object]]] = {
        "act_fn": ("relu",),
        "upsample_fn": ("nearest",),
        "upsampling_scaling_factor": (2,),
    }
    kept = ("latent_magnitude", "latent_shift", "force_upcast")

    def read_layers(self, settings: Settings) -> dict[str, object]:
        blocks = as_list(settings, "num_encoder_blocks")
        channels = as_list(settings, "encoder_block_out_channels")
        check_layers("num_encoder_blocks", *blocks)
        self.require(settings, "num_decoder_blocks", blocks[::-1])
        self.require(settings, "encoder_block_out_channels", channels[:1] * len(blocks))
        self.require(settings, "decoder_block_out_channels", channels)
        return {"channels": channels[0]}

    def write_layers(self, options: Mapping[str, object], size: int) -> dict[str, object]:
        if options["latent_norm"]:
            what = f"{self.name} has no path with a normalisation, as 'latent_norm' gives it"
            raise VaezooError(what, "export it with --onnx")
        blocks = as_list(options, "blocks")
        channels = [options["channels"]] * len(blocks)
        return {
            "encoder_block_out_channels": channels,
            "decoder_block_out_channels": channels,
            "block_out_channels": channels,
            "num_decoder_blocks": blocks[::-1],
        }


FORMATS: Mapping[str, Format] = {each.name: each for each in (AutoencoderKL(), AutoencoderTiny())}


def find_format(settings: Settings) -> Format:
    """Returns the format of a config.json.

    Raises:
        InputError: If its class is missing or not supported, or it asks for code of its own.
    """
    if code := [name for name in CODE if settings.get(name)]:
        what = f"{CONFIG} asks for code of the folder ({code[0]}), which vaezoo does not run"
        raise InputError(what, "import a model that diffusers has itself")
    name = settings.get(CLASS)
    if name is None:
        raise InputError(f"{CONFIG} has no {CLASS}, so it is not of diffusers", "give the folder of an autoencoder")
    found = FORMATS.get(name) if isinstance(name, str) else None
    if found is None:
        raise InputError(f"the class {safe_repr(name)} is not supported", f"import {' or '.join(FORMATS)}")
    return found


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

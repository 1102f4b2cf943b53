"""Which class of diffusers is which model, and what its settings mean. Nothing of diffusers is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from vaezoo.errors import InputError, VaezooError, safe_repr
from vaezoo.interop.base import CLASS, CONFIG, Format, Settings, as_list, check_layers
from vaezoo.interop.deep_compression import AutoencoderDC

CODE = ("auto_map", "custom_pipeline", "trust_remote_code")  # settings that ask for a program of the folder
DOWN, UP = "DownEncoderBlock2D", "UpDecoderBlock2D"  # the blocks that the networks of latent diffusion have here
OLD_ATTENTION = {  # its names before diffusers 0.13
    r"(\.attentions\.\d+\.)query\.": r"\1to_q.",
    r"(\.attentions\.\d+\.)key\.": r"\1to_k.",
    r"(\.attentions\.\d+\.)value\.": r"\1to_v.",
    r"(\.attentions\.\d+\.)proj_attn\.": r"\1to_out.0.",
}


class LatentDiffusionFormat(Format):
    """A class with the convolutional networks of latent diffusion."""

    def require_blocks(self, settings: Settings) -> None:
        """Raises InputError unless the blocks at all resolutions are those that the networks have."""
        count = len(as_list(settings, "block_out_channels"))
        self.require(settings, "down_block_types", [DOWN] * count)
        self.require(settings, "up_block_types", [UP] * count)
        check_layers("layers_per_block", settings["layers_per_block"])


def blocks(options: Mapping[str, object]) -> dict[str, object]:
    """Returns the settings of the blocks at all resolutions."""
    count = len(as_list(options, "channels"))
    return {"down_block_types": [DOWN] * count, "up_block_types": [UP] * count}


class AutoencoderKL(LatentDiffusionFormat):
    """The autoencoder of Stable Diffusion 1 to 3, SDXL and FLUX."""

    name = "AutoencoderKL"
    model = "autoencoder-kl"
    defaults: ClassVar[Settings] = {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": [DOWN],
        "up_block_types": [UP],
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
    renamed = OLD_ATTENTION

    def read_layers(self, settings: Settings) -> dict[str, object]:
        self.require_blocks(settings)
        shift = settings["shift_factor"]
        return {"shift_factor": 0.0 if shift is None else shift}

    def write_layers(self, options: Mapping[str, object], size: int) -> dict[str, object]:
        shift = options["shift_factor"]
        return {**blocks(options), "sample_size": size, "shift_factor": None if shift == 0 else shift}


class VQModel(LatentDiffusionFormat):
    """The autoencoder of VQGAN, for latent diffusion and for models of codes."""

    name = "VQModel"
    model = "vq-autoencoder"
    defaults: ClassVar[Settings] = {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": [DOWN],
        "up_block_types": [UP],
        "block_out_channels": [64],
        "layers_per_block": 1,
        "act_fn": "silu",
        "latent_channels": 3,
        "sample_size": 32,
        "num_vq_embeddings": 256,
        "norm_num_groups": 32,
        "vq_embed_dim": None,
        "scaling_factor": 0.18215,
        "norm_type": "group",
        "mid_block_add_attention": True,
        "lookup_from_codebook": False,
        "force_upcast": False,
    }
    options: ClassVar[Mapping[str, str]] = {
        "block_out_channels": "channels",
        "layers_per_block": "layers_per_block",
        "latent_channels": "latent_channels",
        "num_vq_embeddings": "quantizer.codebook_size",
        "norm_num_groups": "norm_groups",
        "scaling_factor": "scaling_factor",
        "mid_block_add_attention": "mid_attention",
    }
    fixed: ClassVar[Mapping[str, Sequence[object]]] = {"act_fn": ("silu", "swish"), "norm_type": ("group",)}
    kept = ("act_fn", "sample_size", "vq_embed_dim", "lookup_from_codebook", "force_upcast")
    renamed: ClassVar[Mapping[str, str]] = {**OLD_ATTENTION, r"^quantize\.embedding\.weight$": "codebook.vectors"}
    exported: ClassVar[Mapping[str, str | None]] = {
        "codebook.vectors": "quantize.embedding.weight",
        "codebook.usage": None,  # of a codebook of moving averages, which only training needs
    }

    def read_layers(self, settings: Settings) -> dict[str, object]:
        self.require_blocks(settings)
        dim = settings["vq_embed_dim"]
        return {
            "quantizer": "vq",
            "quantizer.codebook": "gradient",
            "quantizer.code_dim": settings["latent_channels"] if dim is None else dim,
        }

    def write(self, options: Mapping[str, object], channels: int, size: int) -> dict[str, object]:
        """Overridden: a quantizer of another kind has no place in the class."""
        if options["quantizer"] != "vq":
            what = f"{self.name} has one codebook, and not quantizer={options['quantizer']}"
            raise VaezooError(what, "export it with --onnx")
        return super().write(options, channels, size)

    def write_layers(self, options: Mapping[str, object], size: int) -> dict[str, object]:
        return {**blocks(options), "sample_size": size, "vq_embed_dim": options["quantizer.code_dim"]}


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
            what = f"diffusers' {self.name} has no layers for the option latent_norm of this model"
            raise VaezooError(what, "export it with --onnx")
        blocks = as_list(options, "blocks")
        channels = [options["channels"]] * len(blocks)
        return {
            "encoder_block_out_channels": channels,
            "decoder_block_out_channels": channels,
            "block_out_channels": channels,
            "num_decoder_blocks": blocks[::-1],
        }


ALL = (AutoencoderKL(), VQModel(), AutoencoderTiny(), AutoencoderDC())
FORMATS: Mapping[str, Format] = {each.name: each for each in ALL}


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

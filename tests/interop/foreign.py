"""Folders of diffusers that tests and the script of the golden numbers make, with weights from a formula."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor

Array = npt.NDArray[np.float32]
SIZES = ((16, 16), (24, 40), (8, 56))  # height and width of images
# The settings of Stable Diffusion's and of FLUX's autoencoder in small, and two of each other class.
CASES: Mapping[str, Mapping[str, object]] = {
    "stable-diffusion": {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [8, 16, 16, 24],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "norm_num_groups": 4,
        "latent_channels": 4,
        "sample_size": 512,
        "scaling_factor": 0.18215,
    },
    "flux": {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [8, 12],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "latent_channels": 16,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "mid_block_add_attention": False,
    },
    "vqgan": {
        "_class_name": "VQModel",
        "block_out_channels": [8, 16],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "layers_per_block": 2,
        "norm_num_groups": 4,
        "latent_channels": 6,
        "num_vq_embeddings": 32,
        "vq_embed_dim": 4,
        "scaling_factor": 0.2,
        "sample_size": 256,
    },
    "vq-without-attention": {
        "_class_name": "VQModel",
        "block_out_channels": [8, 12, 12],
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
        "norm_num_groups": 2,
        "num_vq_embeddings": 100,
        "mid_block_add_attention": False,
        "lookup_from_codebook": True,
    },
    "tiny": {
        "_class_name": "AutoencoderTiny",
        "encoder_block_out_channels": [8] * 4,
        "decoder_block_out_channels": [8] * 4,
    },
    "tiny-shallow": {
        "_class_name": "AutoencoderTiny",
        "encoder_block_out_channels": [6] * 2,
        "decoder_block_out_channels": [6] * 2,
        "num_encoder_blocks": [1, 2],
        "num_decoder_blocks": [2, 1],
        "latent_channels": 16,
        "scaling_factor": 1.5,
        "shift_factor": 0.25,
    },
    "deep-compression": {
        "_class_name": "AutoencoderDC",
        "latent_channels": 4,
        "attention_head_dim": 4,
        "encoder_block_types": ["ResBlock", "ResBlock", "EfficientViTBlock", "EfficientViTBlock"],
        "decoder_block_types": ["ResBlock", "ResBlock", "EfficientViTBlock", "EfficientViTBlock"],
        "encoder_block_out_channels": [4, 8, 8, 16],
        "decoder_block_out_channels": [4, 8, 8, 16],
        "encoder_layers_per_block": [1, 2, 1, 1],
        "decoder_layers_per_block": [1, 1, 1, 2],
        "encoder_qkv_multiscales": [[], [], [5], [3, 5]],
        "decoder_qkv_multiscales": [[], [], [], [5]],
        "decoder_norm_types": ["batch_norm", "batch_norm", "batch_norm", "rms_norm"],
        "decoder_act_fns": ["relu", "gelu", "silu", "silu"],
        "downsample_block_type": "Conv",
        "upsample_block_type": "interpolate",
        "decoder_conv_act_fn": "mish",
        "scaling_factor": 0.41407,
    },
    "deeper-compression": {
        "_class_name": "AutoencoderDC",
        "latent_channels": 6,
        "attention_head_dim": 4,
        "encoder_block_types": "EfficientViTBlock",
        "decoder_block_types": ["ResBlock", "ResBlock", "EfficientViTBlock"],
        "encoder_block_out_channels": [8, 8, 16],
        "decoder_block_out_channels": [8, 12, 16],
        "encoder_layers_per_block": [0, 1, 1],
        "decoder_layers_per_block": [0, 1, 1],
        "encoder_qkv_multiscales": [[], [], [5]],
        "decoder_qkv_multiscales": [[], [], [5]],
        "encoder_out_shortcut": False,
        "decoder_in_shortcut": False,
    },
}


def numbers(count: int, start: int) -> Array:
    """Returns numbers in [0, 1) that resemble random ones, the same on each machine."""
    n = np.arange(start, start + count, dtype=np.float64)
    return np.asarray(np.modf(np.abs(np.sin(12.9898 * (n + 1)) * 43758.5453))[0], np.float32)


def weights_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Returns a weight for each name and shape. All matter, and the outputs of a network stay of size 1."""
    weights, start = {}, 0
    for name in sorted(shapes):
        shape = tuple(shapes[name])
        values = 2 * numbers(int(np.prod(shape)), start).reshape(shape) - 1
        start += values.size
        if len(shape) > 1:
            values = values * np.float32(2 / np.sqrt(np.prod(shape[1:])))
        elif name.endswith((".weight", ".running_var")):  # of a normalisation
            values = 1 + values / 2
        weights[name] = torch.from_numpy(np.asarray(values, np.float32))
        if name.endswith(".num_batches_tracked"):
            weights[name] = torch.tensor(start)
    return weights


def images(size: tuple[int, int], channels: int = 3) -> Tensor:
    """Returns two images in [0, 1]."""
    return torch.from_numpy(numbers(2 * channels * size[0] * size[1], 7).reshape(2, channels, *size))


def latents(shape: tuple[int, ...]) -> Tensor:
    """Returns two latents of size 1."""
    return torch.from_numpy(4 * numbers(2 * int(np.prod(shape)), 11).reshape(2, *shape) - 2)


def mode_of(encoded: object) -> Tensor:
    """Returns the latents of what a class of diffusers encodes to: a point, or the mode of a distribution."""
    for name in ("latents", "latent"):
        if isinstance(mode := getattr(encoded, name, None), Tensor):
            return mode
    distribution = encoded.latent_dist  # type: ignore[attr-defined]
    mode = distribution.mode()
    assert isinstance(mode, Tensor)
    return mode


def sampled(x: Tensor) -> list[float]:
    """Returns some evenly spaced values of a tensor."""
    values = x.flatten()
    return [float(v) for v in values[:: max(1, len(values) // 24)][:24]]


def write_folder(folder: Path, settings: Mapping[str, object], weights: Mapping[str, Tensor], name: str = "") -> Path:
    """Writes config.json and the weights as diffusers does."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(dict(weights), folder / (name or "diffusion_pytorch_model.safetensors"), {"format": "pt"})
    return folder

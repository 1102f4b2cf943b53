"""The convolutional networks of latent diffusion (Rombach et al. 2022, arXiv 2112.10752), for images of any size.

`autoencoder-kl` puts a Gaussian between encoder and decoder, `vq-autoencoder` codes. Blocks and names of the parameters
are those of diffusers, so that its weights can be imported. They take and put out pixels from -1 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.core.option_values import part_name
from vaezoo.core.options import require_positive
from vaezoo.data.base import Split
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.gaussian_vae import init_output_bias
from vaezoo.nn.resnet import ResNetBlock, down_stages, group_norm, require_groups, up_stages
from vaezoo.vae import VAE


@dataclass(frozen=True, kw_only=True)
class LatentDiffusionConfig:
    """The options of the networks.

    Attributes:
        channels: Channels at each resolution. Each but the last halves the image, so n of them divide its sides by
            2^(n-1).
        layers_per_block: Residual blocks at each resolution of the encoder. The decoder has one more.
        latent_channels: Channels of the latents.
        norm_groups: Groups of channels that are normalised together. It must divide each of the channels.
        mid_attention: Whether encoder and decoder have self-attention over all pixels of the coarsest resolution.

    Raises:
        VaezooError: If a value is out of range, or the groups do not divide the channels.
    """

    channels: tuple[int, ...] = (16, 32, 64)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_groups: int = 8
    mid_attention: bool = True

    def __post_init__(self) -> None:
        if not self.channels:
            raise VaezooError("option 'channels' is empty", "give one number for each resolution, such as 16,32,64")
        require_groups(self.norm_groups, self.channels)
        require_positive("layers_per_block", self.layers_per_block)
        require_positive("latent_channels", self.latent_channels)

    @property
    def factor(self) -> int:
        """How many times larger the sides of images are than those of their latents."""
        return int(2 ** (len(self.channels) - 1))


class Attention(nn.Module):
    """Self-attention of all pixels with one head, added to its input. A pixel's key has all channels.

    Args:
        channels: Channels of input and output.
        groups: Groups of the normalisation.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = group_norm(channels, groups)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.group_norm(x).flatten(2).transpose(1, 2)  # (B, H W, C)
        # The dimension behind the batch is that of the heads.
        query, key, value = (layer(pixels).unsqueeze(1) for layer in (self.to_q, self.to_k, self.to_v))
        attended = self.to_out[0](F.scaled_dot_product_attention(query, key, value).squeeze(1))
        y: Tensor = x + attended.transpose(1, 2).unflatten(2, x.shape[2:])
        return y


class MidBlock(nn.Module):
    """The blocks at the coarsest resolution: residual, attention if asked for, residual.

    Args:
        channels: Channels of input and output.
        groups: Groups of the normalisations.
        attention: Whether there is attention.
    """

    def __init__(self, channels: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(channels, groups)] if attention else [])
        self.resnets = nn.ModuleList(ResNetBlock(channels, channels, groups) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.resnets
        for layer in (first, *self.attentions, second):
            x = layer(x)
        return x


class Encoder(nn.Module):
    """From images `(B, in_channels, H, W)` to `(B, out_channels, H / factor, W / factor)`.

    Args:
        config: The options.
        in_channels: Channels of the images.
        out_channels: Channels of the output.
    """

    def __init__(self, config: LatentDiffusionConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        channels, groups = config.channels, config.norm_groups
        self.conv_in = nn.Conv2d(in_channels, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(down_stages(channels, config.layers_per_block, groups))
        self.mid_block = MidBlock(channels[-1], groups, config.mid_attention)
        self.conv_norm_out = group_norm(channels[-1], groups)
        self.conv_out = nn.Conv2d(channels[-1], out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for layer in (*self.down_blocks, self.mid_block, self.conv_norm_out):
            x = layer(x)
        h: Tensor = self.conv_out(F.silu(x))
        return h


class Decoder(nn.Module):
    """From latents `(B, latent_channels, h, w)` to `(B, out_channels, h factor, w factor)`.

    Args:
        config: The options.
        out_channels: Channels of the parameters of p(x|z).
    """

    def __init__(self, config: LatentDiffusionConfig, out_channels: int) -> None:
        super().__init__()
        channels, groups = config.channels[::-1], config.norm_groups
        self.conv_in = nn.Conv2d(config.latent_channels, channels[0], 3, padding=1)
        self.mid_block = MidBlock(channels[0], groups, config.mid_attention)
        self.up_blocks = nn.ModuleList(up_stages(channels, config.layers_per_block + 1, groups))
        self.conv_norm_out = group_norm(channels[-1], groups)
        self.conv_out = nn.Conv2d(channels[-1], out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.conv_in(z)
        for layer in (self.mid_block, *self.up_blocks, self.conv_norm_out):
            x = layer(x)
        params: Tensor = self.conv_out(F.silu(x))
        return params


def signed_features(data: DataSpec, x: Tensor) -> Tensor:
    """Returns features of images as the encoders take them: pixels in [0, 1] become those from -1 to 1."""
    features = data.features(x)
    return 2 * features - 1 if data.kind == "unit" else features


def puts_out_pixels(vae: VAE) -> bool:
    """Whether a decoder's network puts out pixels from -1 to 1. Otherwise these are logits, or values of real data."""
    return vae.data.kind == "unit" and vae.likelihood.identity


def unsigned_params(vae: VAE, params: Tensor) -> Tensor:
    """Returns the parameters of p(x|z) for a network's output. Pixels from -1 to 1 become those in [0, 1]."""
    return (params + 1) / 2 if puts_out_pixels(vae) else params


@torch.no_grad()
def init_signed_bias(vae: VAE, last: nn.Conv2d, train: Split) -> None:
    """Initialises the bias of the decoder's last layer for the data mean, as GaussianVAE does."""
    init_output_bias(nn.Sequential(last), vae.likelihood, train)
    if puts_out_pixels(vae) and last.bias is not None:
        last.bias.copy_(2 * last.bias - 1)  # `unsigned_params` maps it back


def require_objective(model: str, objective: object, known: Sequence[str]) -> None:
    """Raises VaezooError unless an objective is one of those that a model has."""
    if (name := part_name(objective)) not in known:
        raise VaezooError(f"{model} cannot have objective={name}", f"use one of {', '.join(known)}")

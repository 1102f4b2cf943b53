"""AutoencoderKL of latent diffusion (Rombach et al. 2022, arXiv 2112.10752): spatial latents of images of free size.

The architecture and the names of the parameters are those of diffusers' AutoencoderKL, so that its weights can be
imported. The pixels of latent diffusion lie between -1 and 1. So a likelihood whose parameters are the image itself,
such as `gaussian-identity`, gets (y + 1) / 2 of the decoder's output y. Other likelihoods take y as logits.

Training minimises the negative log-likelihood of the data and a weighted KL. `objective=latent-diffusion` adds
the perceptual and adversarial losses of the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.core.option_values import PartOf, part_name
from vaezoo.core.options import require_positive
from vaezoo.core.precision import to_float32
from vaezoo.data.base import DataSpec, Split
from vaezoo.errors import VaezooError
from vaezoo.gaussian_vae import init_output_bias
from vaezoo.nn.free_sizes import check_images, check_latent_scaling, check_sides, free_shapes
from vaezoo.nn.resnet import ResNetBlock, down_stages, group_norm, require_groups, up_stages
from vaezoo.objectives.base import Objective, ObjectivePart
from vaezoo.objectives.elbo import ELBOPart
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.spec import ModelSpec
from vaezoo.vae import VAE

OBJECTIVES = ("elbo", "latent-diffusion")
MIN_LOGVAR, MAX_LOGVAR = -30.0, 20.0  # as in the code of latent diffusion


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of autoencoder-kl.

    Attributes:
        channels: Channels at each resolution. Each but the last halves the image, so n of them divide its sides by
            2^(n-1).
        layers_per_block: Residual blocks at each resolution of the encoder. The decoder has one more.
        latent_channels: Channels of the latents.
        norm_groups: Groups of channels that are normalised together. It must divide each of the channels.
        mid_attention: Whether encoder and decoder have self-attention over all pixels of the coarsest resolution.
        objective: What training minimises: elbo or latent-diffusion. As in the paper, the KL is a sum over the latents
            and the reconstruction a sum over the pixels, both in nats. With objective.beta=1, elbo is the bound itself.
        quant_conv: Whether a 1x1 convolution follows the encoder.
        post_quant_conv: Whether a 1x1 convolution precedes the decoder.
        scaling_factor: Latent diffusion takes the latents as (z - shift_factor) * scaling_factor. Nothing here does.
        shift_factor: See `scaling_factor`.

    Raises:
        VaezooError: If a value is out of range, the groups do not divide the channels, or the objective is another one.
    """

    channels: tuple[int, ...] = (16, 32, 64)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_groups: int = 8
    mid_attention: bool = True
    objective: Annotated[object, PartOf("vaezoo.objectives")] = ELBOPart(beta=1e-6)
    quant_conv: bool = True
    post_quant_conv: bool = True
    scaling_factor: float = 1.0
    shift_factor: float = 0.0

    def __post_init__(self) -> None:
        if not self.channels:
            raise VaezooError("option 'channels' is empty", "give one number for each resolution, such as 16,32,64")
        require_groups(self.norm_groups, self.channels)
        require_positive("layers_per_block", self.layers_per_block)
        require_positive("latent_channels", self.latent_channels)
        if part_name(self.objective) not in OBJECTIVES:
            what = f"autoencoder-kl cannot have objective={part_name(self.objective)}"
            raise VaezooError(what, f"use one of {', '.join(OBJECTIVES)}")
        check_latent_scaling(self.scaling_factor, self.shift_factor)

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
    """From images `(B, in_channels, H, W)` to `(B, 2 latent_channels, H / factor, W / factor)`.

    Args:
        config: The options.
        in_channels: Channels of the images.
    """

    def __init__(self, config: Config, in_channels: int) -> None:
        super().__init__()
        channels, groups = config.channels, config.norm_groups
        self.conv_in = nn.Conv2d(in_channels, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(down_stages(channels, config.layers_per_block, groups))
        self.mid_block = MidBlock(channels[-1], groups, config.mid_attention)
        self.conv_norm_out = group_norm(channels[-1], groups)
        self.conv_out = nn.Conv2d(channels[-1], 2 * config.latent_channels, 3, padding=1)

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

    def __init__(self, config: Config, out_channels: int) -> None:
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


class AutoencoderKL(VAE):
    """A VAE whose latents are a small image. It takes any image whose sides are multiples of `config.factor`.

    `latent_shape` and samples have the size of the data. `encode` and `decode` take other sizes too.

    Args:
        config: The options.
        data: The images to model.

    Attributes:
        factor: How many times larger the sides of images are than those of their latents.
        signed: Whether the decoder's network puts out pixels from -1 to 1.
        scaling_factor: As in Config, like `shift_factor`.
        shift_factor: See there.

    Raises:
        UnsupportedDataError: If the data are not such images.
    """

    def __init__(self, config: Config, data: DataSpec) -> None:
        check_images(data, config.factor, "autoencoder-kl")
        channels, height, width = data.shape
        super().__init__(data, (config.latent_channels, height // config.factor, width // config.factor))
        self.factor = config.factor
        self.encoder, self.decoder = Encoder(config, channels), Decoder(config, data.params_shape[0])
        n = config.latent_channels
        self.quant_conv = nn.Conv2d(2 * n, 2 * n, 1) if config.quant_conv else nn.Identity()
        self.post_quant_conv = nn.Conv2d(n, n, 1) if config.post_quant_conv else nn.Identity()
        self.signed = data.kind == "unit" and self.likelihood.identity
        self.scaling_factor, self.shift_factor = config.scaling_factor, config.shift_factor

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Overridden: height and width are free."""
        return free_shapes(self.data.shape, self.factor)

    def inference_parameters(self) -> list[nn.Parameter]:
        """Overridden: q(z|x) has a convolution behind the encoder."""
        return [*self.encoder.parameters(), *self.quant_conv.parameters()]

    def init_from_data(self, train: Split) -> None:
        """Overridden: initialises the decoder's output bias, as GaussianVAE does."""
        init_output_bias(nn.Sequential(self.decoder.conv_out), self.likelihood, train)
        bias = self.decoder.conv_out.bias
        if self.signed and bias is not None:
            bias.data = 2 * bias.data - 1  # decode maps it back

    def encode(self, x: Tensor) -> DiagonalGaussian:
        check_sides(x.shape[2:], self.factor)
        features = self.data.features(x)
        if self.data.kind == "unit":
            features = 2 * features - 1  # latent diffusion takes pixels from -1 to 1
        mu, logvar = to_float32(self.quant_conv(self.encoder(features))).chunk(2, dim=1)
        return DiagonalGaussian(mu, logvar.clamp(MIN_LOGVAR, MAX_LOGVAR))

    def decode(self, z: Tensor) -> Tensor:
        params: Tensor = self.decoder(self.post_quant_conv(z))
        return (params + 1) / 2 if self.signed else params


def objective(config: Config, data: DataSpec) -> Objective:
    """Returns the objective."""
    return cast("ObjectivePart", config.objective).build(data, (config.latent_channels,))


SPEC = ModelSpec(
    config=Config(),
    build=AutoencoderKL,
    objective=objective,
    summary="Spatial latents for images of free height and width, with a small weight of the KL",
    reference="Rombach et al. 2022, arXiv 2112.10752",
    parts={"posterior": "diagonal", "prior": "normal"},
)

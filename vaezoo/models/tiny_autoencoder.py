"""The tiny autoencoder of latent diffusion (TAESD, Bohan 2023, github.com/madebyollin/taesd).

Its encoder and decoder are plain convolutions with rectifiers, so they are small and fast. The architecture and the
names of the parameters are those of diffusers' AutoencoderTiny, so that its weights can be imported. TAESD was
distilled from the autoencoder of Stable Diffusion. Training here minimises the reconstruction term alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vaezoo.core.options import require_positive
from vaezoo.core.precision import to_float32
from vaezoo.data.base import Split
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.gaussian_vae import init_output_bias
from vaezoo.nn.free_sizes import (
    check_images,
    check_latent_scaling,
    check_sides,
    free_shapes,
    resolutions_that_fit,
)
from vaezoo.objectives.elbo import ELBO
from vaezoo.posteriors.delta import Delta
from vaezoo.priors.standard_normal import ZeroKLPrior
from vaezoo.spec import ModelSpec
from vaezoo.vae import VAE

BLOCKS = (1, 3, 3, 3)
MAX_LATENT = 3.0  # the decoder bounds its input softly to this size
NORM_WIDENING, NORM_GROUPS = 4, 4  # of the path with a normalisation: its channels, and the groups of them


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of tiny-autoencoder.

    Attributes:
        channels: Channels at all resolutions.
        blocks: Residual blocks of the encoder at each resolution, from fine to coarse. The decoder has them in reverse
            order. n resolutions divide the sides of images by 2^(n-1).
        latent_channels: Channels of the latents.
        latent_norm: Whether the blocks at the coarsest resolution have a path with a group normalisation, as TAEF2 has.
        scaling_factor: Latent diffusion takes the latents as (z - shift_factor) * scaling_factor. Nothing here does.
        shift_factor: See `scaling_factor`.

    Raises:
        VaezooError: If a value is out of range.
    """

    channels: int = 64
    blocks: tuple[int, ...] = BLOCKS
    latent_channels: int = 4
    latent_norm: bool = False
    scaling_factor: float = 1.0
    shift_factor: float = 0.0

    def __post_init__(self) -> None:
        if not self.blocks:
            raise VaezooError("option 'blocks' is empty", "give one number for each resolution, such as 1,3,3,3")
        require_positive("channels", self.channels)
        require_positive("blocks", *self.blocks)
        require_positive("latent_channels", self.latent_channels)
        check_latent_scaling(self.scaling_factor, self.shift_factor)

    @property
    def factor(self) -> int:
        """How many times larger the sides of images are than those of their latents."""
        return int(2 ** (len(self.blocks) - 1))


class Block(nn.Module):
    """relu(x + f(x)), where f is three 3x3 convolutions with rectifiers between them.

    With a normalisation, x is x + g(x) first. g is a 1x1 convolution to more channels, GroupNorm, a rectifier and a 1x1
    convolution back. GroupNorm computes its mean and variance over the whole image.

    Args:
        channels: Channels of input and output.
        norm: Whether there is such a path.
    """

    def __init__(self, channels: int, norm: bool) -> None:
        super().__init__()
        first, second, third = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3))
        self.conv = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        self.pool = norm_path(channels) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(x + self.conv(x))


def norm_path(channels: int) -> nn.Sequential:
    """Returns the path with a normalisation; see Block."""
    wide = NORM_WIDENING * channels
    return nn.Sequential(
        nn.Conv2d(channels, wide, 1, bias=False),
        nn.GroupNorm(NORM_GROUPS, wide),
        nn.ReLU(),
        nn.Conv2d(wide, channels, 1, bias=False),
    )


class Encoder(nn.Module):
    """From images `(B, in_channels, H, W)` to latents `(B, latent_channels, H / factor, W / factor)`.

    Args:
        config: The options.
        in_channels: Channels of the images.
    """

    def __init__(self, config: Config, in_channels: int) -> None:
        super().__init__()
        n, last = config.channels, len(config.blocks) - 1
        layers: list[nn.Module] = [nn.Conv2d(in_channels, n, 3, padding=1)]
        for stage, blocks in enumerate(config.blocks):
            layers += [nn.Conv2d(n, n, 3, stride=2, padding=1, bias=False)] if stage else []
            layers += [Block(n, config.latent_norm and stage == last) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(n, config.latent_channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.layers(x)
        return z


class Decoder(nn.Module):
    """From latents `(B, latent_channels, h, w)` to `(B, out_channels, h factor, w factor)`.

    Args:
        config: The options.
        out_channels: Channels of the parameters of p(x|z).
    """

    def __init__(self, config: Config, out_channels: int) -> None:
        super().__init__()
        n = config.channels
        layers: list[nn.Module] = [nn.Conv2d(config.latent_channels, n, 3, padding=1), nn.ReLU()]
        for stage, blocks in enumerate(reversed(config.blocks)):
            if stage:
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(n, n, 3, padding=1, bias=False)]
            layers += [Block(n, config.latent_norm and not stage) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(n, out_channels, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        params: Tensor = self.layers(torch.tanh(z / MAX_LATENT) * MAX_LATENT)
        return params


class TinyAutoencoder(VAE):
    """An autoencoder whose latents are a small image. It takes any image whose sides are multiples of `config.factor`.

    `latent_shape` and samples have the size of the data. `encode` and `decode` take other sizes too.

    Args:
        config: The options.
        data: The images to model.

    Attributes:
        factor: How many times larger the sides of images are than those of their latents.
        scaling_factor: As in Config, like `shift_factor`.
        shift_factor: See there.

    Raises:
        UnsupportedDataError: If the data are not such images.
    """

    def __init__(self, config: Config, data: DataSpec) -> None:
        check_images(data, config.factor, "tiny-autoencoder")
        channels, height, width = data.shape
        latent_shape = (config.latent_channels, height // config.factor, width // config.factor)
        super().__init__(data, latent_shape, ZeroKLPrior(latent_shape))
        self.factor = config.factor
        self.scaling_factor, self.shift_factor = config.scaling_factor, config.shift_factor
        self.encoder, self.decoder = Encoder(config, channels), Decoder(config, data.params_shape[0])

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Overridden: height and width are free."""
        return free_shapes(self.data.shape, self.factor)

    def init_from_data(self, train: Split) -> None:
        """Overridden: initialises the decoder's output bias, as GaussianVAE does."""
        init_output_bias(self.decoder.layers, self.likelihood, train)

    def encode(self, x: Tensor) -> Delta:
        check_sides(x.shape[2:], self.factor)
        return Delta(to_float32(self.encoder(self.data.features(x))))

    def decode(self, z: Tensor) -> Tensor:
        params: Tensor = self.decoder(z)
        return params


def data_defaults(data: DataSpec) -> Mapping[str, object]:
    """Returns fewer resolutions for images whose sides cannot be halved so often."""
    return {"blocks": BLOCKS[: resolutions_that_fit(data.shape[1:], len(BLOCKS))]}


def objective(config: Config, data: DataSpec) -> ELBO:
    """Returns the objective: the reconstruction alone."""
    return ELBO(beta=0.0)


SPEC = ModelSpec(
    config=Config(),
    build=TinyAutoencoder,
    objective=objective,
    summary="Small convolutional autoencoder with spatial latents, for images of free height and width",
    reference="Bohan 2023, github.com/madebyollin/taesd",
    data_defaults=data_defaults,
    parts={"posterior": "delta", "prior": "zero-kl", "objective": "elbo"},
)

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

from torch import Tensor, nn

from vaezoo.core.option_values import PartOf
from vaezoo.core.precision import to_float32
from vaezoo.data.base import Split
from vaezoo.data.spec import DataSpec
from vaezoo.nn.free_sizes import check_images, check_latent_scaling, check_sides, free_shapes
from vaezoo.nn.latent_diffusion import (
    Decoder,
    Encoder,
    LatentDiffusionConfig,
    init_signed_bias,
    require_objective,
    signed_features,
    unsigned_params,
)
from vaezoo.objectives.base import Objective, ObjectivePart
from vaezoo.objectives.elbo import ELBOPart
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.spec import ModelSpec
from vaezoo.vae import VAE

OBJECTIVES = ("elbo", "latent-diffusion")
MIN_LOGVAR, MAX_LOGVAR = -30.0, 20.0  # as in the code of latent diffusion


@dataclass(frozen=True, kw_only=True)
class Config(LatentDiffusionConfig):
    """The options of autoencoder-kl.

    Attributes:
        objective: What training minimises: elbo or latent-diffusion. As in the paper, the KL is a sum over the latents
            and the reconstruction a sum over the pixels, both in nats. With objective.beta=1, elbo is the bound itself.
        quant_conv: Whether a 1x1 convolution follows the encoder.
        post_quant_conv: Whether a 1x1 convolution precedes the decoder.
        scaling_factor: Latent diffusion takes the latents as (z - shift_factor) * scaling_factor. Nothing here does.
        shift_factor: See `scaling_factor`.

    Raises:
        VaezooError: If a value is out of range, the groups do not divide the channels, or the objective is another one.
    """

    objective: Annotated[object, PartOf("vaezoo.objectives")] = ELBOPart(beta=1e-6)
    quant_conv: bool = True
    post_quant_conv: bool = True
    scaling_factor: float = 1.0
    shift_factor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_objective("autoencoder-kl", self.objective, OBJECTIVES)
        check_latent_scaling(self.scaling_factor, self.shift_factor)


class AutoencoderKL(VAE):
    """A VAE whose latents are a small image. It takes any image whose sides are multiples of `config.factor`.

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
        check_images(data, config.factor, "autoencoder-kl")
        channels, height, width = data.shape
        super().__init__(data, (config.latent_channels, height // config.factor, width // config.factor))
        self.factor = config.factor
        n = config.latent_channels
        self.encoder, self.decoder = Encoder(config, channels, 2 * n), Decoder(config, data.params_shape[0])
        self.quant_conv = nn.Conv2d(2 * n, 2 * n, 1) if config.quant_conv else nn.Identity()
        self.post_quant_conv = nn.Conv2d(n, n, 1) if config.post_quant_conv else nn.Identity()
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
        init_signed_bias(self, self.decoder.conv_out, train)

    def encode(self, x: Tensor) -> DiagonalGaussian:
        check_sides(x.shape[2:], self.factor)
        h = self.quant_conv(self.encoder(signed_features(self.data, x)))
        mu, logvar = to_float32(h).chunk(2, dim=1)
        return DiagonalGaussian(mu, logvar.clamp(MIN_LOGVAR, MAX_LOGVAR))

    def decode(self, z: Tensor) -> Tensor:
        return unsigned_params(self, self.decoder(self.post_quant_conv(z)))


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

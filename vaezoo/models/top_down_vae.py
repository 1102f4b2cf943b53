"""A small convolutional top-down VAE, the very deep VAE of Child 2021 with few layers.

z holds the latents of all layers side by side, the top first: p(z) = p(z_0) p(z_1|z_0) p(z_2|z_0, z_1) ..., and q(z|x)
has the same order. Each layer sees all layers above, through the decoder's features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple, cast

import torch
from torch import Tensor

from vaezoo.core.option_values import PartOf
from vaezoo.core.options import require_positive
from vaezoo.core.precision import to_float32
from vaezoo.data.base import Batch, Split
from vaezoo.data.spec import DataSpec
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.gaussian_vae import init_output_bias
from vaezoo.nn.hierarchy import check_objective, gaussian_kl
from vaezoo.nn.top_down import BOTTLENECK, Decoder, Draw, Encoder, PosteriorNetworks, resolutions
from vaezoo.objectives.base import Objective
from vaezoo.objectives.elbo import ELBOPart
from vaezoo.posteriors.base import Posterior
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.priors.base import Prior
from vaezoo.spec import ModelSpec
from vaezoo.vae import VAE, VAEOutput

NAME = "top-down-vae"
MIN_SIDE, MAX_SIDE = 8, 64  # pixels


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of top-down-vae.

    Attributes:
        channels: Channels of the features at all resolutions. Blocks have a quarter of them inside.
        latent_channels: Channels of z in each layer.
        layers: Layers of latents at each resolution, from 1x1 to half that of the image.
        objective: What training minimises.

    Raises:
        VaezooError: If a value is not positive, or there are fewer than 4 channels.
    """

    channels: int = 64
    latent_channels: int = 8
    layers: int = 2
    objective: Annotated[object, PartOf("vaezoo.objectives")] = ELBOPart()

    def __post_init__(self) -> None:
        require_positive("latent_channels", self.latent_channels)
        require_positive("layers", self.layers)
        if self.channels < BOTTLENECK:
            raise VaezooError(f"option 'channels' is {self.channels}", f"give 'channels' at least {BOTTLENECK}")


class TopDownPosterior(NamedTuple):
    """q(z|x) = q(z_0|x) q(z_1|x, z_0) ...: the encoder's features, and the networks that go down from them.

    Attributes:
        evidence: The encoder's features of all resolutions, `(B, n)`.
        head: Makes q of a layer.
        decoder: Makes p of a layer and the features that q looks at.
    """

    evidence: Tensor
    head: PosteriorNetworks
    decoder: Decoder

    def descend(self, choose: Callable[[int, DiagonalGaussian], Tensor]) -> tuple[Tensor, list[Draw]]:
        """Goes down and returns the features of the lowest layer, and all layers, the top first.

        Args:
            choose: Returns z of a layer, given its number and its q.
        """
        seen = self.head.split(self.evidence)

        def chosen(i: int, x: Tensor, p: DiagonalGaussian) -> tuple[Tensor, DiagonalGaussian]:
            q = self.head(i, seen, x)
            return choose(i, q), q

        return self.decoder.descend(self.evidence.shape[0], chosen)

    def drawn(self) -> tuple[Tensor, list[Draw]]:
        """Goes down with draws of q."""
        return self.descend(lambda i, q: q.rsample())

    def layers_at(self, z: Tensor) -> list[Draw]:
        """Returns all layers for given latents `(B, n)`."""
        parts = self.decoder.split(z)
        return self.descend(lambda i, q: parts[i])[1]

    def rsample(self) -> Tensor:
        return side_by_side([draw.z for draw in self.drawn()[1]])

    def log_prob(self, z: Tensor) -> Tensor:
        return log_q(self.layers_at(z))

    def mode(self) -> Tensor:
        """Returns the mean of each layer given the means above."""
        return self.outputs()["mode"]

    def outputs(self) -> dict[str, Tensor]:
        """Returns means and log-variances given the means above. The evidence alone says little."""
        draws = self.descend(lambda i, q: q.mu)[1]
        return {
            "mode": side_by_side([draw.z for draw in draws]),
            "logvar": side_by_side([draw.q.logvar for draw in draws]),
        }


def side_by_side(layers: list[Tensor]) -> Tensor:
    """Returns one vector for each example, `(B, n)`, for the values of each layer, `(B, channels, H, W)`."""
    return torch.cat([layer.flatten(1) for layer in layers], 1)


def log_q(draws: list[Draw]) -> Tensor:
    """Returns log q(z|x), `(B,)`, in nats."""
    return torch.stack([draw.q.log_prob(draw.z) for draw in draws]).sum(0)


def log_p(draws: list[Draw]) -> Tensor:
    """Returns log p(z), `(B,)`, in nats."""
    return torch.stack([draw.p.log_prob(draw.z) for draw in draws]).sum(0)


def kl_by_layer(draws: list[Draw]) -> Tensor:
    """Returns KL(q || p) of each layer given the latents above, `(B, layers)`, in nats. Free bits apply to a layer."""
    return torch.stack([gaussian_kl(draw.q, draw.p).flatten(1).sum(1) for draw in draws], 1)


class TopDownPrior(Prior):
    """p(z) = p(z_0) p(z_1|z_0) ...: the decoder without an image.

    Args:
        decoder: That of the model. It is not registered a second time.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.descend, self.descend_at, self.split = decoder.descend, decoder.descend_at, decoder.split
        self.noise_shape = (sum(decoder.counts),)
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # for its device

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        parts = self.split(noise)

        def choose(i: int, x: Tensor, p: DiagonalGaussian) -> tuple[Tensor, DiagonalGaussian]:
            return p.mu + torch.exp(0.5 * p.logvar) * parts[i], p

        return side_by_side([draw.z for draw in self.descend(noise.shape[0], choose)[1]])

    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        return log_p(self.descend_at(z)[1])

    def kl_terms(self, posterior: Posterior, z: Tensor, *given: Tensor) -> Tensor:
        """Overridden: given the latents above, each layer has a closed form."""
        if not isinstance(posterior, TopDownPosterior):
            return super().kl_terms(posterior, z, *given)
        return kl_by_layer(posterior.layers_at(z))


class TopDownVAE(VAE):
    """Layers of latents at each resolution of an image.

    Args:
        config: The options.
        data: The images to model.

    Raises:
        VaezooError: If the objective does not fit.
        UnsupportedDataError: If the data are not such images.
    """

    def __init__(self, config: Config, data: DataSpec) -> None:
        check_objective(NAME, config.objective)
        check_data(data)
        sizes = resolutions(*data.shape[1:])
        channels, latents, layers = config.channels, config.latent_channels, config.layers
        decoder = Decoder(channels, latents, data.params_shape[0], sizes, layers)
        super().__init__(data, (sum(decoder.counts),))
        self.encoder = Encoder(data.features_shape[0], channels, sizes, layers)
        self.head = PosteriorNetworks(channels, latents, sizes, layers)
        self.decoder = decoder
        self.prior = TopDownPrior(decoder)

    def encode(self, x: Tensor) -> TopDownPosterior:
        return TopDownPosterior(to_float32(self.encoder(self.data.features(x))), self.head, self.decoder)

    def decode(self, z: Tensor) -> Tensor:
        params: Tensor = self.decoder(self.decoder.descend_at(z)[0])
        return params

    def forward(self, posterior: Posterior, batch: Batch, *, at_sample: bool = False) -> VAEOutput:
        """Overridden: one pass downwards gives z, its KL and the decoder's output."""
        x, draws = cast("TopDownPosterior", posterior).drawn()
        params = to_float32(self.decoder(x))
        with torch.autocast(batch.x.device.type, enabled=False):
            kl = (log_q(draws) - log_p(draws)).unsqueeze(1) if at_sample else kl_by_layer(draws)
        return VAEOutput(side_by_side([draw.z for draw in draws]), params, kl)

    def init_from_data(self, train: Split) -> None:
        """Overridden: initialises the decoder's output bias, as GaussianVAE does."""
        init_output_bias(self.decoder.out, self.likelihood, train)


def check_data(data: DataSpec) -> None:
    """Raises UnsupportedDataError unless data are images of 8x8 to 64x64 pixels."""
    if len(data.shape) != 3 or data.kind not in ("unit", "real"):
        raise UnsupportedDataError(
            f"data set '{data.name}' has shape {data.shape} and kind {data.kind}, but {NAME} takes images",
            "use ladder-vae",
        )
    height, width = data.shape[1:]
    if not MIN_SIDE <= min(height, width) <= max(height, width) <= MAX_SIDE:
        raise UnsupportedDataError(
            f"images of {height}x{width} pixels are not within {MIN_SIDE}x{MIN_SIDE} to {MAX_SIDE}x{MAX_SIDE}",
            "resize them: --image-size for image files, your own program for arrays",
        )


def objective(config: Config, data: DataSpec) -> Objective:
    """Returns the chosen objective. Raises as `check_objective` and `check_data` do."""
    check_data(data)
    sizes = resolutions(*data.shape[1:])
    latents = config.layers * config.latent_channels * sum(height * width for height, width in sizes[1:])
    return check_objective(NAME, config.objective).build(data, (latents,))


SPEC = ModelSpec(
    config=Config(),
    build=TopDownVAE,
    objective=objective,
    summary="Several layers of latents at each resolution of an image, drawn from the top down",
    reference="Child 2021, arXiv 2011.10650",
    parts={"posterior": "layers", "prior": "layers"},
    formulas={
        "posterior": r"q(z \mid x) = \prod_l q(z_l \mid x, z_{<l})",
        "prior": r"p(z) = \prod_l p(z_l \mid z_{<l})",
    },
)

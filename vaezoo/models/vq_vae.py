"""VQ-VAE (van den Oord et al. 2017): a grid of codes, each of which names a vector of a codebook.

z holds the codes, int64. The encoder makes a feature vector at each position of the grid, and its code is the nearest
vector. The decoder's gradient goes straight through to the features, so `forward` is overridden.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from vaezoo.core.options import require_positive
from vaezoo.core.precision import to_float32
from vaezoo.data.base import Batch, DataSpec, Split
from vaezoo.errors import VaezooError
from vaezoo.gaussian_vae import init_output_bias
from vaezoo.nn.activations import ACTIVATIONS
from vaezoo.nn.codebook import Codebook, EMACodebook, GradientCodebook, spread_features, squared_distance
from vaezoo.nn.conv import ConvConfig, conv_layers, conv_specs, transposed_layer
from vaezoo.nn.residual import residual_layers
from vaezoo.objectives.base import LossOutput, Objective, StepContext
from vaezoo.objectives.elbo import elbo_terms
from vaezoo.posteriors.base import Posterior
from vaezoo.priors.codes import UniformCodes
from vaezoo.spec import ModelSpec
from vaezoo.vae import VAE, VAEOutput

INIT_EXAMPLES, INIT_POSITIONS = 64, 16  # of data for the first codebook: at least, and for each vector


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of vq-vae.

    Attributes:
        codebook_size: Number of vectors in the codebook (K).
        code_dim: Dimensions of each vector.
        channels: Output channels of each convolution. Each halves the image.
        residual_blocks: Residual blocks at the size of the grid, in the encoder and in the decoder.
        residual_channels: Channels inside a residual block.
        codebook: How the vectors are learned: as moving averages of the features (`ema`), or by `gradient`.
        decay: Decay of the moving averages for each batch, with codebook=ema.
        revive_below: With codebook=ema, a vector that is used less than this share of 1/K is replaced by a feature of
            the batch. 0: never, as in the paper.
        commitment: Weight of the features' squared distance from their vectors.

    Raises:
        VaezooError: If a value is out of range.
    """

    codebook_size: int = 512
    code_dim: int = 64
    channels: tuple[int, ...] = (64, 128)
    residual_blocks: int = 2
    residual_channels: int = 32
    codebook: Literal["ema", "gradient"] = "ema"
    decay: float = 0.99
    revive_below: float = 0.1
    commitment: float = 0.25

    def __post_init__(self) -> None:
        for option in ("codebook_size", "code_dim", "residual_channels"):
            require_positive(option, getattr(self, option))
        require_positive("channels", *self.channels)
        if not self.channels:
            raise VaezooError("option 'channels' is empty", "give one number for each halving, such as channels=64,128")
        for option, limit in (("decay", 1.0), ("revive_below", 1.0), ("commitment", None), ("residual_blocks", None)):
            value = getattr(self, option)
            if value < 0 or (limit is not None and value >= limit):
                below = "" if limit is None else " and below 1"
                raise VaezooError(f"option '{option}' is {value}", f"give '{option}' at least 0{below}")


class Codes(NamedTuple):
    """q(z|x): certainty of one code at each position.

    Attributes:
        z: The codes, `(B, h, w)`, int64.
        features: What they were made of, `(B, code_dim, h, w)`.
    """

    z: Tensor
    features: Tensor

    def rsample(self) -> Tensor:
        return self.z

    def log_prob(self, z: Tensor) -> Tensor:
        raise VaezooError("a quantizer has no density q(z|x): its codes are certain", "evaluate the ELBO instead")

    def mode(self) -> Tensor:
        return self.z

    def outputs(self) -> dict[str, Tensor]:
        """Returns the codes alone."""
        return {"z": self.z}


class VQVAE(VAE):
    """A convolutional autoencoder with a codebook between encoder and decoder.

    Args:
        config: The options.
        data: Images.

    Raises:
        UnsupportedDataError: If the data are not images of 8x8 to 256x256 pixels, or are too small for the channels.
    """

    def __init__(self, config: Config, data: DataSpec) -> None:
        network = ConvConfig(channels=config.channels)
        specs, outer = (conv_specs(network, data, shape[0]) for shape in (data.features_shape, data.params_shape))
        channels, latent_shape = config.channels[-1], specs[-1].out_size
        super().__init__(data, latent_shape, UniformCodes(config.codebook_size, latent_shape))
        self.commitment = config.commitment
        residual = (channels, config.residual_channels, config.residual_blocks)
        self.encoder = nn.Sequential(
            *conv_layers(specs, network.activation),
            nn.Conv2d(channels, channels, 3, padding=1),
            *residual_layers(*residual),
            nn.Conv2d(channels, config.code_dim, 1),
        )
        self.codebook: Codebook = make_codebook(config)
        layers = [nn.Conv2d(config.code_dim, channels, 3, padding=1), *residual_layers(*residual)]
        for spec in reversed(outer[1:]):
            layers += [transposed_layer(spec), ACTIVATIONS[network.activation]()]
        self.decoder = nn.Sequential(*layers, transposed_layer(outer[0]))

    def encode(self, x: Tensor) -> Codes:
        features = to_float32(self.encoder(self.data.features(x)))
        with torch.autocast(x.device.type, enabled=False):  # distances in bfloat16 would give other codes
            return Codes(self.codebook.nearest(features), features)

    def decode(self, z: Tensor) -> Tensor:
        params: Tensor = self.decoder(self.codebook.embed(z))
        return params

    def forward(self, posterior: Posterior, batch: Batch, *, at_sample: bool = False) -> VAEOutput:
        """Overridden: gradients go straight through the codes, and a training step updates the codebook.

        The decoder gets the vectors. Its gradient by them goes to the features, as if they were what it got.

        Raises:
            VaezooError: If `at_sample` is given, because there is no density.
        """
        z, features = cast("Codes", posterior)
        if at_sample:
            posterior.log_prob(z)
        with torch.autocast(batch.x.device.type, enabled=False):
            embedded = self.codebook.embed(z)
            loss = self.commitment * squared_distance(features, embedded.detach())
            codebook_loss = self.codebook.loss(features, embedded)
            if self.training:
                self.codebook.update(features, z)
            straight = features + (embedded - features).detach()
        params = to_float32(self.decoder(straight))
        loss = loss if codebook_loss is None else loss + codebook_loss
        return VAEOutput(z, params, self.prior.kl_terms(posterior, z), loss)

    @torch.no_grad()
    def init_from_data(self, train: Split) -> None:
        """Overridden: initialises the decoder's output bias, and the codebook with features of the data.

        A codebook of random vectors is far from the features, and one vector would serve for all.
        """
        init_output_bias(self.decoder, self.likelihood, train)
        size, positions = len(self.codebook.vectors), math.prod(self.latent_shape)
        x = train.subsample(max(INIT_EXAMPLES, INIT_POSITIONS * size // positions)).batch(slice(None)).x
        self.codebook.set_vectors(spread_features(to_float32(self.encoder(self.data.features(x))), size))


def make_codebook(config: Config) -> Codebook:
    """Returns the codebook that the options choose."""
    if config.codebook == "gradient":
        return GradientCodebook(config.codebook_size, config.code_dim)
    return EMACodebook(config.codebook_size, config.code_dim, config.decay, config.revive_below)


class VQLoss(Objective):
    """-log p(x|z) with the losses of codebook and commitment (arXiv 1711.00937, equation 3), in nats and squares.

    All are sums over an example, and none is divided by the number of pixels or positions. The KL is constant. The
    metric `perplexity` is exp of the entropy of a batch's codes: how many codes are in use.

    Args:
        size: Number of codes (K).
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        return {"vae": list(vae.parameters())}

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        terms = elbo_terms(vae, batch)
        loss = terms.reconstruction.mean() + step.kl_weight * terms.kl_terms.sum(1).mean()
        perplexity = {"perplexity": code_perplexity(terms.z, self.size)}
        return LossOutput({"vae": terms.with_auxiliary(loss)}, terms.metrics | perplexity)


def code_perplexity(codes: Tensor, size: int) -> Tensor:
    """Returns exp of the entropy of codes below `size`, `()`: 1 if all are equal, `size` if all are used alike."""
    ones = torch.ones(codes.numel(), device=codes.device)
    share = torch.zeros(size, device=codes.device).scatter_add(0, codes.flatten(), ones) / codes.numel()
    return torch.exp(-torch.xlogy(share, share).sum())


def objective(config: Config, data: DataSpec) -> VQLoss:
    """Returns the objective."""
    return VQLoss(config.codebook_size)


SPEC = ModelSpec(
    config=Config(),
    build=VQVAE,
    objective=objective,
    summary="A grid of discrete codes with a learned codebook, for images from 8x8 to 256x256",
    reference="van den Oord et al. 2017, arXiv 1711.00937",
    parts={"posterior": "codes", "prior": "uniform codes", "objective": "vq"},
)

"""Convolutional autoencoders with codes between encoder and decoder.

z holds the codes, int64. The decoder's gradient goes straight through them to the features, so `forward` is overridden.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, cast

import torch
from torch import Tensor, nn

from vaezoo.core.option_values import PartOf
from vaezoo.core.options import require_positive
from vaezoo.core.precision import to_float32
from vaezoo.data.base import Batch, Split
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.gaussian_vae import init_output_bias
from vaezoo.nn.activations import Activation, make_activation
from vaezoo.nn.conv import ConvConfig, conv_specs
from vaezoo.nn.quantizers.base import Quantizer, QuantizerPart, require_at_least_0
from vaezoo.nn.quantizers.vq import VQPart
from vaezoo.nn.residual import residual_layers
from vaezoo.nn.strided import ConvSpec, conv_layers, transposed_layer
from vaezoo.objectives.vq import VQLoss
from vaezoo.posteriors.base import Posterior
from vaezoo.posteriors.codes import Codes
from vaezoo.priors.codes import UniformCodes
from vaezoo.vae import VAE, LatentLevel, VAEOutput

# The codes of an example are certain. The quantizer says which.
CODE_FORMULAS = {
    "posterior": r"q(z \mid x) = \prod_i [z_i = z_i(x)]",
    "prior": r"p(z) = \prod_i \frac{1}{K}, \qquad \mathrm{KL}(q(z \mid x) \,\|\, p(z)) = \sum_i \log K",
}
INIT_EXAMPLES, INIT_POSITIONS = 64, 16  # of data for the first codebook: at least, and for each vector


@dataclass(frozen=True, kw_only=True)
class CodeConfig:
    """The options of a convolutional autoencoder with codes.

    Attributes:
        quantizer: How features become codes.
        channels: Output channels of each convolution. Each halves the image.
        residual_blocks: Residual blocks at the size of the grid, in the encoder and in the decoder.
        residual_channels: Channels inside a residual block.

    Raises:
        VaezooError: If a value is out of range.
    """

    quantizer: Annotated[object, PartOf("vaezoo.quantizers")] = VQPart()
    channels: tuple[int, ...] = (64, 128)
    residual_blocks: int = 2
    residual_channels: int = 32

    def __post_init__(self) -> None:
        require_positive("residual_channels", self.residual_channels)
        require_positive("channels", *self.channels)
        require_at_least_0("residual_blocks", self.residual_blocks)
        if not self.channels:
            raise VaezooError("option 'channels' is empty", "give one number for each halving, such as channels=64,128")

    def part(self) -> QuantizerPart:
        """Returns the choice of a quantizer."""
        return cast("QuantizerPart", self.quantizer)

    def residual(self) -> list[nn.Module]:
        """Returns the residual blocks of one network."""
        return residual_layers(self.channels[-1], self.residual_channels, self.residual_blocks)


class Quantized(NamedTuple):
    """What a decoder is given for codes, and what training minimises besides the bound.

    Attributes:
        vectors: The vectors, with gradients that go straight to the features.
        loss: `(B,)`, or None.
    """

    vectors: Tensor
    loss: Tensor | None


class CodeVAE(VAE):
    """An autoencoder whose latents are the codes of quantizers.

    Args:
        data: Images.
        latent_shape: Shape of the codes of an example.
        levels: The levels of the codes, all with the same number of codes.
    """

    def __init__(self, data: DataSpec, latent_shape: tuple[int, ...], levels: Sequence[LatentLevel]) -> None:
        super().__init__(data, latent_shape, UniformCodes(levels[0].codes, latent_shape))
        self.latent_levels = tuple(levels)

    @abstractmethod
    def quantize(self, features: Tensor, z: Tensor) -> Quantized:
        """Returns what the decoder is given for codes. In training mode the codebooks learn."""

    @abstractmethod
    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Returns the parameters of p(x|z) for vectors as `quantize` returns them."""

    def forward(self, posterior: Posterior, batch: Batch, *, at_sample: bool = False) -> VAEOutput:
        """Overridden: gradients go straight through the codes, and a training step updates the codebooks.

        The decoder gets the vectors. Its gradient by them goes to the features, as if they were what it got.

        Raises:
            VaezooError: If `at_sample` is given, because there is no density.
        """
        z, features = cast("Codes", posterior)
        if at_sample:
            posterior.log_prob(z)
        with torch.autocast(batch.x.device.type, enabled=False):
            vectors, loss = self.quantize(features, z)
        params = to_float32(self.decode_vectors(vectors))
        return VAEOutput(z, params, self.prior.kl_terms(posterior, z), loss)


class GridVAE(CodeVAE):
    """An autoencoder with one grid of codes. A model makes features of images, and images of vectors.

    Args:
        data: Images.
        part: The choice of a quantizer.
        grid: Height and width of the grid.

    Attributes:
        codebook: The quantizer, which the model builds. The name is that of its tensors in saved runs.
    """

    codebook: Quantizer

    def __init__(self, data: DataSpec, part: QuantizerPart, grid: tuple[int, ...]) -> None:
        super().__init__(data, code_shape(part, grid), code_levels(part, "codebook", grid))

    @abstractmethod
    def grid_features(self, x: Tensor) -> Tensor:
        """Returns what becomes codes, `(B, dim, h, w)`, for images `(B, *data.shape)`."""

    def encode(self, x: Tensor) -> Codes:
        features = to_float32(self.grid_features(x))
        with torch.autocast(x.device.type, enabled=False):  # distances in bfloat16 would give other codes
            return Codes(self.codebook.nearest(features), features)

    def decode(self, z: Tensor) -> Tensor:
        return self.decode_vectors(self.codebook.embed(z))

    def quantize(self, features: Tensor, z: Tensor) -> Quantized:
        return Quantized(self.codebook.straight_through(features, z), self.codebook.learn(features, z))

    @torch.no_grad()
    def init_codebook(self, train: Split) -> None:
        """Initialises the codebook with features of the data."""
        if self.codebook.first_vectors:
            x = first_images(train, self.codebook, math.prod(self.latent_shape[-2:]))
            self.codebook.init_from_features(to_float32(self.grid_features(x)))


class ConvGridVAE(GridVAE):
    """The network of the VQ-VAE (van den Oord et al. 2017), with any quantizer.

    Args:
        config: The options.
        data: Images.

    Raises:
        UnsupportedDataError: If the data are not images of 8x8 to 256x256 pixels, or are too small for the channels.
    """

    def __init__(self, config: CodeConfig, data: DataSpec) -> None:
        network, part = ConvConfig(channels=config.channels), config.part()
        specs, outer = (conv_specs(network, data, shape[0]) for shape in (data.features_shape, data.params_shape))
        channels = config.channels[-1]
        super().__init__(data, part, specs[-1].out_size)
        self.encoder = nn.Sequential(
            *conv_layers(specs, network.activation),
            nn.Conv2d(channels, channels, 3, padding=1),
            *config.residual(),
            nn.Conv2d(channels, part.dim, 1),
        )
        self.codebook = part.build()
        layers = [nn.Conv2d(part.dim, channels, 3, padding=1), *config.residual()]
        self.decoder = nn.Sequential(*layers, *upsampling(outer, network.activation))

    def grid_features(self, x: Tensor) -> Tensor:
        features: Tensor = self.encoder(self.data.features(x))
        return features

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        params: Tensor = self.decoder(vectors)
        return params

    def init_from_data(self, train: Split) -> None:
        """Overridden: initialises the decoder's output bias, and the codebook with features of the data."""
        init_output_bias(self.decoder, self.likelihood, train)
        self.init_codebook(train)


def code_shape(part: QuantizerPart, grid: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of the codes of a grid."""
    return (part.depth, *grid) if part.depth else grid


def code_levels(part: QuantizerPart, name: str, grid: tuple[int, ...]) -> list[LatentLevel]:
    """Returns the levels of the codes of a grid: one, or one for each codebook."""
    names = [f"{name}_{i + 1}" for i in range(part.depth)] or [name]
    return [LatentLevel(name, math.prod(grid), part.size, grid) for name in names]


def upsampling(specs: Sequence[ConvSpec], activation: Activation) -> list[nn.Module]:
    """Returns the reverse of an encoder's convolutions, from the features of the grid to unbounded images."""
    layers: list[nn.Module] = []
    for spec in reversed(specs[1:]):
        layers += [transposed_layer(spec), make_activation(activation, spec.in_channels)]
    return [*layers, transposed_layer(specs[0])]


def first_images(train: Split, quantizer: Quantizer, positions: int) -> Tensor:
    """Returns images with enough positions for the first vectors of a quantizer."""
    count = max(INIT_EXAMPLES, INIT_POSITIONS * quantizer.first_vectors // positions)
    return train.subsample(count).batch(slice(None)).x


def build(config: CodeConfig, data: DataSpec) -> ConvGridVAE:
    """Builds a model with one grid of codes. Raises as ConvGridVAE does."""
    return ConvGridVAE(config, data)


def objective(config: CodeConfig, data: DataSpec) -> VQLoss:
    """Returns the objective of a model with codes."""
    return VQLoss()

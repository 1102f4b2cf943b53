"""VQ-VAE-2 (Razavi et al. 2019): a grid of codes, given a coarser one.

The top codes, of half the size, are made from the features of the bottom grid. The bottom codes are made from these
features and the top vectors. The decoder is given the vectors of both (section 3.1, figure 2a). The grids lie side by
side in z, the top first.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaezoo.core.precision import to_float32
from vaezoo.data.base import Split
from vaezoo.data.spec import DataSpec
from vaezoo.gaussian_vae import init_output_bias
from vaezoo.nn.codes import (
    CODE_FORMULAS,
    CodeConfig,
    CodeVAE,
    Quantized,
    code_levels,
    code_shape,
    first_images,
    objective,
    upsampling,
)
from vaezoo.nn.conv import ConvConfig, conv_specs
from vaezoo.nn.quantizers.base import Quantizer
from vaezoo.nn.strided import conv_layers, transposed_layer
from vaezoo.posteriors.codes import Codes
from vaezoo.spec import ModelSpec

Shape = tuple[int, ...]


class Levels(NamedTuple):
    """A tensor of the top grid and one of the bottom grid, `(B, ...)` each."""

    top: Tensor
    bottom: Tensor

    def flat(self) -> Tensor:
        """Returns both side by side, `(B, N)`."""
        return torch.cat([self.top.flatten(1), self.bottom.flatten(1)], 1)


class LevelShapes(NamedTuple):
    """The shapes of a tensor of the top grid and of one of the bottom grid, without the batch."""

    top: Shape
    bottom: Shape

    def split(self, flat: Tensor) -> Levels:
        """Returns both tensors for what `Levels.flat` returned."""
        top, bottom = torch.split(flat, [math.prod(self.top), math.prod(self.bottom)], 1)
        return Levels(top.reshape(-1, *self.top), bottom.reshape(-1, *self.bottom))


class VQVAE2(CodeVAE):
    """Two grids of codes. Each has a quantizer of its own, with the same options.

    Args:
        config: The options. `channels` leads to the bottom grid, and one more halving to the top.
        data: Images.

    Raises:
        UnsupportedDataError: If the data are not images of 8x8 to 256x256 pixels, or are too small for the channels.
    """

    def __init__(self, config: CodeConfig, data: DataSpec) -> None:
        channels, part = config.channels[-1], config.part()
        network = ConvConfig(channels=(*config.channels, channels))
        specs, outer = (conv_specs(network, data, shape[0]) for shape in (data.features_shape, data.params_shape))
        top, bottom = specs[-1].out_size, specs[-2].out_size
        codes = LevelShapes(code_shape(part, top), code_shape(part, bottom))
        levels = [*code_levels(part, "top", top), *code_levels(part, "bottom", bottom)]
        super().__init__(data, (sum(map(math.prod, codes)),), levels)
        self.codes = codes
        self.vectors = LevelShapes((part.dim, *top), (part.dim, *bottom))

        def at_grid(inputs: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, channels, 3, padding=1), *config.residual()]

        down = conv_layers(specs, network.activation)
        halving = len(down) - 2  # the last convolution with its activation
        self.encoder = nn.Sequential(*down[:halving], *at_grid(channels))
        self.top_encoder = nn.Sequential(*down[halving:], *at_grid(channels), nn.Conv2d(channels, part.dim, 1))
        self.top_codebook = part.build()
        self.condition = nn.Sequential(*at_grid(part.dim), transposed_layer(specs[-1]))
        self.bottom_encoder = nn.Conv2d(2 * channels, part.dim, 1)
        self.bottom_codebook = part.build()
        self.upsample = transposed_layer(specs[-1]._replace(in_channels=part.dim, out_channels=part.dim))
        self.decoder = nn.Sequential(*at_grid(2 * part.dim), *upsampling(outer[:-1], network.activation))

    def encode(self, x: Tensor) -> Codes:
        features, top = self._encode_top(x)
        with torch.autocast(x.device.type, enabled=False):  # distances in bfloat16 would give other codes
            top_codes = self.top_codebook.nearest(top)
            top_vectors = self.top_codebook.straight_through(top, top_codes)
        bottom = self._encode_bottom(features, top_vectors)
        with torch.autocast(x.device.type, enabled=False):
            codes = Levels(top_codes, self.bottom_codebook.nearest(bottom))
        return Codes(codes.flat(), Levels(top, bottom).flat())

    def decode(self, z: Tensor) -> Tensor:
        top, bottom = self.codes.split(z)
        return self.decode_vectors(Levels(self.top_codebook.embed(top), self.bottom_codebook.embed(bottom)).flat())

    def quantize(self, features: Tensor, z: Tensor) -> Quantized:
        vectors, losses = [], []
        quantizers: list[Quantizer] = [self.top_codebook, self.bottom_codebook]
        for quantizer, own, codes in zip(quantizers, self.vectors.split(features), self.codes.split(z), strict=True):
            vectors.append(quantizer.straight_through(own, codes))
            losses.append(quantizer.learn(own, codes))
        present = [loss for loss in losses if loss is not None]
        return Quantized(Levels(*vectors).flat(), sum(present[1:], present[0]) if present else None)

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        top, bottom = self.vectors.split(vectors)
        params: Tensor = self.decoder(torch.cat([bottom, self.upsample(top)], 1))
        return params

    @torch.no_grad()
    def init_from_data(self, train: Split) -> None:
        """Overridden: initialises the decoder's output bias, and both codebooks with features of the data."""
        init_output_bias(self.decoder, self.likelihood, train)
        if not self.top_codebook.first_vectors:
            return
        features, top = self._encode_top(first_images(train, self.top_codebook, math.prod(self.vectors.top[1:])))
        self.top_codebook.init_from_features(top)
        top_vectors = self.top_codebook.embed(self.top_codebook.nearest(top))
        self.bottom_codebook.init_from_features(self._encode_bottom(features, top_vectors))

    def _encode_top(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the features of the bottom grid, and what the top codes are made of."""
        features = self.encoder(self.data.features(x))
        return features, to_float32(self.top_encoder(features))

    def _encode_bottom(self, features: Tensor, top_vectors: Tensor) -> Tensor:
        """Returns what the bottom codes are made of."""
        return to_float32(self.bottom_encoder(torch.cat([features, self.condition(top_vectors)], 1)))


def build(config: CodeConfig, data: DataSpec) -> VQVAE2:
    """Builds the model. Raises as VQVAE2 does."""
    return VQVAE2(config, data)


SPEC = ModelSpec(
    config=CodeConfig(),
    build=build,
    objective=objective,
    summary="Two grids of discrete codes, the bottom one given the top one, for images from 8x8 to 256x256",
    reference="Razavi et al. 2019, arXiv 1906.00446",
    parts={"posterior": "codes", "prior": "uniform codes", "objective": "vq"},
    formulas=CODE_FORMULAS,
)

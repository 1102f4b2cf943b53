"""Decoders of coordinates: the value of each pixel is a function of z and of the pixel's place.

Such a network is a compositional pattern-producing network (Stanley 2007). As the decoder of a VAE it draws images of
any resolution (Ha 2016, "Generating Large Images from Latent Vectors", blog.otoro.net).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vaezoo.core.coordinates import COORDINATES, Resolution, parse_resolution, pixel_coordinates
from vaezoo.core.options import require_positive
from vaezoo.data.spec import DataSpec
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.likelihoods.base import Shape
from vaezoo.nn.mlp import MLPConfig, flatten
from vaezoo.vae import VAE

Wave = Literal["tanh", "sine", "gaussian"]
CHUNK_PIXELS = 1 << 18  # pixels that are decoded at a time at another resolution than that of the data


class Sine(nn.Module):
    """sin(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


class Gaussian(nn.Module):
    """exp(-x^2)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(-x.square())


WAVES: dict[Wave, type[nn.Module]] = {"tanh": nn.Tanh, "sine": Sine, "gaussian": Gaussian}


@dataclass(frozen=True, kw_only=True)
class CPPNConfig(MLPConfig):
    """The options of a dense encoder with a decoder of coordinates.

    Attributes:
        hidden: Sizes of the encoder's hidden layers.
        activation: Activation of the encoder's hidden layers.
        units: Units of each of the decoder's hidden layers, which are the same for all pixels.
        layers: Hidden layers of the decoder.
        wave: Activation of the decoder: tanh, sine, or gaussian, which is exp(-x^2). All are smooth, so images are too.
        frequency: Factor of the coordinates. Larger values give finer patterns before training.

    Raises:
        VaezooError: If a value is out of range.
    """

    units: int = 64
    layers: int = 4
    wave: Wave = "tanh"
    frequency: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("units", self.units)
        require_positive("layers", self.layers)
        if not 0 < self.frequency < 1e6:
            raise VaezooError(f"option 'frequency' is {self.frequency:g}", "give 'frequency' above 0, such as 4")

    def make_decoder(self, data: DataSpec, inputs: Shape, outputs: Shape) -> nn.Sequential:
        """Returns a network from `(B, *inputs)` to images `(B, *outputs)`.

        Raises:
            UnsupportedDataError: If the data are not images.
        """
        if len(data.shape) != 3 or data.kind not in ("unit", "real"):
            raise UnsupportedDataError(
                f"data set '{data.name}' has shape {data.shape} and kind {data.kind}, but only images have coordinates",
                "use mlp-vae",
            )
        return CPPN(self, inputs, outputs)


class FirstLayer(nn.Module):
    """A dense layer of z and of the coordinates of each pixel.

    Args:
        inputs: The shape of z.
        units: Units of the layer.
        frequency: Factor of the coordinates.
    """

    def __init__(self, inputs: Shape, units: int, frequency: float) -> None:
        super().__init__()
        self.from_z = nn.Sequential(*flatten(inputs), nn.Linear(torch.Size(inputs).numel(), units))
        self.from_place = nn.Conv2d(COORDINATES, units, 1, bias=False)
        self.frequency = frequency

    def forward(self, z: Tensor, coordinates: Tensor) -> Tensor:
        """Returns `(B, units, H, W)` for z and coordinates `(B, 3, H, W)`, or `(1, 3, H, W)` for all examples."""
        place: Tensor = self.from_place(self.frequency * coordinates)
        values: Tensor = place + self.from_z(z)[:, :, None, None]
        return values


class CPPN(nn.Sequential):
    """A decoder of coordinates, `(B, *inputs)` to `(B, C, H, W)`. A dense layer of all pixels is a 1x1 convolution.

    Args:
        config: The options.
        inputs: The shape of z.
        outputs: The shape of the parameters of p(x|z) at the resolution of the data.
    """

    def __init__(self, config: CPPNConfig, inputs: Shape, outputs: Shape) -> None:
        layers: list[nn.Module] = [FirstLayer(inputs, config.units, config.frequency), WAVES[config.wave]()]
        for _ in range(config.layers - 1):
            layers += [nn.Conv2d(config.units, config.units, 1), WAVES[config.wave]()]
        super().__init__(*layers, nn.Conv2d(config.units, outputs[0], 1))
        coordinates = torch.from_numpy(pixel_coordinates(*outputs[1:])).unsqueeze(0)
        self.register_buffer("coordinates", coordinates, persistent=False)
        self.coordinates: Tensor
        self.is_resized = False

    def forward(self, z: Tensor, coordinates: Tensor | None = None) -> Tensor:
        """Returns the parameters of p(x|z).

        Args:
            z: `(B, *inputs)`.
            coordinates: `(B, 3, H, W)`. By default those of the data, or of `at_resolution`.
        """
        if coordinates is not None:
            return self._layers(z, coordinates)
        if not self.is_resized:
            return self._layers(z, self.coordinates)
        height, width = self.coordinates.shape[2:]
        images = []
        bands = torch.split(self.coordinates, max(1, CHUNK_PIXELS // width), 2)
        for part in torch.split(z, max(1, CHUNK_PIXELS // (height * width))):
            images.append(torch.cat([self._layers(part, band) for band in bands], 2))
        return torch.cat(images)

    def _layers(self, z: Tensor, coordinates: Tensor) -> Tensor:
        x = z
        for number, layer in enumerate(self):
            x = layer(x) if number else layer(z, coordinates)
        return x


@contextmanager
def at_resolution(vae: VAE, resolution: Resolution | None) -> Iterator[None]:
    """Lets a model decode to another resolution inside the block. None: that of the data.

    Args:
        vae: The model.
        resolution: As `parse_resolution` takes it.

    Raises:
        VaezooError: If the decoder takes no coordinates, or the resolution is not valid.
    """
    if resolution is None:
        yield
        return
    decoder, size = require_coordinates(vae), parse_resolution(resolution)
    before, was_resized = decoder.coordinates, decoder.is_resized
    decoder.coordinates = torch.from_numpy(pixel_coordinates(*size)).unsqueeze(0).to(before)
    decoder.is_resized = True
    try:
        yield
    finally:
        decoder.coordinates, decoder.is_resized = before, was_resized


def require_coordinates(vae: VAE) -> CPPN:
    """Returns the decoder of a model. Raises VaezooError unless it takes coordinates."""
    decoder = getattr(vae, "decoder", None)
    if not isinstance(decoder, CPPN):
        raise VaezooError(
            "the decoder of this model takes no coordinates, so its images have one resolution",
            "leave out the resolution, or use cppn-vae",
        )
    return decoder

"""A VAE whose decoder is a function of coordinates, so that its images have any resolution.

The decoder computes log-odds or means of each pixel from z and the pixel's x, y and radius (Ha 2016, "Generating Large
Images from Latent Vectors", blog.otoro.net). Training minimises the negative ELBO at the resolution of the data. There
is no adversarial loss, which the article adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vaezoo.composition import ComposedVAE, Parts, compose, composed
from vaezoo.core.coordinates import pixel_coordinates
from vaezoo.data.base import Batch
from vaezoo.data.spec import DataSpec
from vaezoo.nn.cppn import CPPNConfig
from vaezoo.nn.labels import InferredLabelVAE, with_labels
from vaezoo.vae import Graph


@dataclass(frozen=True, kw_only=True)
class CPPNParts(Parts, CPPNConfig):
    """The options of a composed model with a decoder of coordinates."""


class CPPNVAE(ComposedVAE):
    """A composed model whose decoder.onnx takes coordinates `(B, 3, H, W)` as a further input, of any height and width.

    For the arguments see ComposedVAE.
    """

    def decode_at(self, z: Tensor, coordinates: Tensor, y: Tensor | None = None) -> Tensor:
        """Returns the parameters of p(x|z) at coordinates `(B, 3, H, W)`; see `vaezoo.core.coordinates`."""
        z = z if self.latent_scale == 1 else self.latent_scale * z
        params: Tensor = self.decoder(with_labels(z, y, self.classes), coordinates)
        return params

    def graphs(self) -> dict[str, Graph]:
        """Overridden: the decoder takes coordinates too."""
        graphs = super().graphs()
        plain = graphs["decoder"]

        def run(z: Tensor, coordinates: Tensor, *labels: Tensor) -> dict[str, Tensor]:
            return self.likelihood.outputs(self.decode_at(z, coordinates, *labels))

        def inputs(batch: Batch, height: int, width: int) -> tuple[Tensor, ...]:
            z, *labels = plain.inputs(batch)
            places = torch.from_numpy(pixel_coordinates(height, width))
            return z, places.expand(len(z), -1, -1, -1).contiguous(), *labels

        _, height, width = self.data.shape
        names = ("z", "coordinates", *plain.names[1:])
        usual = partial(inputs, height=height, width=width)
        # The sides of the other size have no factor in common with those of the data.
        other = partial(inputs, height=height + 1, width=2 * width + 1)
        return graphs | {"decoder": Graph(names, run, usual, more=(other,))}


def build(config: CPPNParts, data: DataSpec) -> ComposedVAE | InferredLabelVAE:
    """Builds the model; see `vaezoo.composition.compose`."""
    return compose(config, data, CPPNVAE)


SPEC = composed(
    CPPNParts(),
    build=build,
    summary="Dense encoder, decoder of coordinates: samples of any resolution",
    reference="Ha 2016, blog.otoro.net, Generating Large Images from Latent Vectors; Stanley 2007",
)

"""scVI: a VAE of counts, of genes in cells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from vaezoo.composition import MLPParts, compose, composed
from vaezoo.data.spec import DataSpec
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.likelihoods.base import Shape
from vaezoo.nn.activations import ACTIVATIONS, gate_factor
from vaezoo.nn.mlp import unflatten
from vaezoo.vae import VAE

EPSILON, MOMENTUM = 1e-3, 0.01  # of batch normalisation, as in the published code


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of vectors, which says what is wrong with a batch of one example."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) < 2:
            raise VaezooError(
                "scvi cannot train on a batch of one example, because it normalises over the batch",
                "give --batch-size 2 or more",
            )
        return super().forward(x)


@dataclass(frozen=True, kw_only=True)
class ScviConfig(MLPParts):
    """The options of scVI. Sizes are those of the published code.

    Attributes:
        dropout: Probability with which a hidden unit of the encoder is 0 in training.

    Raises:
        VaezooError: If an option is out of range.
    """

    latent_dim: int = 10
    hidden: tuple[int, ...] = (128,)
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dropout < 1:
            raise VaezooError(f"option 'dropout' is {self.dropout:g}", "give 'dropout' from 0 to below 1")

    def make_encoder(self, data: DataSpec, inputs: Shape, outputs: Shape) -> nn.Sequential:
        """Overridden: with batch normalisation and dropout."""
        sizes = (math.prod(inputs), *self.hidden)
        last = nn.Linear(sizes[-1], math.prod(outputs))
        return nn.Sequential(nn.Flatten(), *self._hidden_layers(sizes, self.dropout), last, *unflatten(outputs))

    def make_decoder(self, data: DataSpec, inputs: Shape, outputs: Shape) -> nn.Sequential:
        """Overridden: with batch normalisation."""
        sizes = (math.prod(inputs), *reversed(self.hidden))
        last = nn.Linear(sizes[-1], math.prod(outputs))
        return nn.Sequential(*self._hidden_layers(sizes, 0.0), last, nn.Unflatten(1, outputs))

    def _hidden_layers(self, sizes: tuple[int, ...], dropout: float) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            width = gate_factor(self.activation) * after
            norm = BatchNorm(width, eps=EPSILON, momentum=MOMENTUM)
            layers += [nn.Linear(before, width), norm, ACTIVATIONS[self.activation]()]
            layers += [nn.Dropout(dropout)] if dropout else []
        return layers


def build(config: ScviConfig, data: DataSpec) -> VAE:
    """Builds the model.

    Raises:
        UnsupportedDataError: If the data are not counts.
    """
    if data.kind != "count":
        raise UnsupportedDataError(
            f"scvi is a model of counts, and '{data.name}' is of kind {data.kind}",
            "give counts, such as --data counts.npz --kind counts",
        )
    return compose(config, data)


SPEC = composed(
    ScviConfig(),
    summary="Counts, such as those of genes in cells: zero-inflated negative binomial given the library size",
    reference="Lopez et al. 2018, doi 10.1038/s41592-018-0229-2",
    build=build,
)

"""The hierarchical VAE with two levels (Tomczak and Welling 2018, section 4): z_2 above z_1, and x from both.

p(x, z_1, z_2) = p(x|z_1, z_2) p(z_1|z_2) p(z_2), and q(z_1, z_2|x) = q(z_1|x, z_2) q(z_2|x).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from vaezoo.core.option_values import PartOf
from vaezoo.core.options import require_positive
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.nn.activations import Activation
from vaezoo.nn.hierarchy import HierarchicalVAE, Sizes, TopDown, check_parts
from vaezoo.nn.mlp import hidden_layers, mlp_layers
from vaezoo.objectives.base import Objective
from vaezoo.objectives.elbo import ELBOPart
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.priors.standard_normal import StandardNormalPart
from vaezoo.spec import ModelSpec

NAME = "hvae"
LEVELS = 2


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of hvae.

    Attributes:
        latents: Latent dimensions of z_2 and z_1, the upper level first.
        hidden: Sizes of the hidden layers of each network. Networks that go down have them in reverse order. A network
            of two inputs has a first layer for each of them.
        activation: Activation of the hidden layers. With `gated`, the sigmoid of a second layer multiplies each of
            them.
        prior: The family of p(z_2).
        objective: What training minimises.

    Raises:
        VaezooError: If there are not two levels, or a size is not positive.
    """

    latents: Sizes = (40, 40)
    hidden: Sizes = (300, 300)
    activation: Activation = "gated"
    prior: Annotated[object, PartOf("vaezoo.priors")] = StandardNormalPart()
    objective: Annotated[object, PartOf("vaezoo.objectives")] = ELBOPart()

    def __post_init__(self) -> None:
        require_positive("latents", *self.latents)
        require_positive("hidden", *self.hidden)
        if len(self.latents) != LEVELS:
            raise VaezooError(
                f"option 'latents' has {len(self.latents)} values, but hvae has two levels",
                "give two values, or use ladder-vae",
            )
        if not self.hidden:
            raise VaezooError("option 'hidden' has 0 values", "give at least one layer")


class Evidence(nn.Module):
    """What x says about both levels, from a network for each.

    Args:
        in_features: Features of x.
        config: The options.
    """

    def __init__(self, in_features: int, config: Config) -> None:
        super().__init__()
        sizes = (in_features, *config.hidden, 2 * config.latents[0])
        self.upper = nn.Sequential(*mlp_layers(sizes, config.activation))
        self.lower = nn.Sequential(*hidden_layers((in_features, config.hidden[0]), config.activation))

    def forward(self, features: Tensor) -> Tensor:
        """Returns the evidence of both levels, the upper first."""
        features = features.flatten(1)
        return torch.cat([self.upper(features), self.lower(features)], 1)


class JointNetwork(TopDown):
    """q(z_1|x, z_2) from the first layers of x, which are evidence, and of z_2.

    Args:
        config: The options.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        upper, lower = config.latents
        first, *others = config.hidden
        self.widths = (2 * upper, first)
        self.above = nn.Sequential(*hidden_layers((upper, first), config.activation))
        self.joint = nn.Sequential(*mlp_layers((2 * first, *others, 2 * lower), config.activation))

    def forward(self, level: int, evidence: Tensor, prior: DiagonalGaussian, above: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian.from_raw(*self.joint(torch.cat([evidence, self.above(above)], 1)).chunk(2, 1))


class FirstLayers(nn.Module):
    """A first layer for each level of z.

    Args:
        latents: Latent dimensions of each level.
        width: Units of each layer.
        activation: Their activation.
    """

    def __init__(self, latents: Sizes, width: int, activation: Activation) -> None:
        super().__init__()
        self.latents = latents
        self.layers = nn.ModuleList(nn.Sequential(*hidden_layers((n, width), activation)) for n in latents)

    def forward(self, z: Tensor) -> Tensor:
        """Maps latents `(B, sum(latents))` to `(B, levels * width)`."""
        levels = torch.split(z, list(self.latents), 1)
        return torch.cat([layer(level) for layer, level in zip(self.layers, levels, strict=True)], 1)


def build(config: Config, data: DataSpec) -> HierarchicalVAE:
    """Builds the model.

    Raises:
        VaezooError: If the prior or the objective does not fit.
        UnsupportedDataError: If the prior does not support the data.
    """
    prior, _ = check_parts(NAME, config.prior, config.objective)
    downwards, activation = config.hidden[::-1], config.activation
    first, *others = downwards
    return HierarchicalVAE(
        data,
        config.latents,
        head=JointNetwork(config),
        encoder=Evidence(math.prod(data.features_shape), config),
        decoder=nn.Sequential(
            FirstLayers(config.latents, first, activation),
            *mlp_layers((LEVELS * first, *others, math.prod(data.params_shape)), activation),
            nn.Unflatten(1, data.params_shape),
        ),
        seen=sum(config.latents),
        prior=prior,
        hidden=downwards,
        activation=activation,
    )


def objective(config: Config, data: DataSpec) -> Objective:
    """Returns the chosen objective. Raises as `check_parts` does."""
    return check_parts(NAME, config.prior, config.objective)[1].build(data, (sum(config.latents),))


SPEC = ModelSpec(
    config=Config(),
    build=build,
    objective=objective,
    summary="Two levels of latents on gated dense layers, with a standard normal or VampPrior on top",
    reference="Tomczak and Welling 2018, arXiv 1705.07120",
    parts={"posterior": "two levels"},
    formulas={
        "posterior": r"q(z_1, z_2 \mid x) = q(z_1 \mid x, z_2)\,q(z_2 \mid x)",
        "prior": r"p(z_1, z_2) = p(z_1 \mid z_2)\,p(z_2)",
    },
)

"""The ladder VAE (Sonderby et al. 2016): levels of latents, each of which is drawn given the one above."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import nn

from vaezoo.core.option_values import PartOf
from vaezoo.core.options import require_positive
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.nn.activations import Activation
from vaezoo.nn.hierarchy import HierarchicalVAE, Sizes, TopDown, check_parts
from vaezoo.nn.ladder import BottomUp, PrecisionWeighted, SeparateNetworks
from vaezoo.nn.mlp import mlp_layers
from vaezoo.objectives.base import Objective
from vaezoo.objectives.elbo import ELBOPart
from vaezoo.priors.standard_normal import StandardNormalPart
from vaezoo.spec import ModelSpec

NAME = "ladder-vae"


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ladder-vae.

    Attributes:
        latents: Latent dimensions of each level, the top first. At least two levels.
        hidden: Sizes of the hidden layers of each network. Networks that go down have them in reverse order.
        activation: Activation of the hidden layers.
        inference: How q of a level below the top is made. `ladder` weights the evidence and the prior by their
            precisions. `networks` has a network of its own for each level.
        decoder_levels: The levels that the decoder sees: the `lowest`, as in the paper, or `all`.
        prior: The family of p(z) of the top level.
        objective: What training minimises.

    Raises:
        VaezooError: If there are fewer than two levels, or a size is not positive.
    """

    latents: Sizes = (8, 16)
    hidden: Sizes = (256, 256)
    activation: Activation = "leaky-relu"
    inference: Literal["ladder", "networks"] = "ladder"
    decoder_levels: Literal["lowest", "all"] = "lowest"
    prior: Annotated[object, PartOf("vaezoo.priors")] = StandardNormalPart()
    objective: Annotated[object, PartOf("vaezoo.objectives")] = ELBOPart()

    def __post_init__(self) -> None:
        require_positive("latents", *self.latents)
        require_positive("hidden", *self.hidden)
        if len(self.latents) < 2 or not self.hidden:
            option, least = ("latents", "two levels") if len(self.latents) < 2 else ("hidden", "one layer")
            raise VaezooError(f"option '{option}' has {len(getattr(self, option))} values", f"give at least {least}")


def build(config: Config, data: DataSpec) -> HierarchicalVAE:
    """Builds the model.

    Raises:
        VaezooError: If the prior or the objective does not fit.
        UnsupportedDataError: If the prior does not support the data.
    """
    prior, _ = check_parts(NAME, config.prior, config.objective)
    sizes, hidden, activation = config.latents, config.hidden, config.activation
    head: TopDown
    head = PrecisionWeighted(sizes) if config.inference == "ladder" else SeparateNetworks(sizes, hidden, activation)
    encoder = BottomUp(math.prod(data.features_shape), head.widths, hidden, activation)
    seen, downwards = sum(sizes) if config.decoder_levels == "all" else sizes[-1], hidden[::-1]
    decoder = mlp_layers((seen, *downwards, math.prod(data.params_shape)), activation)
    return HierarchicalVAE(
        data,
        sizes,
        head=head,
        encoder=encoder,
        decoder=nn.Sequential(*decoder, nn.Unflatten(1, data.params_shape)),
        seen=seen,
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
    summary="Two or more levels of latents, inferred from the top down, on dense layers",
    reference="Sonderby et al. 2016, arXiv 1602.02282",
    parts={"posterior": "levels"},
    formulas={
        "posterior": r"q(z \mid x) = q(z_L \mid x) \prod_{l=1}^{L-1} q(z_l \mid x, z_{l+1})",
        "prior": r"p(z) = p(z_L) \prod_{l=1}^{L-1} p(z_l \mid z_{l+1})",
    },
)

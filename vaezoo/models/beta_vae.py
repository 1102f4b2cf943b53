"""The convolutional VAE with a weighted KL (beta-VAE), or with the growing KL capacity of Burgess et al. 2018."""

from __future__ import annotations

from dataclasses import dataclass

from vaezoo.data.spec import DataSpec
from vaezoo.nn.conv import ConvConfig, conv_vae
from vaezoo.objectives.elbo import ELBO
from vaezoo.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Config(ConvConfig):
    """The options of beta-vae, besides those of the network.

    Attributes:
        beta: Weight of the KL. With a capacity, weight of the distance between KL and capacity (gamma in Burgess et
            al.).
        capacity: KL in nats that training aims at in the end. None: plain beta-VAE.
        capacity_steps: Steps over which the capacity grows linearly from 0.
    """

    beta: float = 4.0
    capacity: float | None = None
    capacity_steps: int = 10_000


def objective(config: Config, data: DataSpec) -> ELBO:
    """Returns the objective. Raises as ELBO does."""
    return ELBO(config.beta, config.capacity, config.capacity_steps)


SPEC = ModelSpec(
    config=Config(),
    build=conv_vae,
    objective=objective,
    summary="The convolutional VAE with a weighted KL, or with a KL capacity that grows",
    reference="Higgins et al. 2017; Burgess et al. 2018, arXiv 1804.03599",
    parts={"posterior": "diagonal", "prior": "normal", "objective": "elbo"},
)

"""The convolutional VAE with a weighted KL, or with Burgess et al.'s growing capacity."""

from __future__ import annotations

from dataclasses import dataclass

from vaezoo.data.base import DataSpec
from vaezoo.nn.conv import ConvConfig, conv_vae
from vaezoo.objectives.elbo import ELBO
from vaezoo.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Config(ConvConfig):
    """The options of beta-vae: those of the network, and

    Attributes:
        beta: Weight of the KL; with a capacity, of its distance from the capacity (Burgess' gamma).
        capacity: KL in nats that training aims at in the end; none: plain beta-VAE.
        capacity_steps: Steps over which the capacity grows from 0.
    """

    beta: float = 4.0
    capacity: float | None = None
    capacity_steps: int = 10_000


def objective(config: Config, data: DataSpec) -> ELBO:
    """Builds the objective."""
    return ELBO(config.beta, config.capacity, config.capacity_steps)


SPEC = ModelSpec(
    config=Config(),
    build=conv_vae,
    objective=objective,
    summary="The convolutional VAE with a weighted KL, or a KL capacity that grows",
    reference="Higgins et al. 2017; Burgess et al. 2018, arXiv 1804.03599",
)

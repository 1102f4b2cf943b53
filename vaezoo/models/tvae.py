"""TVAE: a VAE of tables whose real columns have modes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from vaezoo.composition import ComposedVAE, MLPParts, compose, composed
from vaezoo.data.spec import DataSpec
from vaezoo.errors import UnsupportedDataError
from vaezoo.likelihoods.base import Shape
from vaezoo.likelihoods.table_modes import ModeTable
from vaezoo.vae import VAE

LIKELIHOOD = "table:modes"


class TVAE(ComposedVAE):
    """A composed VAE whose encoder gets real columns by mode."""

    def features(self, x: Tensor) -> Tensor:
        """Overridden: the modes belong to the likelihood, and the data do not know them."""
        assert isinstance(self.likelihood, ModeTable)
        return self.likelihood.normalize(x)


@dataclass(frozen=True, kw_only=True)
class TVAEConfig(MLPParts):
    """The options of TVAE. Sizes are those of the published code."""

    latent_dim: int = 128
    hidden: tuple[int, ...] = (128, 128)

    def input_shape(self, data: DataSpec) -> Shape:
        """Overridden: real columns have more features than those of the data."""
        return (ModeTable(data.columns).features_size,)


def build(config: TVAEConfig, data: DataSpec) -> VAE:
    """Builds the model. Its likelihood is that of columns with modes.

    Raises:
        UnsupportedDataError: If the data are not a table.
    """
    if data.kind != "table":
        raise UnsupportedDataError(
            f"tvae is a model of tables, and '{data.name}' is of kind {data.kind}",
            "give a .csv or .parquet file, such as --data people.csv",
        )
    return compose(config, replace(data, likelihood=LIKELIHOOD), TVAE)


SPEC = composed(
    TVAEConfig(),
    summary="Tables: continuous columns by the modes of a Gaussian mixture, categories as they are",
    reference="Xu et al. 2019, arXiv 1907.00503",
    build=build,
)

"""TimeVAE: a VAE of series whose decoder adds a trend, seasons and a residual."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vaezoo.composition import ComposedConfig, ComposedVAE, Parts, compose, composed
from vaezoo.data.spec import DataSpec
from vaezoo.nn.time_series import TimeConfig, TimeDecoder
from vaezoo.vae import VAE


@dataclass(frozen=True, kw_only=True)
class TimeParts(Parts, TimeConfig):
    """The options of TimeVAE as a composed model."""


class TimeVAE(ComposedVAE):
    """A composed model whose decoder is a sum of series that can be told apart."""

    def components(self, z: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Returns the series whose sum `decode` returns; for their names see `TimeDecoder.components`.

        Args:
            z: Latents, `(B, latent_dim)`.
            y: Labels, if the model is given labels.

        Returns:
            `(B, channels, time)` each. Where the likelihood has other parameters than the mean, these have channels,
            too.
        """
        assert isinstance(self.decoder, TimeDecoder)
        return self.decoder.components(self.decoder_input(z, y))


def build(config: ComposedConfig, data: DataSpec) -> VAE:
    """Builds TimeVAE, or with `condition=inferred` a model that infers labels with its networks."""
    return compose(config, data, TimeVAE)


SPEC = composed(
    TimeParts(),
    summary="Series as a trend, seasons and a residual, which can be told apart",
    reference="Desai et al. 2021, arXiv 2111.08095",
    build=build,
)

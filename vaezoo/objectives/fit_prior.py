"""The objective that fits p(z) to the codes of a trained model, whose other weights stay as they are."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vaezoo.core.precision import to_float32
from vaezoo.data.base import Batch, given
from vaezoo.objectives.base import LossOutput, Objective, StepContext
from vaezoo.objectives.elbo import elbo_terms
from vaezoo.vae import VAE, eval_mode

Codes = Literal["draws", "means"]


class FitPrior(Objective):
    """Minimises -E[log p(z)], the cross-entropy of the prior on the codes of the data.

    The metric `log_prior` is its negative, and selects the best checkpoint. The ELBO rises by as much, but has the
    noise of the reconstruction, and for an autoencoder it does not contain the prior.

    Args:
        codes: What the codes of an example are: draws of q(z|x), or its mode.
    """

    monitor = "log_prior"

    def __init__(self, codes: Codes = "draws") -> None:
        super().__init__()
        self.codes = codes

    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        """Overridden: the weights of the prior alone. No others may change."""
        return {"prior": list(vae.prior.parameters())}

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        # The first stage is finished, so its normalisation and dropout are, too.
        with eval_mode(vae), torch.no_grad():
            terms = elbo_terms(vae, batch)
            z: Tensor = terms.z if self.codes == "draws" else terms.posterior.mode()
        log_prior = vae.prior.log_prob(to_float32(z), *given(vae.prior.inputs, batch)).mean()
        return LossOutput({"prior": -log_prior}, {**terms.metrics, "log_prior": log_prior.detach()})

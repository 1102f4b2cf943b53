"""The importance-weighted bound (IWAE), and its doubly reparameterized gradient (DReG)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vaezoo.core.options import require_positive
from vaezoo.core.precision import to_float32
from vaezoo.data.base import Batch, DataSpec, given
from vaezoo.errors import VaezooError
from vaezoo.objectives.base import LossOutput, Objective, ObjectivePart, StepContext, refuse_free_bits
from vaezoo.objectives.elbo import elbo_terms
from vaezoo.posteriors.base import Density, Posterior, Shape, map_tensors, repeat
from vaezoo.vae import VAE

DREG_HINT = "use objective.gradient=plain"


class IWAE(Objective):
    """The bound of k importance samples (Burda, Grosse and Salakhutdinov 2016, arXiv 1509.00519, equation 8).

    With weights w_i = p(x, z_i) / q(z_i|x), the loss is -log((w_1 + ... + w_k) / k). With k = 1 it is the ELBO. During
    KL warm-up log q(z|x) - log p(z) is scaled, but the metrics always report the bound itself.

    Args:
        k: Number of samples.

    Raises:
        VaezooError: If k is not positive, and in training with free bits, which this bound does not have.
    """

    monitor = "iwae"

    def __init__(self, k: int = 50) -> None:
        super().__init__()
        require_positive("k", k)
        self.k = k

    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        return {"vae": list(vae.parameters())}

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        refuse_free_bits(step, "iwae")
        terms = elbo_terms(vae, batch, self.k, at_sample=True)
        kl = terms.kl_terms.sum(1)
        log_w = -(terms.reconstruction + step.kl_weight * kl).view(-1, self.k)
        loss = -(torch.logsumexp(log_w, 1) - math.log(self.k)).mean()
        return LossOutput({"vae": terms.with_auxiliary(loss)}, bound_metrics(terms.reconstruction, kl, self.k))


class DReG(IWAE):
    """The bound of IWAE with the doubly reparameterized gradient of the encoder (Tucker et al. 2019, arXiv 1810.04152).

    The decoder's gradient weights sample i by its normalised weight w_i. The encoder's, which comes through z alone,
    weights it by w_i^2 (equation 8). So the weights are computed first, without a gradient. In the second pass the
    gradient of z is scaled by w_i, and the loss by w_i again. This takes one loss and one more pass of the decoder. It
    needs no hooks, so the step stays one graph.

    Args:
        k: Number of samples.

    Raises:
        VaezooError: If q(z|x) has no density at any z, or the model computes z, KL and decoder in one pass.
    """

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        refuse_free_bits(step, "iwae")
        posterior, rows = repeat(self._checked(vae, vae.infer(batch)), self.k), repeat(batch, self.k)
        with torch.autocast(batch.x.device.type, enabled=False):
            posterior = map_tensors(posterior, to_float32)
            z = posterior.rsample()
        detached = map_tensors(posterior, Tensor.detach)  # the score term of q is left out, which keeps the expectation
        with torch.no_grad():
            log_p, kl = joint_terms(vae, detached, z, rows)
            share = torch.softmax((log_p - step.kl_weight * kl).view(-1, self.k), 1)
            scale = share.view(-1, *[1] * (z.ndim - 1))
        log_p, kl = joint_terms(vae, detached, scale * z + ((1 - scale) * z).detach(), rows)
        loss = -(share * (log_p - step.kl_weight * kl).view(-1, self.k)).sum(1).mean()
        return LossOutput({"vae": loss}, bound_metrics(-log_p, kl, self.k))

    def _checked(self, vae: VAE, posterior: Posterior) -> Posterior:
        if type(vae).forward is not VAE.forward:
            raise VaezooError("objective.gradient=dreg needs VAE.forward, which the model overrides", DREG_HINT)
        return posterior


def joint_terms(vae: VAE, posterior: Posterior, z: Tensor, rows: Batch) -> tuple[Tensor, Tensor]:
    """Returns log p(x|z), and log q(z|x) - log p(z), `(B K,)` each."""
    params = to_float32(vae.generate(z, rows))
    with torch.autocast(rows.x.device.type, enabled=False):
        log_prior = vae.prior.log_prob(z, *given(vae.prior.inputs, rows))
        try:
            log_q = posterior.log_prob(z)
        except VaezooError as e:
            raise VaezooError(f"objective.gradient=dreg needs a density at any z: {e.message}", DREG_HINT) from e
        return vae.likelihood.log_prob(params, rows.x), log_q - log_prior


def bound_metrics(reconstruction: Tensor, kl: Tensor, k: int) -> dict[str, Tensor]:
    """Returns the metrics for `(B k,)` terms: those of every objective, and the bound `iwae`, in nats."""
    reconstruction, kl = reconstruction.detach(), kl.detach()
    bound = (torch.logsumexp(-(reconstruction + kl).view(-1, k), 1) - math.log(k)).mean()
    terms = {"reconstruction": reconstruction.mean(), "kl": kl.mean()}
    return {"elbo": -(terms["reconstruction"] + terms["kl"]), **terms, "iwae": bound}


@dataclass(frozen=True, kw_only=True)
class IWAEPart(ObjectivePart):
    """The bound of k importance samples.

    Attributes:
        k: Number of samples.
        gradient: The encoder's gradient: plain, or doubly reparameterized (dreg), which has less variance.

    Raises:
        VaezooError: If k is not positive.
    """

    part = "iwae"
    k: int = 50
    gradient: Literal["plain", "dreg"] = "plain"

    def __post_init__(self) -> None:
        require_positive("objective.k", self.k)

    @property
    def density(self) -> Density:
        return "everywhere" if self.gradient == "dreg" else "of draws"

    def build(self, data: DataSpec, latent_shape: Shape) -> IWAE:
        return DReG(self.k) if self.gradient == "dreg" else IWAE(self.k)

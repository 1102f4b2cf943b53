"""The importance-weighted bound (IWAE), its doubly reparameterized gradient (DReG), and MIWAE, CIWAE and PIWAE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vaezoo.core.options import require_positive
from vaezoo.core.precision import to_float32
from vaezoo.data.base import Batch, given
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.likelihoods.base import ReconstructionScore
from vaezoo.objectives.base import LossOutput, Objective, ObjectivePart, StepContext, refuse_free_bits
from vaezoo.objectives.elbo import elbo_terms
from vaezoo.posteriors.base import Density, Posterior, Shape, map_tensors, repeat
from vaezoo.vae import VAE

MAX_SAMPLES = 2**63  # beyond it, a number of rows does not fit PyTorch's integers
DREG_HINT = "use objective.gradient=plain"


class IWAE(Objective):
    """The bound of k importance samples (Burda, Grosse and Salakhutdinov 2016, arXiv 1509.00519, equation 8).

    With weights w_i = p(x, z_i) / q(z_i|x), the loss is -log((w_1 + ... + w_k) / k). With k = 1 it is the ELBO. During
    KL warm-up log q(z|x) - log p(z) is scaled, but the metrics always report the bound itself.

    As k grows, the signal of the encoder's gradient falls faster than its noise. Two forms of Rainforth et al. 2018,
    arXiv 1802.04537, help against that:

    - MIWAE: the mean over m such bounds, each of its own k samples.
    - CIWAE: (1 - mix) of the bound and mix of the ELBO of the same samples, the mean of log w_i.

    Args:
        k: Number of samples in a bound.
        m: Number of bounds for each example.
        mix: Weight of the ELBO, in [0, 1]. The paper calls it beta.

    Raises:
        VaezooError: If a number is out of range, and in training with free bits, which this bound does not have.
    """

    monitor = "iwae"

    def __init__(self, k: int = 50, m: int = 1, mix: float = 0.0) -> None:
        super().__init__()
        require_positive("k", k)
        require_positive("m", m)
        if not 0 <= mix <= 1:
            raise VaezooError(f"option 'mix' is {mix:g}", "give a weight between 0 and 1")
        self.k = k
        self.m = m
        self.mix = mix
        if mix:
            self.monitor = "ciwae"

    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        return {"vae": list(vae.parameters())}

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        refuse_free_bits(step, "iwae")
        # The m k rows of an example lie side by side, so each row of log_w holds the k samples of one bound.
        terms = elbo_terms(vae, batch, self.m * self.k, at_sample=True)
        kl = terms.kl_terms.sum(1)
        log_w = -(terms.reconstruction + step.kl_weight * kl).view(-1, self.k)
        loss = -mean_bound(log_w)
        metrics = bound_metrics(terms.reconstruction, kl, self.k)
        if self.mix:
            loss = (1 - self.mix) * loss - self.mix * log_w.mean()
            metrics["ciwae"] = (1 - self.mix) * metrics["iwae"] + self.mix * metrics["elbo"]
        return LossOutput({"vae": terms.with_auxiliary(loss)}, metrics)


class PIWAE(IWAE):
    """IWAE with m k samples for the decoder, and MIWAE with m bounds of k for the encoder.

    Rainforth et al. 2018, arXiv 1802.04537: more samples in a bound help the decoder and hurt the gradient
    of the encoder. Each of the two groups of parameters minimises its own loss. The prior belongs to the decoder.

    The metric `iwae` is the bound of all m k samples, and `miwae` that of the encoder.

    Args:
        k: Number of samples in one of the encoder's bounds.
        m: Number of these bounds.

    Raises:
        VaezooError: As IWAE, and if the model has no parameters that only q(z|x) has.
    """

    def __init__(self, k: int = 50, m: int = 1) -> None:
        super().__init__(k, m)

    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        encoder = vae.inference_parameters()
        in_encoder = {id(p) for p in encoder}
        return {"encoder": encoder, "decoder": [p for p in vae.parameters() if id(p) not in in_encoder]}

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        refuse_free_bits(step, "iwae")
        samples = self.m * self.k
        terms = elbo_terms(vae, batch, samples, at_sample=True)
        kl = terms.kl_terms.sum(1)
        log_w = -(terms.reconstruction + step.kl_weight * kl)
        losses = {
            group: terms.with_auxiliary(-mean_bound(log_w.view(-1, k)))
            for group, k in (("encoder", self.k), ("decoder", samples))
        }
        miwae = bound_metrics(terms.reconstruction, kl, self.k)["iwae"]
        return LossOutput(losses, bound_metrics(terms.reconstruction, kl, samples) | {"miwae": miwae})


class DReG(IWAE):
    """The bound of IWAE with the doubly reparameterized gradient of the encoder (Tucker et al. 2019, arXiv 1810.04152).

    The decoder's gradient weights sample i by its normalised weight w_i. The encoder's, which comes through z alone,
    weights it by w_i^2 (equation 8). So the weights are computed first, without a gradient. In the second pass the
    gradient of z is scaled by w_i, and the loss by w_i again. This takes one loss and one more pass of the decoder. It
    needs no hooks, so the step stays one graph.

    Args:
        k: Number of samples in a bound.
        m: Number of bounds for each example, as in IWAE.

    Raises:
        VaezooError: If q(z|x) has no density at any z, or the model computes z, KL and decoder in one pass.
    """

    def __init__(self, k: int = 50, m: int = 1) -> None:
        super().__init__(k, m)

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        refuse_free_bits(step, "iwae")
        samples = self.m * self.k
        posterior, rows = repeat(self._checked(vae, vae.infer(batch)), samples), repeat(batch, samples)
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


def mean_bound(log_w: Tensor) -> Tensor:
    """Returns the mean of log((w_1 + ... + w_k) / k) over the rows of log-weights `(rows, k)`, `()`."""
    return (torch.logsumexp(log_w, 1) - math.log(log_w.shape[1])).mean()


def bound_metrics(reconstruction: Tensor, kl: Tensor, k: int) -> dict[str, Tensor]:
    """Returns the metrics for `(rows k,)` terms: those of every objective, and the bound `iwae`, in nats.

    It is the bound itself, and never the weighted mean of log w whose gradient some programs use.
    """
    reconstruction, kl = reconstruction.detach(), kl.detach()
    bound = mean_bound(-(reconstruction + kl).view(-1, k))
    terms = {"reconstruction": reconstruction.mean(), "kl": kl.mean()}
    return {"elbo": -(terms["reconstruction"] + terms["kl"]), **terms, "iwae": bound}


@dataclass(frozen=True, kw_only=True)
class IWAEPart(ObjectivePart):
    """The bound of importance samples. With m above 1 it is MIWAE, and with mix above 0 CIWAE.

    Attributes:
        k: Number of samples in a bound.
        m: Number of bounds for each example, whose mean is maximised. Each has k samples of its own.
        mix: Weight of the ELBO against the bound, in [0, 1], as in CIWAE. The paper calls it beta.
        gradient: The encoder's gradient: plain, doubly reparameterized (dreg), which has less variance, or that of m
            bounds while the decoder has that of one bound of m k samples (piwae).

    Raises:
        VaezooError: If a number is out of range, or mix is used with another gradient than plain.
    """

    part = "iwae"
    formula = (
        r"\mathcal{L} = -\frac{1 - b}{m} \sum_{j=1}^{m} \log \frac{1}{k} \sum_{i=1}^{k} w_{ji}"
        r" - \frac{b}{m k} \sum_{j, i} \log w_{ji}, \qquad w_{ji} = \frac{p(x, z_{ji})}{q(z_{ji} \mid x)},"
        r" \qquad b = \text{mix}"
    )
    k: int = 50
    m: int = 1
    mix: float = 0.0
    gradient: Literal["plain", "dreg", "piwae"] = "plain"

    def __post_init__(self) -> None:
        require_positive("objective.k", self.k)
        require_positive("objective.m", self.m)
        if self.k * self.m >= MAX_SAMPLES:
            raise VaezooError(
                f"objective.k={self.k} times objective.m={self.m} is too large", "give smaller numbers of samples"
            )
        if not 0 <= self.mix <= 1:
            raise VaezooError(f"option 'objective.mix' is {self.mix:g}", "give a weight between 0 and 1")
        if self.mix and self.gradient != "plain":
            raise VaezooError(
                f"objective.mix={self.mix:g} does not go together with objective.gradient={self.gradient}",
                "use objective.gradient=plain, or objective.mix=0",
            )

    @property
    def density(self) -> Density:
        return "everywhere" if self.gradient == "dreg" else "of draws"

    def build(self, data: DataSpec, latent_shape: Shape) -> IWAE:
        """Returns the objective. Raises VaezooError if the data have a score instead of a likelihood."""
        if isinstance(data.make_likelihood(), ReconstructionScore):
            raise VaezooError(
                f"objective=iwae needs a likelihood, and likelihood={data.likelihood} is a score of reconstructions",
                "use objective=elbo, or another --likelihood",
            )
        if self.gradient == "dreg":
            return DReG(self.k, self.m)
        return PIWAE(self.k, self.m) if self.gradient == "piwae" else IWAE(self.k, self.m, self.mix)

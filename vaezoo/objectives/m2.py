"""The objective of the model M2: the bound of examples with and without labels, and the loss of the classifier."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vaezoo.core.precision import to_float32
from vaezoo.data.base import Batch, Split
from vaezoo.data.sampler import UNLABELLED, LabelledSampler, Sampler
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.objectives.base import LossOutput, Objective, ObjectivePart, StepContext, refuse_free_bits
from vaezoo.posteriors.base import Shape, map_tensors, repeat
from vaezoo.posteriors.labelled import LabelledGaussian
from vaezoo.priors.labelled import LabelledNormal
from vaezoo.vae import VAE


class M2(Objective):
    """Kingma et al. 2014, arXiv 1406.5298, section 3.1. All terms are in nats.

    With L(x, y) = E[-log p(x|y, z)] + KL(q(z|x, y) || p(z)) - log p(y), the bound of an example with a label is
    -log p(x, y) <= L(x, y) (equation 6). That of an example without one sums over all labels (equation 7):
    -log p(x) <= U(x) = sum_y q(y|x) (L(x, y) + log q(y|x)). The classifier is trained on the labels, too (equation 9).
    For an example of N, of which M have labels, the loss is

        M / N mean L(x, y) + (N - M) / N mean U(x) + alpha mean -log q(y|x)

    with means over the rows with, without and with labels. The paper adds up all examples, and its alpha is 0.1 N. So
    it is 0.1 here.

    The metrics elbo, reconstruction and kl are those of -U(x), for all rows. `accuracy` is the share of labels that
    q(y|x) holds for the most probable ones, among the rows with labels.

    Args:
        labelled: M, how many training examples keep their label. None: all.
        alpha: Weight of the classifier's loss.
        classes: Number of labels.
    """

    needs_labels = True

    def __init__(self, labelled: int | None, alpha: float, classes: int) -> None:
        super().__init__()
        self.labelled = labelled
        self.alpha = alpha
        self.classes = classes

    def sampler(self, train: Split, seed: int) -> Sampler | None:
        """Overridden: one row in four has a label. Raises as LabelledSampler does."""
        return None if self.labelled is None else LabelledSampler(train, self.labelled, self.classes, seed)

    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        return {"vae": list(vae.parameters())}

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        refuse_free_bits(step, "m2")
        posterior, reconstruction, kl = label_terms(vae, batch)
        with torch.autocast(batch.x.device.type, enabled=False):
            log_q = torch.log_softmax(posterior.logits, 1)
            q, label_kl = log_q.exp(), (log_q.exp() * log_q).sum(1) + math.log(self.classes)
            unlabelled = (q * (reconstruction + step.kl_weight * kl)).sum(1) + step.kl_weight * label_kl
            y = torch.full((len(log_q),), UNLABELLED, device=log_q.device) if batch.y is None else batch.y
            known, index = y >= 0, y.clamp(min=0).unsqueeze(1)
            labelled = (reconstruction + step.kl_weight * kl).gather(1, index).squeeze(1) + math.log(self.classes)
            cross_entropy = -log_q.gather(1, index).squeeze(1)
            share = self._share(known, step)
            loss = share * mean_of(labelled, known) + (1 - share) * mean_of(unlabelled, ~known)
            loss = loss + self.alpha * mean_of(cross_entropy, known)
            terms = {"reconstruction": (q * reconstruction).sum(1), "kl": (q * kl).sum(1) + label_kl}
            metrics = {name: values.detach().mean() for name, values in terms.items()}
            metrics["accuracy"] = mean_of((log_q.argmax(1) == y).float(), known)
        return LossOutput({"vae": loss}, {"elbo": -(metrics["reconstruction"] + metrics["kl"]), **metrics})

    def _share(self, known: Tensor, step: StepContext) -> Tensor | float:
        """Returns M / N. If one of them is not known, it is the share of rows with labels."""
        if self.labelled is None or not step.train_size:
            return known.float().mean()
        return self.labelled / step.train_size


def label_terms(vae: VAE, batch: Batch) -> tuple[LabelledGaussian, Tensor, Tensor]:
    """Returns q(y, z|x), E[-log p(x|y, z)] estimated with one z, and KL(q(z|x, y) || p(z)), `(B, labels)` each.

    Raises:
        VaezooError: If the model infers no labels.
    """
    posterior, prior = vae.infer(batch), vae.prior
    if not (isinstance(posterior, LabelledGaussian) and isinstance(prior, LabelledNormal)):
        raise VaezooError(
            f"objective=m2 needs a model that infers labels, not a {type(vae).__name__}", "use condition=inferred"
        )
    with torch.autocast(batch.x.device.type, enabled=False):
        posterior = map_tensors(posterior, to_float32)
        z = posterior.rsample_each()
    rows = repeat(batch, prior.labels)
    params = to_float32(vae.generate(z, rows))
    with torch.autocast(batch.x.device.type, enabled=False):
        reconstruction = -vae.likelihood.log_prob(params, rows.x).view(-1, prior.labels)
        return posterior, reconstruction, prior.latent_kl(posterior).sum(2)


def mean_of(values: Tensor, rows: Tensor) -> Tensor:
    """Returns the mean of values `(B,)` over the rows that a mask `(B,)` chooses, `()`. Of no rows it is 0."""
    return torch.where(rows, values, 0.0).sum() / rows.sum().clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class M2Part(ObjectivePart):
    """The bound of examples with and without labels, and the loss of a classifier. It needs condition=inferred.

    Attributes:
        labelled: How many training examples keep their label, equally many of each class, chosen by the seed. The
            others count as examples without a label. None: all.
        alpha: Weight of the classifier's loss.

    Raises:
        VaezooError: If a number is out of range.
    """

    part = "m2"
    formula = (
        r"\begin{align*} \mathcal{L} &= \frac{M}{N}\,\mathbb{E}[L(x, y)] + \frac{N - M}{N}\,\mathbb{E}[U(x)]"
        r" + \alpha\,\mathbb{E}[-\log q(y \mid x)], \\ L(x, y) &="
        r" \mathbb{E}_{q(z \mid x, y)}[-\log p(x \mid y, z)] + \mathrm{KL}(q(z \mid x, y) \,\|\, p(z))"
        r" - \log p(y), \\ U(x) &= \sum_y q(y \mid x) \left(L(x, y) + \log q(y \mid x)\right) \end{align*}"
    )
    needs_diagonal_gaussian = True
    infers_labels = True
    labelled: int | None = None
    alpha: float = 0.1

    def __post_init__(self) -> None:
        if self.labelled is not None and self.labelled < 1:
            raise VaezooError(f"objective.labelled is {self.labelled}", "give at least one for each class")
        if not (0 <= self.alpha < math.inf):
            raise VaezooError(f"objective.alpha is {self.alpha}", "give at least 0")

    def build(self, data: DataSpec, latent_shape: Shape) -> M2:
        return M2(self.labelled, self.alpha, data.classes[0] if data.classes else 0)

"""The regularised autoencoder (RAE): a deterministic autoencoder with penalties on its latents and its decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vaezoo.core.precision import to_float32
from vaezoo.data.base import Batch
from vaezoo.data.spec import DataSpec
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.objectives.base import LossOutput, Objective, ObjectivePart, StepContext, refuse_free_bits
from vaezoo.objectives.elbo import elbo_terms
from vaezoo.posteriors.base import Shape
from vaezoo.vae import VAE

Penalty = Literal["l2", "gp", "none"]


class RAE(Objective):
    """The loss of Ghosh et al. 2020, arXiv 1903.12436, with one of its penalties.

        -log p(x|z) + beta/2 |z|^2 + weight R

    z is the point that the encoder gives. With the likelihood `gaussian`, the first term is half the squared error. The
    penalty R makes the decoder smooth:

    - l2: the squared norm of all parameters of the decoder, RAE-L2.
    - gp: |dD/dz|^2, the squared Frobenius norm of the Jacobian of the mean D(z) of p(x|z), RAE-GP. Other programs
      penalise the gradient of the sum of D by x, or the gradient of D^2 by z, which are other functions.
    - none: 0.

    The metric `weighted_elbo` is minus the loss. There is no KL, so a KL warm-up changes nothing.

    Args:
        beta: Weight of the norm of z.
        penalty: R.
        weight: Its weight. The paper calls it lambda.
    """

    monitor = "weighted_elbo"

    def __init__(self, beta: float = 0.01, penalty: Penalty = "l2", weight: float = 0.001) -> None:
        super().__init__()
        self.beta = beta
        self.penalty = penalty
        self.weight = weight

    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        return {"vae": list(vae.parameters())}

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        refuse_free_bits(step, "rae")
        terms = elbo_terms(vae, batch)
        norm = 0.5 * terms.z.square().flatten(1).sum(1).mean()
        loss = terms.reconstruction.mean() + self.beta * norm
        extra = {"latent_norm": norm.detach()}
        if self.penalty != "none":
            if self.penalty == "l2":
                penalty = parameter_norm(vae)
            else:
                signs = random_signs(len(batch.x), vae.data.shape, batch.x.device)
                penalty = jacobian_norm(vae, terms.z, signs, batch)
            loss = loss + self.weight * penalty
            extra["decoder_penalty"] = penalty.detach()
        extra["weighted_elbo"] = -loss.detach()
        return LossOutput({"vae": terms.with_auxiliary(loss)}, terms.metrics | extra)


def parameter_norm(vae: VAE) -> Tensor:
    """Returns the sum of the squares of all parameters of the decoder, `()`.

    Raises:
        VaezooError: If the model has no module `decoder`.
    """
    decoder = getattr(vae, "decoder", None)
    if not isinstance(decoder, nn.Module):
        raise VaezooError(f"{type(vae).__name__} has no module 'decoder'", "use objective.penalty=gp")
    return torch.stack([parameter.square().sum() for parameter in decoder.parameters()]).sum()


def random_signs(n: int, shape: Shape, device: torch.device) -> Tensor:
    """Draws +1 or -1 with equal probability, `(n, *shape)`."""
    return torch.where(torch.rand((n, *shape), device=device) < 0.5, -1.0, 1.0)


def jacobian_norm(vae: VAE, z: Tensor, signs: Tensor, batch: Batch) -> Tensor:
    """Estimates the squared Frobenius norm of the Jacobian J = dD/dz, the mean over a batch, `()`.

    D is the mean of p(x|z). For signs e that are +1 or -1 with equal probability, E |e^T J|^2 = tr(J J^T) = |J|^2
    (Hutchinson 1990). So one gradient for each example gives an unbiased estimate with an unbiased gradient, by a
    second backward pass. The exact norm would take a pass for each latent. Forward-mode differentiation costs the same,
    but PyTorch cannot differentiate it again for all activations.

    Args:
        vae: The model.
        z: Latents, `(B, *latent_shape)`, float32.
        signs: e, `(B, *data.shape)`.
        batch: The rows that they belong to.
    """
    with torch.enable_grad():  # also where the objective is only evaluated
        z = z if z.requires_grad else z.detach().requires_grad_()
        mean = vae.likelihood.mean(to_float32(vae.generate(z, batch)))
        (gradient,) = torch.autograd.grad(mean, z, signs, create_graph=True)
        return gradient.square().flatten(1).sum(1).mean()


@dataclass(frozen=True, kw_only=True)
class RAEPart(ObjectivePart):
    """The regularised autoencoder. It needs posterior=delta.

    Attributes:
        beta: Weight of half the squared norm of the latents.
        penalty: The penalty on the decoder: the squared norm of its parameters (l2), that of its Jacobian (gp), or
            none.
        weight: Weight of this penalty. The paper calls it lambda.

    Raises:
        VaezooError: If a weight is negative.
    """

    part = "rae"
    formula = (
        r"\mathcal{L} = -\log p(x \mid z) + \frac{\beta}{2} |z|^2 + \lambda R, \qquad R = |\theta_D|^2"
        r" \;\text{ or }\; \left|\frac{\partial D(z)}{\partial z}\right|^2"
    )
    needs_point = True
    beta: float = 0.01
    penalty: Penalty = "l2"
    weight: float = 0.001

    def __post_init__(self) -> None:
        if self.beta < 0 or self.weight < 0:
            raise VaezooError(
                f"objective.beta is {self.beta:g} and objective.weight {self.weight:g}", "give both at least 0"
            )

    def build(self, data: DataSpec, latent_shape: Shape) -> RAE:
        """Returns the objective. Raises UnsupportedDataError if the data have no mean that depends smoothly on z."""
        if self.penalty == "gp" and data.kind in ("tokens", "table"):
            raise UnsupportedDataError(
                f"objective.penalty=gp is not defined for data of kind {data.kind}", "use objective.penalty=l2"
            )
        return RAE(self.beta, self.penalty, self.weight)

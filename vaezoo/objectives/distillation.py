"""The objective of an autoencoder that learns the latents of another one, its teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vaezoo.core.precision import to_float32
from vaezoo.data.base import Batch
from vaezoo.objectives.base import LossOutput, Objective, StepContext
from vaezoo.vae import VAE, device_of


class Distillation(Objective):
    """Encoder and decoder each learn their half of an autoencoder with the teacher's latents (as TAESD did).

    With the teacher's latents t(x), the loss is |z(x) - t(x)|^2 / 2 - log p(x | z = t(x)), in nats. The first term has
    gradients for the encoder alone, the second for the decoder alone. So they need no weight. The decoder learns the
    data and not the teacher's images, which have errors of their own.

    The metrics are those of the student's own objective, for reconstructions from its own latents, and:

    - latent_error: the first term.
    - teacher_reconstruction: the second term.

    Args:
        objective: The student's own objective, without weights.
        teacher: The teacher, whose weights stay as they are. It is not part of the state.
    """

    def __init__(self, objective: Objective, teacher: VAE) -> None:
        super().__init__()
        self.objective = objective
        self.monitor = objective.monitor
        self._teacher = (teacher.eval().requires_grad_(False),)  # a tuple hides the module from the state

    @property
    def teacher(self) -> VAE:
        """The teacher."""
        return self._teacher[0]

    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        self.teacher.to(device_of(vae))
        return self.objective.parameter_groups(vae)

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        with torch.no_grad():
            target: Tensor = to_float32(self.teacher.infer(batch).mode())
            own = self.objective(vae, batch, step)
        z = to_float32(vae.infer(batch).mode())
        params = to_float32(vae.generate(target, batch))
        with torch.autocast(batch.x.device.type, enabled=False):
            latent_error = 0.5 * (z - target).square().flatten(1).sum(1).mean()
            reconstruction = -vae.likelihood.log_prob(params, batch.x).mean()
        terms = {"latent_error": latent_error.detach(), "teacher_reconstruction": reconstruction.detach()}
        (group,) = own.losses
        return LossOutput({group: latent_error + reconstruction}, {**own.metrics, **terms})

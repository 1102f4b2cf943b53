"""What run.json says about a prior that was fitted after training, and how a model gets it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vaezoo.errors import InputError, VaezooError
from vaezoo.objectives.fit_prior import Codes, FitPrior
from vaezoo.priors.base import Prior
from vaezoo.priors.densities import PerLabel, replace_prior
from vaezoo.priors.kinds import DensityKind, make_kind
from vaezoo.vae import VAE, conditioned_on

PRIOR = "prior."  # how the names of its weights begin


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorFit:
    """A prior that was fitted after training.

    Attributes:
        kind: The kind of density; see `vaezoo.priors.kinds`.
        options: All options of the kind.
        codes: Whether it was fitted to draws of q(z|x), or to modes.
        seed: Seed of the codes and of the fit.
        first_stage: `first_stage_sha256` of the model that it was fitted for.
    """

    kind: str
    options: Mapping[str, object]
    codes: Codes
    seed: int
    first_stage: str

    @property
    def settings(self) -> dict[str, object]:
        """The kind and its options under names that differ from those of a model's options."""
        own = {"fitted-prior": self.kind, "fitted-prior.codes": self.codes}
        return own | {f"fitted-prior.{name}": value for name, value in self.options.items()}

    def make_kind(self) -> DensityKind:
        """Returns the kind with its options. Raises VaezooError if a value is damaged."""
        return make_kind(self.kind, self.options)


def code_size(vae: VAE) -> int:
    """Returns the number of latents. Raises VaezooError if they are not a vector."""
    if len(vae.latent_shape) != 1:
        what = f"a prior is fitted to latent vectors, not to latents of shape {vae.latent_shape}"
        raise VaezooError(what, "use a model with a latent vector, such as conv-vae")
    return vae.latent_shape[0]


def label_count(vae: VAE) -> int | None:
    """Returns the number of labels that a model knows, or None if it is given none.

    Raises:
        VaezooError: If each example has several labels.
    """
    if "y" not in conditioned_on(vae):
        return None
    if len(vae.data.classes) != 1:
        what = f"a prior is fitted for each label, but each example of '{vae.data.name}' has {len(vae.data.classes)}"
        raise VaezooError(what, "use a model without condition=labels")
    return vae.data.classes[0]


def add_prior(vae: VAE, fit: PriorFit) -> FitPrior:
    """Gives a model the prior that a record describes, without its weights, and returns its objective.

    Raises:
        VaezooError: If the kind or an option does not exist, or the model cannot have such a prior.
    """
    kind, latent_dim, classes = fit.make_kind(), code_size(vae), label_count(vae)

    def build() -> Prior:
        return kind.build(latent_dim)

    replace_prior(vae, build() if classes is None else PerLabel([build() for _ in range(classes)]))
    return FitPrior(fit.codes)


def first_stage(vae: VAE) -> dict[str, Tensor]:
    """Returns the weights of a model without those of its prior."""
    return {name: tensor for name, tensor in vae.state_dict().items() if not name.startswith(PRIOR)}


def first_stage_sha256(vae: VAE) -> str:
    """Returns a hash of the names and values of a model's weights without those of its prior."""
    digest = hashlib.sha256()
    for name, tensor in sorted(first_stage(vae).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_first_stage(path: Path, vae: VAE, fit: PriorFit) -> None:
    """Raises InputError unless a prior was fitted for the weights that a model has."""
    if first_stage_sha256(vae) != fit.first_stage:
        what = f"the prior in {path} was fitted for another model than the one beside it"
        raise InputError(what, "restore the folder, or fit the prior again with 'vaezoo fit-prior'")

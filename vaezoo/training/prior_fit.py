"""What run.json says about a prior that was fitted after training, and how a model gets it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from torch import Tensor

from vaezoo.errors import InputError, VaezooError
from vaezoo.objectives.fit_prior import Codes, FitPrior
from vaezoo.priors.base import Prior
from vaezoo.priors.densities import PerLabel, replace_prior
from vaezoo.priors.density_kind import DensityKind, PriorKind
from vaezoo.priors.kinds import AutoregressiveKind, make_kind
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
        measured: What the fit measured, such as the error of an estimated normaliser.
    """

    kind: str
    options: Mapping[str, object]
    codes: Codes
    seed: int
    first_stage: str
    measured: Mapping[str, float] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, object]:
        """The kind and its options under names that differ from those of a model's options."""
        own = {"fitted-prior": self.kind, "fitted-prior.codes": self.codes}
        return own | {f"fitted-prior.{name}": value for name, value in {**self.options, **self.measured}.items()}

    def make_kind(self) -> PriorKind:
        """Returns the kind with its options. Raises VaezooError if a value is damaged."""
        return make_kind(self.kind, self.options)


def grid_codes(vae: VAE) -> int:
    """Returns the number of codes of a model whose latents are a grid of them. Raises VaezooError if they are not."""
    if vae.prior.codes is None:
        what = "kind autoregressive is for grids of codes, and the latents of this model are real numbers"
        raise VaezooError(what, "use --kind flow, or a model with codes such as vq-vae")
    return vae.prior.codes


def code_size(vae: VAE) -> int:
    """Returns the number of latents. Raises VaezooError if they are not a vector of real numbers."""
    if vae.prior.codes is not None:
        what = "the latents of this model are codes, and this kind of prior is for real numbers"
        raise VaezooError(what, "use --kind autoregressive")
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
    kind = fit.make_kind()
    if kind.takes_codes:
        add_code_prior(vae, cast("AutoregressiveKind", kind))
    else:
        add_density(vae, cast("DensityKind", kind))
    return FitPrior(fit.codes)


def add_code_prior(vae: VAE, kind: AutoregressiveKind) -> None:
    """Makes a prior of codes, with random weights, that of a model. Raises as `add_prior`."""
    vae.prior = kind.build(grid_codes(vae), vae.latent_shape)


def add_density(vae: VAE, kind: DensityKind) -> None:
    """Makes a density without its weights the prior of a model, or one for each label. Raises as `add_prior`."""
    latent_dim, classes = code_size(vae), label_count(vae)

    def build() -> Prior:
        return kind.build(latent_dim)

    replace_prior(vae, build() if classes is None else PerLabel([build() for _ in range(classes)]))


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

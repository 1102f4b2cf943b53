"""`teacher`: a training in which a model learns the latents of another run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vaezoo.errors import InputError, VaezooError
from vaezoo.objectives.distillation import Distillation
from vaezoo.posteriors.base import named_outputs
from vaezoo.training.run import Run, load
from vaezoo.training.run_files import TeacherRecord
from vaezoo.vae import VAE, eval_mode, example_batch

if TYPE_CHECKING:
    from vaezoo.objectives.base import Objective


def describe_teacher(run: Run) -> TeacherRecord:
    """Returns the record of a teacher."""
    return TeacherRecord(path=str(run.path.resolve()), sha256=run.checkpoint.model_sha256)


def load_teacher(record: TeacherRecord, moved: str | os.PathLike[str] | None = None) -> Run:
    """Loads the teacher of a run that goes on.

    Args:
        record: What run.json says.
        moved: Its new folder, if it has moved.

    Raises:
        InputError: If it is not there, or is another one.
    """
    path = Path(record.path if moved is None else moved)
    if not path.exists():
        raise InputError(f"the teacher of this run is no longer at {path}", "name its new place with --teacher")
    run = load(path)
    if run.checkpoint.model_sha256 != record.sha256:
        raise InputError(f"the weights of {path} are not those of the teacher", "name its place with --teacher")
    return run


def with_teacher(vae: VAE, objective: Objective, teacher: Run) -> Distillation:
    """Returns the objective with which a model learns the latents of a teacher.

    Raises:
        VaezooError: If the model is no autoencoder without noise, has an objective with weights of its own, or has
            other latents than the teacher.
    """
    if objective.state_dict() or len(objective.parameter_groups(vae)) != 1:
        raise VaezooError("--teacher replaces the objective, but that of this model has weights", "leave out --teacher")
    batch = example_batch(vae.data, 2, torch.Generator().manual_seed(0))
    with torch.no_grad(), eval_mode(vae):
        own = vae.infer(batch)
    if list(named_outputs(own)[0]) != ["z"]:
        what = "--teacher is for models that encode to a point, and this one has a distribution"
        raise VaezooError(what, "use tiny-autoencoder or autoencoder")
    theirs = teacher.vae
    fixed = len(theirs.shapes) == 1 and theirs.data.shape != vae.data.shape
    if fixed or theirs.data.shape[0] != vae.data.shape[0] or theirs.encoder_inputs != ("x",):
        what = f"the teacher {teacher.path} takes data of shape {theirs.data.shape}, not {vae.data.shape}"
        raise VaezooError(what, "train on data of that shape, or use another teacher")
    with torch.no_grad(), eval_mode(theirs):
        shape = tuple(theirs.infer(batch).mode().shape[1:])
    if shape != vae.latent_shape:
        what = f"the latents of the teacher have the shape {shape}, and those of the model {vae.latent_shape}"
        raise VaezooError(what, "choose options that give the same shape, such as latent_channels")
    return Distillation(objective, theirs)

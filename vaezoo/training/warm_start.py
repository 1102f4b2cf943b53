"""`init_from`: a training that starts with the weights of another run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor

from vaezoo.core import distributed
from vaezoo.core.option_values import json_value, show_value
from vaezoo.errors import InputError, VaezooWarning, safe_repr
from vaezoo.likelihoods.base import Likelihood
from vaezoo.objectives.base import Objective
from vaezoo.training.run import Run
from vaezoo.vae import VAE

MAX_PROBLEMS = 4  # weights that do not fit, or options, in a message


def init_weights(
    vae: VAE, objective: Objective, model: str, run: Run, options: Mapping[str, object] = MappingProxyType({})
) -> None:
    """Gives a model the weights of a run. The objective gets its own weights, if it has any, where they fit, too.

    Args:
        vae: The model.
        objective: Its objective.
        model: The model's name, for the error.
        run: The run, whose weights stay as they are.
        options: All options of the model, for the error.

    Raises:
        InputError: If the names or shapes of the model's weights differ from those of the run. The message lists them.
    """
    old = run.vae.state_dict()
    if problem := misfits(str(run.path), shapes(old), model, shapes(vae.state_dict())):
        raise InputError(problem, _how_to_fit(model, run, options))
    vae.load_state_dict(old)
    warn_of_link(vae.likelihood, run)
    theirs, mine = run.objective.state_dict(), objective.state_dict()
    if {n: t.shape for n, t in theirs.items()} == {n: t.shape for n, t in mine.items()}:
        objective.load_state_dict(theirs)
    elif mine and distributed.rank() == 0:
        warnings.warn("the weights of the objective start anew: those of the run differ", VaezooWarning, stacklevel=2)


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of tensors by their names."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def misfits(
    source: str, found: Mapping[str, tuple[int, ...]], model: str, needed: Mapping[str, tuple[int, ...]]
) -> str | None:
    """Returns which weights do not fit a model, for an error, or None if all fit.

    Args:
        source: Where the weights come from.
        found: Their names and shapes.
        model: Name of the model.
        needed: The names and shapes that it has.
    """
    problems = [f"{name} is missing" for name in needed if name not in found]
    problems += [f"{safe_repr(name)} is not in the model" for name in found if name not in needed]
    problems += [
        f"{name} has shape {found[name]}, not {shape}"
        for name, shape in needed.items()
        if name in found and found[name] != shape
    ]
    if not problems:
        return None
    shown = "; ".join(problems[:MAX_PROBLEMS]) + ("; ..." if len(problems) > MAX_PROBLEMS else "")
    what = "weight" if len(problems) == 1 else "weights"
    fit = "does" if len(problems) == 1 else "do"
    return f"{len(problems)} {what} of {source} {fit} not fit {model}: {shown}"


def warn_of_link(likelihood: Likelihood, run: Run) -> None:
    """Warns if only one of two likelihoods takes the decoder's output as logits: the images then differ."""
    if likelihood.identity != run.vae.likelihood.identity and distributed.rank() == 0:
        what = f"the weights of {run.path} belong to --likelihood {run.data.likelihood}"
        warnings.warn(f"{what}, with which the decoder's output means other images", VaezooWarning, stacklevel=3)


def _how_to_fit(model: str, run: Run, options: Mapping[str, object]) -> str:
    """Returns which options differ from those of a run. Those of the objective do not change the shapes of weights."""
    if model != run.model:
        return f"train {run.model}, the model of that run, or leave out the run to start from"
    names = [n for n in run.options if n in options and run.options[n] != options[n] and "objective" not in n]
    if not names:
        return f"give the options of that run ({run.model}), and data of shape {run.data.shape}"
    texts = [f"{name}={show_value(json_value(run.options[name]))}" for name in names[:MAX_PROBLEMS]]
    return f"give the options of that run: {', '.join(texts)}" + (", ..." if len(names) > MAX_PROBLEMS else "")

"""`init_from`: a training that starts with the weights of another run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import MappingProxyType

from vaezoo.core import distributed
from vaezoo.core.options import json_value, show_value
from vaezoo.errors import InputError, VaezooWarning
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
    old, new = run.vae.state_dict(), vae.state_dict()
    problems = [f"{name} is missing" for name in new if name not in old]
    problems += [f"{name} is not in the model" for name in old if name not in new]
    problems += [
        f"{name} has shape {tuple(old[name].shape)}, not {tuple(new[name].shape)}"
        for name in new
        if name in old and old[name].shape != new[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:MAX_PROBLEMS]) + ("; ..." if len(problems) > MAX_PROBLEMS else "")
        raise InputError(
            f"{len(problems)} weights of {run.path} do not fit {model}: {shown}",
            _how_to_fit(model, run, options),
        )
    vae.load_state_dict(old)
    theirs, mine = run.objective.state_dict(), objective.state_dict()
    if {n: t.shape for n, t in theirs.items()} == {n: t.shape for n, t in mine.items()}:
        objective.load_state_dict(theirs)
    elif mine and distributed.rank() == 0:
        warnings.warn("the weights of the objective start anew: those of the run differ", VaezooWarning, stacklevel=2)


def _how_to_fit(model: str, run: Run, options: Mapping[str, object]) -> str:
    """Returns which options differ from those of a run. Those of the objective do not change the shapes of weights."""
    if model != run.model:
        return f"train {run.model}, the model of that run, or leave out the run to start from"
    names = [n for n in run.options if n in options and run.options[n] != options[n] and "objective" not in n]
    if not names:
        return f"give the options of that run ({run.model}), and data of shape {run.data.shape}"
    texts = [f"{name}={show_value(json_value(run.options[name]))}" for name in names[:MAX_PROBLEMS]]
    return f"give the options of that run: {', '.join(texts)}" + (", ..." if len(names) > MAX_PROBLEMS else "")

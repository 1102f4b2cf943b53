"""Checks the size of a run's model before memory is allocated: a few bytes of run.json can ask for terabytes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from vaezoo.core.options import configure
from vaezoo.data.spec import DataSpec
from vaezoo.errors import InputError, VaezooError
from vaezoo.registry import Registration
from vaezoo.training.checkpoint import MAX_HEADER_BYTES
from vaezoo.training.prior_fit import PriorFit, add_prior
from vaezoo.training.run_writer import CHECKPOINTS


@contextlib.contextmanager
def as_input_error(path: Path) -> Iterator[None]:
    """Turns a model's error about its options into an InputError, because a run folder holds the options."""
    try:
        yield
    except InputError:
        raise
    except VaezooError as e:
        raise InputError(f"{path / 'run.json'} does not fit the model: {e.message}", e.hint) from e


def check_size(
    path: Path,
    registration: Registration,
    options: Mapping[str, object],
    data: DataSpec,
    limit: float = 0,
    *,
    prior: PriorFit | None = None,
    fp16: bool = False,
) -> None:
    """Raises InputError if the model that a run describes is larger than its checkpoints.

    Objectives are not checked: those of the built-in models are not larger than their VAEs.

    Args:
        path: The run folder.
        registration: The model.
        options: The model's options.
        data: The data that it is built for.
        limit: Maximum size in bytes if there is no checkpoint yet.
        prior: The prior that was fitted after training, or None.
        fp16: The weights are stored in float16.
    """
    needed = weight_bytes(registration, options, data, prior) // (2 if fp16 else 1)
    files = list((path / CHECKPOINTS).glob("step-*/model.safetensors"))
    available = max((file.stat().st_size if file.is_file() else 0 for file in files), default=limit)
    if not available:
        raise InputError(f"{path / CHECKPOINTS} holds no checkpoint with weights", "train again")
    if needed > available:
        what = f"describes a model of {needed:,} bytes, but no checkpoint has more than {available:,.0f}"
        raise InputError(f"{path / 'run.json'} {what}: one is damaged", "restore the files, or train again")


def weight_bytes(
    registration: Registration, options: Mapping[str, object], data: DataSpec, prior: PriorFit | None = None
) -> int:
    """Returns the size of a VAE's weights in bytes; 0 for a plugin's model that cannot be built without memory.

    `prior` is the one that was fitted after training, or None.

    Raises:
        VaezooError: As `Registration.build`.
    """
    spec = registration.load()
    config = configure(spec.config, options)
    try:
        with contextlib.redirect_stdout(sys.stderr), torch.device("meta"):  # shapes without memory
            vae = spec.build(config, data)
            if prior is not None:
                add_prior(vae, prior)
            return sum(int(t.nbytes) for t in vae.state_dict().values())
    except VaezooError:
        raise
    except Exception as e:
        if registration.built_in:  # a size of more than 64 bits
            raise registration.failure("built", e) from e
        return 0


def max_checkpoint_bytes(*modules: nn.Module) -> int:
    """Returns an upper bound of the size of a checkpoint's files, in bytes.

    An optimizer keeps two numbers for each weight and an average a third. Sums and names are small.
    """
    tensors = [t for module in modules for t in module.state_dict().values()]
    return MAX_HEADER_BYTES + 4 * sum(int(t.nbytes) for t in tensors)

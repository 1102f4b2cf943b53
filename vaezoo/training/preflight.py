"""Whether a run's model can be built, before it takes any memory: a few bytes of run.json can ask for terabytes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from vaezoo.data.base import DataSpec
from vaezoo.errors import InputError, VaezooError
from vaezoo.registry import Registration
from vaezoo.spec import configure
from vaezoo.training.checkpoint import MAX_HEADER_BYTES
from vaezoo.training.run_writer import CHECKPOINTS


@contextlib.contextmanager
def as_input_error(path: Path) -> Iterator[None]:
    """Turns what a model says of bad options into an InputError: here it is a run folder that brings them."""
    try:
        yield
    except InputError:
        raise
    except VaezooError as e:
        raise InputError(f"{path / 'run.json'} does not fit the model: {e}", e.hint) from e


def check_size(
    path: Path,
    registration: Registration,
    options: Mapping[str, object],
    data: DataSpec,
    otherwise: float = 0,
    *,
    halved: bool = False,
) -> None:
    """Raises InputError if the model that a run describes is larger than its checkpoints.

    The objectives of our models are no larger than their VAEs, and are not looked at.

    Args:
        path: The run folder.
        registration: The model.
        options: The model's options.
        data: What it is made for.
        otherwise: Bytes that it may have where no checkpoint has been saved yet.
        halved: The weights lie in float16.
    """
    needed = weight_bytes(registration, options, data) // (2 if halved else 1)
    files = list((path / CHECKPOINTS).glob("step-*/model.safetensors"))
    there = max((file.stat().st_size if file.is_file() else 0 for file in files), default=otherwise)
    if not there:
        raise InputError(f"{path / CHECKPOINTS} holds no checkpoint with weights", "train again")
    if needed > there:
        what = f"describes a model of {needed:,} bytes, and no checkpoint has more than {there:,.0f}: one is damaged"
        raise InputError(f"{path / 'run.json'} {what}", "restore the files, or train again")


def weight_bytes(registration: Registration, options: Mapping[str, object], data: DataSpec) -> int:
    """Returns how many bytes a VAE's weights would have; 0 for a third party's that has to be built to tell.

    Raises:
        VaezooError: As `Registration.build` does.
    """
    spec = registration.load()
    config = configure(spec.config, options)
    try:
        with contextlib.redirect_stdout(sys.stderr), torch.device("meta"):  # shapes, and no memory
            return sum(int(t.nbytes) for t in spec.build(config, data).state_dict().values())
    except VaezooError:
        raise
    except Exception as e:
        if registration.built_in:  # a size of more than 64 bits
            raise registration.failure("built", e) from e
        return 0


def largest_file(*modules: nn.Module) -> int:
    """Returns how many bytes no file of a checkpoint of these modules exceeds: an optimizer keeps two numbers a
    weight, an average a third, and sums and names are small."""
    tensors = [t for module in modules for t in module.state_dict().values()]
    return MAX_HEADER_BYTES + 4 * sum(int(t.nbytes) for t in tensors)

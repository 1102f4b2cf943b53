"""Splits whose values are scaled, and what is done about values beyond those of the training part."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch

from vaezoo.core.scaling import Scaling
from vaezoo.data.base import TensorSplit
from vaezoo.data.spec import DataSpec
from vaezoo.errors import InputError, VaezooWarning


def scale_split(split: TensorSplit, scaling: Scaling) -> TensorSplit:
    """Returns a split of values as a split of x, float32.

    Raises:
        InputError: As `Scaling.apply`.
    """
    return replace(split, x=torch.from_numpy(scaling.apply(split.x.numpy())))


def check_range(data: DataSpec, split: TensorSplit, what: str, *, warn: bool) -> None:
    """Says what values beyond those of the training part mean, if the data are scaled by minmax.

    They are not clipped, because clipping would hide an anomaly. A Gaussian gives them a low likelihood, as it should.
    A likelihood of data in [0, 1] alone is not defined for them. The Bernoulli's formula would even grow without bound
    there, so that an anomaly looked more likely than the data.

    Args:
        data: The description of the data, with their scaling.
        split: The scaled examples.
        what: The name of the examples, for messages.
        warn: Whether to warn of such values. New data get a warning, the held-out parts of a training do not.

    Raises:
        InputError: If there are such values, and the likelihood is for data in [0, 1] alone.
    """
    if data.kind != "unit" or not data.offset:
        return
    beyond = ((split.x < 0) | (split.x > 1)).flatten(1).any(1)
    count = int(beyond.sum())
    if not count:
        return
    found = f"{count:,} of {len(split):,} {what} have values beyond those of the training part"
    if "real" not in data.make_likelihood().kinds:
        raise InputError(
            f"{found}, and the likelihood {data.likelihood} is for values from 0 to 1 only",
            "train with --likelihood gaussian:optimal, or leave these examples out",
        )
    if warn:
        low, high = float(split.x.min()), float(split.x.max())
        text = f"{found}: where those are scaled to 0 to 1, these lie from {low:.3g} to {high:.3g}"
        warnings.warn(f"{text}; they are not clipped", VaezooWarning, stacklevel=2)

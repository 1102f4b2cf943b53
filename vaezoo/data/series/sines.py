"""Generated series: a noisy circular motion, seen from two sides.

Each example has two hidden numbers, a frequency and a phase. So two latent dimensions can describe it, and the noise is
known.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vaezoo.data.base import TensorSplit
from vaezoo.data.spec import DataSpec

LENGTH = 32  # points of time
FREQUENCIES = (1.0, 4.0)  # the smallest and the largest, in periods per series
NOISE = 0.1  # standard deviation around the sines, whose amplitude is 1
TRAIN = 5_000
TEST = 1_000


def load(seed: int = 0) -> tuple[DataSpec, TensorSplit, TensorSplit]:
    """Draws 5,000 series for training and 1,000 for testing. Frequency and phase are uniform and independent.

    Args:
        seed: The same seed gives the same series. Training and test series come from two streams of it.

    Returns:
        The description, the training split and the test split. x is `(N, 2, 32)`, float32: a sine and a cosine of the
        same angle, each with normal noise of standard deviation 0.1.
    """
    streams = np.random.SeedSequence(seed).spawn(2)
    train, test = (_draw(np.random.default_rng(stream), n) for stream, n in zip(streams, (TRAIN, TEST), strict=True))
    data = DataSpec(name="sines", shape=tuple(train.shape[1:]), likelihood="gaussian:learned", kind="real")
    return data, TensorSplit(train, None), TensorSplit(test, None)


def _draw(rng: np.random.Generator, n: int) -> Tensor:
    """Draws n series, `(n, 2, 32)`."""
    frequency, phase = rng.uniform(*FREQUENCIES, (n, 1)), rng.uniform(0, 2 * math.pi, (n, 1))
    angle = 2 * math.pi * frequency * np.arange(LENGTH) / LENGTH + phase
    motion = np.stack([np.sin(angle), np.cos(angle)], 1)
    return torch.from_numpy((motion + NOISE * rng.standard_normal(motion.shape)).astype(np.float32))

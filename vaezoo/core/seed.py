"""All chance in training comes from here: each seed is a function of the run's seed and of where it is drawn.

Nothing about generators has to be stored to resume a run, and a run's order and noise do not depend on how
often it was stopped.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

STREAMS = {"weights": 0, "order": 1, "noise": 2, "evaluation": 3, "bits": 4, "latents": 5}
BLOCK = 1024  # seeds made at once: one alone takes longer than a small network's step on a GPU

Stream = Literal["weights", "order", "noise", "evaluation", "bits", "latents"]


def derive_seed(seed: int, stream: Stream, number: int = 0, rank: int = 0) -> int:
    """Returns 63 bits for one draw; `number` is an epoch, a step or a batch. Streams never overlap."""
    block, place = divmod(number, BLOCK)
    return _block(seed, stream, rank, block)[place]


@lru_cache(maxsize=8)
def _block(seed: int, stream: Stream, rank: int, block: int) -> list[int]:
    words = np.random.SeedSequence([seed, STREAMS[stream], rank, block]).generate_state(BLOCK, np.uint64)
    numbers: list[int] = (words >> np.uint64(1)).tolist()
    return numbers


def set_seed(seed: int, device: torch.device) -> None:
    """Seeds what draws on the CPU and on the device. `torch.manual_seed` asks for each kind of device, every time."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    elif device.type == "cuda":
        torch.default_generator.manual_seed(seed)
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    else:
        torch.manual_seed(seed)


def epoch_permutation(seed: int, epoch: int, n: int) -> torch.Tensor:
    """Returns the order of n examples in an epoch, `(n,)` int64, the same on each device and rank."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(n, generator=generator)


def isolate_rng(device: torch.device) -> AbstractContextManager[None]:
    """Returns a context in which seeding does not disturb the caller's random state."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])

"""Random numbers in training: each seed is a function of the run's seed and of where it is used.

Resuming a run needs no stored generator state. The order and the noise of a run do not depend on how often it was
stopped.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

STREAMS = {"weights": 0, "order": 1, "noise": 2, "evaluation": 3, "bits": 4, "latents": 5, "pairs": 6, "labels": 7}
BLOCK_SIZE = 1024  # seeds drawn at once: drawing one alone takes longer than a small network's step on a GPU

Stream = Literal["weights", "order", "noise", "evaluation", "bits", "latents", "pairs", "labels"]


def derive_seed(seed: int, stream: Stream, number: int = 0, rank: int = 0) -> int:
    """Returns a seed of 63 bits for one use. Streams never overlap.

    Args:
        seed: The run's seed.
        stream: What the seed is for.
        number: The epoch, step or batch.
        rank: The process that uses it.
    """
    block, index = divmod(number, BLOCK_SIZE)
    return _seed_block(seed, stream, rank, block)[index]


@lru_cache(maxsize=8)
def _seed_block(seed: int, stream: Stream, rank: int, block: int) -> list[int]:
    words = np.random.SeedSequence([seed, STREAMS[stream], rank, block]).generate_state(BLOCK_SIZE, np.uint64)
    seeds: list[int] = (words >> np.uint64(1)).tolist()
    return seeds


def set_seed(seed: int, device: torch.device) -> None:
    """Seeds the default generators of the CPU and of the device.

    `torch.manual_seed` would check every kind of device each time.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    elif device.type == "cuda":
        torch.default_generator.manual_seed(seed)
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    else:
        torch.manual_seed(seed)


def epoch_permutation(seed: int, epoch: int, n: int) -> torch.Tensor:
    """Returns the order of n examples in an epoch, `(n,)` int64, the same on every device and in every process."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(n, generator=generator)


def isolate_rng(device: torch.device) -> AbstractContextManager[None]:
    """Returns a context that restores the caller's random state when it ends."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])

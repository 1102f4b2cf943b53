"""All chance in training comes from here: each seed is a function of the run's seed and of where it is drawn.

Nothing about generators has to be stored to resume a run, and a run's order and noise do not depend on how
often it was stopped.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

STREAMS = {"weights": 0, "order": 1, "noise": 2, "evaluation": 3}

Stream = Literal["weights", "order", "noise", "evaluation"]


def derive_seed(seed: int, stream: Stream, *where: int) -> int:
    """Returns 63 bits for one draw; `where` is an epoch, or a step and a rank. Streams never overlap."""
    words = np.random.SeedSequence([seed, STREAMS[stream], *where]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def order_of_epoch(seed: int, epoch: int, n: int) -> torch.Tensor:
    """Returns the order of n examples in an epoch, `(n,)` int64, the same on each device and rank."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(n, generator=generator)

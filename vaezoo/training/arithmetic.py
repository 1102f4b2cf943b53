"""How processors round while a training runs; what the process had set is put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Lets CUDA round the factors of products to 10 bits, or forbids it: cuDNN does so unless told otherwise."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@contextmanager
def flushed() -> Iterator[None]:
    """Makes the CPU take numbers below 1e-38 as 0.

    Adam's first moments of weights that stopped learning get there, a hundred thousand of them after 1,000 steps on
    MNIST, and took a tenth of the speed. Threads that PyTorch started before keep their ways, so a program that has
    computed in parallel already gets a part of that only.
    """
    tiny = torch.tensor(1e-39)
    before = float(tiny + 0.0) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)

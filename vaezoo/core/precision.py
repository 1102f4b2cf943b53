"""How CUDA rounds; what the process had set is put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Lets CUDA round the factors of products to 10 bits, or forbids it: cuDNN does so unless told otherwise."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def to_float32(x: Tensor) -> Tensor:
    """Returns float16 and bfloat16 as float32, all else as it is: sums of nats are never taken in 8 bits."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x

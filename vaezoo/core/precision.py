"""Floating-point precision: TF32 on CUDA, and float32 for sums."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allows or forbids TF32 on CUDA inside the block, and restores the previous settings.

    TF32 rounds the factors of products to 10 bits. PyTorch forbids it in matrix products and allows it in cuDNN
    by default.
    """
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def to_float32(x: Tensor) -> Tensor:
    """Returns float16 and bfloat16 tensors as float32, and others unchanged.

    Sums of nats need more than the 8 bits of bfloat16.
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x

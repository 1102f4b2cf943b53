"""Batches of examples, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vaezoo.core.seed import derive_seed
from vaezoo.data.base import Split, to_floats
from vaezoo.evaluation.metrics import Binarize

BATCH_SIZE = 500  # each batch has its own seed, so another size would change the random numbers of all metrics


def iter_batches(split: Split, binarize: Binarize, seed: int, device: torch.device, draw: int = 0) -> Iterator[Tensor]:
    """Yields all examples in batches, `(B, *shape)` in [0, 1], as float32 on the device.

    Args:
        split: The examples.
        binarize: "none" keeps the grey levels. Otherwise bits are drawn with the grey levels as probabilities.
        seed: Seed of the bits.
        device: Device of the batches.
        draw: Number of the draw. Each draw has other bits.
    """
    for number, start in enumerate(range(0, len(split), BATCH_SIZE)):
        x = to_floats(split.gather(slice(start, start + BATCH_SIZE)).x)
        if binarize != "none":
            # The bits are drawn on the CPU, so that they are the same on each device.
            generator = torch.Generator().manual_seed(derive_seed(seed, "bits", draw * len(split) + number))
            x = (torch.rand(x.shape, generator=generator) < x.cpu()).float()
        yield x.to(device)


def map_batches(function: Callable[[Tensor], Tensor], x: Tensor, device: torch.device) -> Tensor:
    """Applies a function to a tensor, `(N, ...)`, in batches on the device. Returns the joined results, on the CPU."""
    return torch.cat([function(batch.to(device)).cpu() for batch in torch.split(x, BATCH_SIZE)])

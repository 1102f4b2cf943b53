"""Batches of examples, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vaezoo.core.seed import derive_seed
from vaezoo.data.base import Batch, Split
from vaezoo.evaluation.metrics import Binarize
from vaezoo.posteriors.base import map_tensors

BATCH_SIZE = 500  # each batch has its own seed, so another size would change the random numbers of all metrics


def iter_batches(
    split: Split, binarize: Binarize, seed: int, device: torch.device, draw: int = 0, *, common_noise: bool = False
) -> Iterator[Batch]:
    """Yields all examples in batches on the device, bytes as floats in [0, 1].

    Args:
        split: The examples.
        binarize: "none" keeps the grey levels. Otherwise bits are drawn with the grey levels as probabilities.
        seed: Seed of the bits.
        device: Device of the batches.
        draw: Number of the draw. Each draw has other bits.
        common_noise: Whether the bits of all examples come from the same random numbers.
    """
    for number, start in enumerate(range(0, len(split), BATCH_SIZE)):
        x, y = split.batch(slice(start, start + BATCH_SIZE))
        if binarize != "none":
            # The bits are drawn on the CPU, so that they are the same on each device.
            own_seed = derive_seed(seed, "bits", draw if common_noise else draw * len(split) + number)
            shape = (1, *x.shape[1:]) if common_noise else x.shape
            x = (torch.rand(shape, generator=torch.Generator().manual_seed(own_seed)) < x.cpu()).float()
        yield map_tensors(Batch(x, y), lambda tensor: tensor.to(device))


def split_batch(batch: Batch, size: int) -> Iterator[Batch]:
    """Yields the rows of a batch, at most `size` at a time."""
    for start in range(0, len(batch.x), size):
        rows = slice(start, start + size)
        yield Batch(batch.x[rows], None if batch.y is None else batch.y[rows])


def map_batches(function: Callable[[Batch], Tensor], batch: Batch, device: torch.device) -> Tensor:
    """Applies a function to the rows of a batch, in parts on the device. Returns the joined results, on the CPU."""
    parts = split_batch(batch, BATCH_SIZE)
    return torch.cat([function(map_tensors(part, lambda tensor: tensor.to(device))).cpu() for part in parts])

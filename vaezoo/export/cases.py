"""Inputs on which graphs are compared with their model, and the batch sizes at which they run.

`verify` uses this module without torch, so it does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from vaezoo.runtime.manifest import Array

BATCHES = (1, 2, 3, 7, 64)
SMALLEST = 2  # tells whether the outputs of an example depend on the other examples of its batch
# In the largest array of a batch. It is 64 images of 104x104 pixels in colour, or 2 of 512x512. An autoencoder with 128
# channels at full resolution takes 360 MB for each of its layers at this size.
MAX_VALUES = 1 << 21

Inputs = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Case:
    """Inputs of a graph and the model's outputs for them.

    Attributes:
        name: Where the inputs come from.
        inputs: The inputs by name, `(N, ...)` each.
        outputs: The model's outputs by name, `(N, ...)` each.
    """

    name: str
    inputs: Inputs
    outputs: Mapping[str, Array]

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def values(self) -> int:
        """Number of values of one example in the largest array."""
        arrays = (*self.inputs.values(), *self.outputs.values())
        return max(int(math.prod(array.shape[1:])) for array in arrays)


def batch_sizes(values: int) -> tuple[int, ...]:
    """Returns the batch sizes for examples of so many values: those of BATCHES that have at most MAX_VALUES.

    Sizes 1 and 2 are always among them.
    """
    return tuple(n for n in BATCHES if n <= SMALLEST or n * values <= MAX_VALUES)


def rows_at_once(feed: Mapping[str, Array]) -> int:
    """Returns how many rows of a graph's inputs are run at a time: those of the largest batch."""
    return max(batch_sizes(max(math.prod(array.shape[1:]) for array in feed.values())))


def batches_of(cases: Mapping[str, Sequence[Case]]) -> tuple[int, ...]:
    """Returns the batch sizes for the cases of all graphs. They follow from the shapes alone."""
    return batch_sizes(max(case.values for case in chain(*cases.values())))


def example_count(shapes: Iterable[Sequence[int]]) -> int:
    """Returns how many examples of each kind a model of such shapes is compared on: the largest batch."""
    return max(batch_sizes(max(math.prod(shape) for shape in shapes)))

"""Chunks of rows, so that memory does not grow with their number. Each has a seed of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

MAX_CHUNK = 1000  # rows
CHUNK_BYTES = 1 << 26  # of float32 numbers


def row_chunks(n: int, shape: Sequence[int]) -> Iterator[slice]:
    """Yields the rows of each chunk of n rows of a shape. Their size depends on the shape alone."""
    size = max(1, min(MAX_CHUNK, CHUNK_BYTES // (4 * math.prod(shape))))
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def chunk_seed(seed: int, number: int) -> int:
    """Returns the seed of a chunk, of 63 bits. The first has the user's seed itself.

    So a small number of samples is what one call of a model draws with that seed.
    """
    return seed if number == 0 else int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> 1)

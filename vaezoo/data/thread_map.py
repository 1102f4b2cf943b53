"""A map over many items with a few threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def thread_map(function: Callable[[T], U], items: Sequence[T], chunk_size: int = 16) -> Generator[U]:
    """Yields the results of `function` for all items, in their order, computed by at most 8 threads.

    Threads are enough because Pillow releases the interpreter lock while it decodes and resizes. A task processes
    `chunk_size` items, because a million waiting tasks would need more memory than small images do.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        starts = range(0, len(items), chunk_size)
        for results in pool.map(lambda start: [function(item) for item in items[start : start + chunk_size]], starts):
            yield from results

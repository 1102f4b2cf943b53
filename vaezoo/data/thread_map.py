"""Work on many images at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def thread_map(function: Callable[[T], U], items: Sequence[T], at_once: int = 16) -> Generator[U]:
    """Yields `function` of each item, in order, computed by a few threads.

    Pillow decodes and scales without holding the interpreter, so threads do; and they get many items
    at a time, because a million waiting tasks would need more memory than small images do.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        starts = range(0, len(items), at_once)
        for results in pool.map(lambda start: [function(item) for item in items[start : start + at_once]], starts):
            yield from results

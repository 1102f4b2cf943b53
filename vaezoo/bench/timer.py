"""One clock for all contestants: warmed up, interleaved, nothing left out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np

K = TypeVar("K")

MIN_RUNS = 100  # so that a 99th percentile means something
BLOCK = 0.05  # seconds that one contestant runs at a stretch
MOST = 10.0  # times `seconds`, then a slow contestant may end with fewer runs
STEADY = 0.05  # two windows of warm-up agree within this share
MOST_WINDOWS = 20
SETTLE = 0.01  # seconds in which the threads of the contestant before stop spinning
LEAD_IN = 2  # runs after a change of contestant that only bring its data back into the caches


@dataclass(frozen=True, slots=True)
class Measurement:
    """How long runs took, in milliseconds.

    Attributes:
        p25, p50, p75, p90, p99, mean: Of the timed runs, all of them.
        n: Number of timed runs.
    """

    p25: float
    p50: float
    p75: float
    p90: float
    p99: float
    mean: float
    n: int

    @property
    def spread(self) -> float:
        """The distance between the quartiles, as a share of the median."""
        return (self.p75 - self.p25) / self.p50

    def as_dict(self) -> dict[str, float]:
        """Returns the fields for JSON."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


def measure(runs: Mapping[K, Callable[[], object]], seconds: float, least: int = MIN_RUNS) -> dict[K, list[float]]:
    """Times several contestants against each other.

    Each is warmed up until two windows agree. Then they take turns, in blocks of about 50 ms, until each has run
    for `seconds` and at least `least` times; one that is too slow for that is done at ten times `seconds`. All go
    on until the last is done, so that what the machine does meanwhile meets all of them.

    Args:
        runs: The contestants: a call is one run, complete when it returns.
        seconds: Timed seconds for each.
        least: Timed runs for each.

    Returns:
        The seconds of each timed run.
    """
    block = {name: max(1, min(MIN_RUNS, int(BLOCK / warm_up(run)))) for name, run in runs.items()}
    taken: dict[K, list[float]] = {name: [] for name in runs}
    while not all(done(times, seconds, least) for times in taken.values()):
        for name, run in runs.items():
            time.sleep(SETTLE)
            timed(run, min(LEAD_IN, block[name]))
            taken[name] += timed(run, block[name])
    return taken


def done(times: Sequence[float], seconds: float, least: int) -> bool:
    """Says whether a contestant has been timed enough, given its times."""
    return (len(times) >= least and sum(times) >= seconds) or sum(times) >= MOST * seconds


def warm_up(run: Callable[[], object]) -> float:
    """Runs until the medians of two successive windows agree; returns the last, in seconds."""
    before = float("inf")
    for _ in range(MOST_WINDOWS):
        times: list[float] = []
        while not times or (sum(times) < BLOCK and len(times) < MIN_RUNS):
            times += timed(run, 1)
        now = float(np.median(times))
        if abs(now - before) <= STEADY * now:
            break
        before = now
    return now


def timed(run: Callable[[], object], n: int) -> list[float]:
    """Runs n times and returns the seconds of each."""
    times = []
    for _ in range(n):
        start = time.perf_counter_ns()
        run()
        times.append((time.perf_counter_ns() - start) / 1e9)
    return times


def summarize(seconds: Sequence[float]) -> Measurement:
    """Returns the timing of a contestant, given its runs in seconds."""
    ms = 1e3 * np.asarray(seconds)
    p25, p50, p75, p90, p99 = (float(q) for q in np.percentile(ms, (25, 50, 75, 90, 99)))
    return Measurement(p25, p50, p75, p90, p99, float(ms.mean()), len(ms))

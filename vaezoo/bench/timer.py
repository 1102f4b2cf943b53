"""Time several backends against each other: warmed up, interleaved, and without dropping any run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from vaezoo.bench.result import Quantiles

K = TypeVar("K")

MIN_RUNS = 100  # enough for a 99th percentile
BLOCK_SECONDS = 0.05  # time that one backend runs before the next one does
MAX_TIME_FACTOR = 10.0  # a slow backend may end with fewer runs after this many times the requested seconds
WARM_UP_TOLERANCE = 0.05  # the warm-up ends once two windows differ by at most this share
MAX_WARM_UP_WINDOWS = 20
SETTLE_SECONDS = 0.01  # until the threads of the previous backend stop spinning
LEAD_IN_RUNS = 2  # untimed runs at the start of a block, which bring the backend's data back into the caches


@dataclass(frozen=True, slots=True)
class Measurement:
    """Times of all timed runs, in milliseconds.

    Attributes:
        p25, p50, p75, p90, p99: Percentiles.
        mean: Mean.
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
        """The distance between the quartiles as a share of the median."""
        return (self.p75 - self.p25) / self.p50

    def as_dict(self) -> Quantiles:
        """Returns the fields for JSON, rounded to nanoseconds."""
        return {
            "p25": round(self.p25, 6),
            "p50": round(self.p50, 6),
            "p75": round(self.p75, 6),
            "p90": round(self.p90, 6),
            "p99": round(self.p99, 6),
            "mean": round(self.mean, 6),
            "n": self.n,
        }


def measure(runs: Mapping[K, Callable[[], object]], seconds: float, min_runs: int = MIN_RUNS) -> dict[K, list[float]]:
    """Times several backends against each other.

    Each is warmed up until two windows agree. Then they take turns in blocks of about 50 ms, until each has run for
    `seconds` and at least `min_runs` times. A backend that is too slow for that is done after ten times `seconds`. All
    backends continue until the last is done, so that disturbances of the machine affect all of them.

    Args:
        runs: The backends. A call is one run and returns when the run is complete.
        seconds: Timed seconds for each.
        min_runs: Timed runs for each.

    Returns:
        The seconds of each timed run.
    """
    block_runs = {name: max(1, min(MIN_RUNS, int(BLOCK_SECONDS / warm_up(run)))) for name, run in runs.items()}
    times: dict[K, list[float]] = {name: [] for name in runs}
    while not all(is_done(own, seconds, min_runs) for own in times.values()):
        for name, run in runs.items():
            time.sleep(SETTLE_SECONDS)
            time_runs(run, min(LEAD_IN_RUNS, block_runs[name]))
            times[name] += time_runs(run, block_runs[name])
    return times


def is_done(times: Sequence[float], seconds: float, min_runs: int) -> bool:
    """Tells whether a backend has been timed enough, given the seconds of its runs."""
    return (len(times) >= min_runs and sum(times) >= seconds) or sum(times) >= MAX_TIME_FACTOR * seconds


def warm_up(run: Callable[[], object]) -> float:
    """Runs until the medians of two successive windows agree. Returns the last median in seconds."""
    before = float("inf")
    for _ in range(MAX_WARM_UP_WINDOWS):
        times: list[float] = []
        while not times or (sum(times) < BLOCK_SECONDS and len(times) < MIN_RUNS):
            times += time_runs(run, 1)
        now = float(np.median(times))
        if abs(now - before) <= WARM_UP_TOLERANCE * now:
            break
        before = now
    return now


def time_runs(run: Callable[[], object], n: int) -> list[float]:
    """Runs n times and returns the seconds of each run."""
    times = []
    for _ in range(n):
        start = time.perf_counter_ns()
        run()
        times.append((time.perf_counter_ns() - start) / 1e9)
    return times


def summarize(seconds: Sequence[float]) -> Measurement:
    """Returns the quantiles of a backend, given the seconds of its runs."""
    ms = 1e3 * np.asarray(seconds)
    p25, p50, p75, p90, p99 = (float(q) for q in np.percentile(ms, (25, 50, 75, 90, 99)))
    return Measurement(p25, p50, p75, p90, p99, float(ms.mean()), len(ms))

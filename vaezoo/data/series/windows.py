"""Windows of one long recording, and where they lie in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from vaezoo.core.memory import machine_memory
from vaezoo.errors import InputError

HELD_OUT = 10  # the last tenth of a recording is its test part, and the tenth before it the validation part
Values: TypeAlias = npt.NDArray[Any]


class Recording(NamedTuple):
    """One long series.

    Attributes:
        values: `(channels, steps)`, finite numbers.
        times: The time of each step as the file has it, `(steps,)` texts. The number of the step if it has none.
        time_column: The name of the column of times. Empty if there is none.
        channels: The names of the channels, or none.
    """

    values: Values
    times: Values
    time_column: str = ""
    channels: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Windows:
    """Where the windows of a split lie in a recording.

    Attributes:
        start: The first step of each window, `(N,)`.
        length: Steps in each window.
        times: The time of each step of the recording, `(steps,)` texts.
        time_column: The name of the column of times. Empty if there is none.
    """

    start: Values
    length: int
    times: Values
    time_column: str = ""

    def select(self, index: Values) -> Windows:
        """Returns the windows at indices."""
        return replace(self, start=self.start[index])

    @property
    def names(self) -> tuple[str, ...]:
        """The time of the first step of each window."""
        return tuple(self.times[self.start].tolist())

    @property
    def span(self) -> tuple[str, str]:
        """The times of the first and the last step that the windows hold."""
        first, last = self.start.min(), self.start.max() + self.length - 1
        return str(self.times[first]), str(self.times[last])

    def counts(self) -> Values:
        """Returns how many of the windows hold each step of the recording, `(steps,)`."""
        return self._sums(np.ones(len(self.start), np.int64))

    def means(self, values: Values) -> Values:
        """Returns for each step of the recording the mean of a value over the windows that hold it.

        Args:
            values: One value for each window, `(N,)`.

        Returns:
            `(steps,)`, float64, NaN for steps that are in none of the windows.
        """
        with np.errstate(invalid="ignore"):
            means: Values = self._sums(values.astype(np.float64)) / self.counts()
        return means

    def _sums(self, values: Values) -> Values:
        """Returns for each step the sum of a value over the windows that hold it."""
        total = np.zeros(len(self.times), values.dtype)
        for offset in range(self.length):
            np.add.at(total, self.start + offset, values)
        return total


def window_starts(begin: int, end: int, length: int, stride: int) -> Values:
    """Returns the first step of each window in the steps from `begin` to before `end`.

    The last window ends with the last step, so that every step is in a window, also where the stride does not divide
    the number of steps.
    """
    last = end - length
    starts = np.arange(begin, last + 1, stride)
    return starts if starts[-1] == last else np.append(starts, last)


def cut(values: Values, starts: Values, length: int) -> Values:
    """Returns windows `(N, channels, length)` of a recording `(channels, steps)`.

    Raises:
        InputError: If they need more than half of the machine's memory.
    """
    size = len(starts) * values.shape[0] * length * values.dtype.itemsize
    if size > machine_memory() / 2:
        raise InputError(
            f"{len(starts):,} windows of {length:,} steps need {size / 2**30:.1f} GiB", "give a larger --stride"
        )
    views = np.lib.stride_tricks.sliding_window_view(values, length, axis=1)
    return np.ascontiguousarray(views[:, starts].transpose(1, 0, 2))


def part_borders(origin: str, steps: int, window: int) -> tuple[int, int]:
    """Returns the first step of the validation part and of the test part of a recording.

    Each of the two has a tenth of the steps, and at least one window.

    Raises:
        InputError: If the recording is too short.
    """
    require_window(origin, steps, window)
    held_out = max(steps // HELD_OUT, window)
    if steps < 2 * held_out + window:
        raise InputError(
            f"{origin} has {steps:,} steps, too few for windows of {window:,} to train, to validate and to test",
            f"give --window {steps // 3} or less" if steps >= 6 else "give a longer recording",
        )
    return steps - 2 * held_out, steps - held_out


def require_window(origin: str, steps: int, window: int) -> None:
    """Raises InputError if a window is longer than a recording."""
    if window > steps:
        raise InputError(
            f"a window of {window:,} steps is longer than {origin}, which has {steps:,}", "give a longer recording"
        )

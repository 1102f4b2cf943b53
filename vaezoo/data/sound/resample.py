"""Changes the sample rate of sound."""

from __future__ import annotations

import math

import numpy as np

from vaezoo.data.sound.sound_files import Values

ZEROS = 6  # crossings of zero of the sinc on each side
ROLLOFF = 0.99  # of the lower of the two Nyquist frequencies: higher frequencies are taken away
CHUNK = 1 << 20  # numbers of a matrix product


def resample(samples: Values, old: int, new: int) -> Values:
    """Returns one channel at another rate, by a sinc with a Hann window (J. O. Smith, Digital Audio Resampling).

    Args:
        samples: `(n,)`.
        old: Their rate.
        new: The rate of the result, which has ceil(n * new / old) samples.
    """
    if old == new:
        return samples
    divisor = math.gcd(old, new)
    old, new = old // divisor, new // divisor
    kernels, width = _kernels(old, new)
    padded = np.pad(samples, (width, width + old))
    frames = np.lib.stride_tricks.sliding_window_view(padded, kernels.shape[1])[::old]
    rows = max(1, CHUNK // kernels.shape[1])
    parts = [frames[i : i + rows] @ kernels.T for i in range(0, len(frames), rows)]
    return np.concatenate(parts).reshape(-1)[: -(-len(samples) * new // old)].astype(np.float32)


def _kernels(old: int, new: int) -> tuple[Values, int]:
    """Returns the filter of each of `new` outputs for `old` inputs, `(new, 2 * width + old)`, and the width."""
    cutoff = ROLLOFF * min(old, new)
    width = math.ceil(ZEROS * old / cutoff)
    time = np.arange(-width, width + old) / old - np.arange(new)[:, None] / new
    time = np.clip(time * cutoff, -ZEROS, ZEROS)
    window = np.cos(time * math.pi / (2 * ZEROS)) ** 2
    return np.sinc(time) * window * cutoff / old, width

"""Log-mel spectrograms of sound, and sound from them by Griffin and Lim 1984."""

from __future__ import annotations

import math

import numpy as np

from vaezoo.data.sound.sound_files import Values, check_rate
from vaezoo.errors import VaezooError

MELS = 64  # frequencies of a spectrogram
SECONDS = 0.064  # of sound in a frame, about
FLOOR = 1e-3  # of the magnitude: what is more quiet counts as silence
ITERATIONS = 60  # of Griffin and Lim
MOMENTUM = 0.99  # of Perraudin et al. 2013, "A fast Griffin-Lim algorithm"
UPDATES = 50  # of the magnitudes that belong to a mel spectrogram


def frame_size(rate: int) -> int:
    """Returns the samples of a frame, the power of two nearest to 64 ms. Frames start a quarter of it apart."""
    return 1 << round(math.log2(SECONDS * rate))


def log_mel(samples: Values, rate: int) -> Values:
    """Returns the logarithms of magnitudes, float32 `(MELS, frames)`.

    Args:
        samples: One channel, `(n,)`.
        rate: Samples in a second.
    """
    size = frame_size(rate)
    magnitude = np.abs(stft(samples, size))
    spectrogram: Values = np.log(np.maximum(mel_filters(rate, size) @ magnitude, FLOOR)).astype(np.float32)
    return spectrogram


def to_sound(spectrogram: Values, rate: int, seed: int = 0, iterations: int = ITERATIONS) -> Values:
    """Returns sound whose log-mel spectrogram is near to one `(MELS, frames)`. The phases are estimated.

    Args:
        spectrogram: As `log_mel` returns it.
        rate: Samples in a second.
        seed: Seed of the first phases.
        iterations: Those of `griffin_lim`.

    Raises:
        VaezooError: If it has other frequencies, or the rate is out of range.
    """
    check_rate(rate)
    if spectrogram.shape[0] != MELS:
        raise VaezooError(f"a spectrogram has {spectrogram.shape[0]} frequencies", f"give one of {MELS}")
    size = frame_size(rate)
    mel = np.exp(np.minimum(spectrogram.astype(np.float64), math.log(size)))  # no sound in [-1, 1] is louder
    mel = np.where(mel <= 1.01 * FLOOR, 0, mel)
    return griffin_lim(linear_magnitude(mel, mel_filters(rate, size)), size, seed, iterations)


def grey_levels(x: Values, rate: int) -> Values:
    """Returns spectrograms as images, bytes `(N, MELS, frames, 1)`, with low frequencies at the bottom.

    Silence is black, and the loudest tone within [-1, 1] is white.

    Args:
        x: As `log_mel` returns them, `(N, 1, MELS, frames)`.
        rate: Samples in a second.
    """
    low, high = math.log(FLOOR), math.log(frame_size(rate) / 4)  # half the sum of the Hann window
    levels = np.clip((x[:, 0, ::-1] - low) / (high - low), 0, 1)
    return np.rint(255 * levels).astype(np.uint8)[..., None]


def stft(samples: Values, size: int) -> Values:
    """Returns the Fourier transforms of frames with a Hann window, `(size // 2 + 1, frames)`.

    Frame i is centred at sample i * size / 4. Beyond the ends there is silence.
    """
    padded = np.pad(samples.astype(np.float64), size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[:: size // 4]
    return np.fft.rfft(frames * hann(size), axis=1).T


def istft(spectrum: Values, size: int) -> Values:
    """Returns the sound whose frames are nearest to Fourier transforms, ((frames - 1) * size / 4,) samples."""
    hop, count = size // 4, spectrum.shape[1]
    window = hann(size)
    frames = np.fft.irfft(spectrum.T, size, axis=1) * window
    total, weight = np.zeros((2, (count - 1) * hop + size))
    for i, frame in enumerate(frames):
        total[i * hop : i * hop + size] += frame
        weight[i * hop : i * hop + size] += window**2
    inner = slice(size // 2, len(total) - size // 2)
    sound: Values = total[inner] / np.maximum(weight[inner], 1e-8)
    return sound


def hann(size: int) -> Values:
    """Returns the periodic Hann window."""
    return 0.5 - 0.5 * np.cos(2 * math.pi * np.arange(size) / size)


def mel_filters(rate: int, size: int) -> Values:
    """Returns triangles that are evenly spaced in mel, `(MELS, size // 2 + 1)`. Each has a sum of 1.

    A frequency f in hertz is 2595 log10(1 + f / 700) mel (O'Shaughnessy 1987).
    """
    top = 2595 * math.log10(1 + rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, MELS + 2) / 2595) - 1)
    frequencies = np.arange(size // 2 + 1) * rate / size
    left, centre, right = (corners[i : i + MELS, None] for i in range(3))
    triangles = np.minimum((frequencies - left) / (centre - left), (right - frequencies) / (right - centre))
    triangles = np.maximum(triangles, 0)
    empty = triangles.sum(1) == 0  # narrower than the distance of two frequencies: the nearest one
    triangles[empty, np.rint(centre[empty, 0] * size / rate).astype(int)] = 1
    filters: Values = triangles / triangles.sum(1, keepdims=True)
    return filters


def linear_magnitude(mel: Values, filters: Values) -> Values:
    """Returns magnitudes that are not negative and nearest to mel magnitudes, `(frequencies, frames)`.

    The updates are those of Lee and Seung 2001 for the squared error, with fixed filters.
    """
    target, gram = filters.T @ mel, filters.T @ filters
    magnitude = target.copy()
    for _ in range(UPDATES):
        magnitude *= target / np.maximum(gram @ magnitude, 1e-12)
    return magnitude


def griffin_lim(magnitude: Values, size: int, seed: int, iterations: int = ITERATIONS) -> Values:
    """Returns sound whose frames have nearly these magnitudes, `(size // 2 + 1, frames)`."""
    rng = np.random.default_rng(seed)
    phases = np.exp(2j * math.pi * rng.random(magnitude.shape))
    before = np.zeros_like(phases)
    for _ in range(iterations):
        again = stft(istft(magnitude * phases, size), size)
        faster = again + MOMENTUM * (again - before)
        phases, before = faster / np.maximum(np.abs(faster), 1e-12), again
    return istft(magnitude * phases, size)

"""Reads and writes sound files. PCM in .wav files needs no other package, other formats need soundfile."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vaezoo.core.dependencies import install_hint
from vaezoo.errors import InputError, VaezooError, first_line

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg")
LOW_RATE, HIGH_RATE = 1_000, 384_000  # samples in a second
Values: TypeAlias = npt.NDArray[Any]


def check_rate(rate: int) -> None:
    """Raises VaezooError if a sample rate is out of range."""
    if not LOW_RATE <= rate <= HIGH_RATE:
        raise VaezooError(
            f"a sample rate of {rate:,} is out of range", f"give {LOW_RATE:,} to {HIGH_RATE:,} samples in a second"
        )


def read_sound(path: Path) -> tuple[Values, int]:
    """Reads a sound file.

    Returns:
        The samples in [-1, 1], float32 `(samples, channels)`, and how many of them make a second.

    Raises:
        InputError: If the file is damaged, or holds no sound.
        VaezooError: If it needs soundfile, which is not installed.
    """
    try:
        samples, rate = _read_pcm(path) if path.suffix.lower() == ".wav" else _read_other(path)
    except wave.Error as error:
        if "unknown" not in str(error):  # "unknown format: 3" is that of floats
            raise _damaged(path, first_line(error)) from error
        samples, rate = _read_other(path)
    except VaezooError:
        raise
    except Exception as error:  # Python's reader raises several types of error for damaged files
        raise _damaged(path, first_line(error) or "it ends too early") from error
    if not len(samples) or not LOW_RATE <= rate <= HIGH_RATE:
        what = f"has {rate:,} samples in a second" if len(samples) else "holds no sound"
        raise InputError(f"'{path}' {what}", "remove the file")
    if not np.isfinite(samples).all():
        raise InputError(f"'{path}' has samples that are NaN or infinite", "remove the file")
    return samples, rate


def write_wav(samples: Values, rate: int) -> bytes:
    """Returns a .wav file of one channel with 16 bits. Samples beyond [-1, 1] are clipped."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes())
    return buffer.getvalue()


def _read_pcm(path: Path) -> tuple[Values, int]:
    """Reads integers of 8, 16, 24 or 32 bits."""
    with wave.open(str(path), "rb") as file:
        channels, width, rate, count = file.getparams()[:4]
        data = file.readframes(count)
    if len(data) != count * channels * width:
        raise _damaged(path, f"it declares {count:,} samples and has {len(data) // max(1, channels * width):,}")
    return _decode(data, width).reshape(-1, channels), rate


def _decode(data: bytes, width: int) -> Values:
    """Returns samples in [-1, 1). Those of one byte have no sign, those of more bytes are little-endian."""
    raw = np.frombuffer(data, np.uint8)
    if width == 1:
        return ((raw.astype(np.float32) - 128) / 128).astype(np.float32)
    # The bytes become the highest ones of 32 bits, so that the sign is in its place.
    whole = np.zeros((len(raw) // width, 4), np.uint8)
    whole[:, 4 - width :] = raw.reshape(-1, width)
    return (whole.reshape(-1).view("<i4").astype(np.float64) / 2**31).astype(np.float32)


def _read_other(path: Path) -> tuple[Values, int]:
    """Reads a file with soundfile."""
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: its library is missing
        raise VaezooError(f"'{path}' needs soundfile, which is not installed", install_hint("audio")) from error
    try:
        samples, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (RuntimeError, OSError) as error:
        raise _damaged(path, first_line(error)) from error
    return samples, int(rate)


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"sound file '{path}' cannot be read: {why}", "save it again, or remove it")

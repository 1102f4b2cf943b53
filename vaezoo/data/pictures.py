"""Picture files and pictures in memory, brought to one size: what the image folder and CelebA share.

Files are read as if their author were an enemy: Pillow is told which formats it may try, however a
file is called, and how large a picture may be.
"""

from __future__ import annotations

import math
import os
import struct
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from vaezoo.data.memory import machine_memory
from vaezoo.errors import InputError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "WEBP")
MOST_PIXELS = 89_478_485  # Pillow's own limit, where it starts to warn of a decompression bomb
NAMED = 3  # how many files an error names

# What Pillow raises on damaged files, by its own fuzz tests and by ours.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)

# What the values of the EXIF tag Orientation ask for, so that the picture stands upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Pixels: TypeAlias = npt.NDArray[np.uint8]
T = TypeVar("T")
U = TypeVar("U")


def read_pictures(paths: Sequence[Path], root: Path, size: int | None) -> Tensor:
    """Decodes picture files, all grey ones to one channel, else all to three.

    Args:
        paths: The files; the result is in their order.
        root: The folder that errors name them by.
        size: Height and width to bring them to, in pixels: the shorter side is scaled to it and the
            middle cut out. None leaves them as they are.

    Returns:
        `(N, channels, height, width)`, uint8. Pictures stand upright as their EXIF data say, what is
        transparent lies on white, 16-bit grey levels are scaled to 8 bits.

    Raises:
        InputError: If files cannot be read (all of them are counted, the first ones named), if no size
            is given and theirs differ, or if they do not fit in memory.
    """
    with warnings.catch_warnings(), closing(_in_threads(lambda path: _try_read(path, size), paths)) as results:
        # Pillow warns of odd metadata and of large pictures; the latter are errors here, by MOST_PIXELS.
        warnings.simplefilter("ignore")
        return _stack(paths, results, root)


def resize(x: Tensor, size: int) -> Tensor:
    """Brings pictures in memory to `size`, in the way of `read_pictures`.

    Args:
        x: `(N, channels, height, width)`, uint8, with 1 or 3 channels.
        size: Height and width to bring them to, in pixels.

    Returns:
        `(N, channels, size, size)`, uint8.
    """
    if x.shape[2:] == (size, size):
        return x
    resized = _allocate(len(x), (x.shape[1], size, size))
    height, width = x.shape[2:]
    pictures: Sequence[Pixels] = list(x.numpy())
    results = _in_threads(lambda p: _to_array(_fit(_from_array(p), size, (width, height))), pictures)
    for i, pixels in enumerate(results):
        resized[i] = pixels
    return torch.from_numpy(resized)


def _in_threads(function: Callable[[T], U], items: Sequence[T], at_once: int = 16) -> Generator[U]:
    """Yields `function` of each item, in order, computed by a few threads.

    Pillow decodes and scales without holding the interpreter, so threads do; and they get many items
    at a time, because a million waiting tasks would need more memory than small pictures do.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        starts = range(0, len(items), at_once)
        for results in pool.map(lambda start: [function(item) for item in items[start : start + at_once]], starts):
            yield from results


def _stack(paths: Sequence[Path], results: Iterable[Pixels | str], root: Path) -> Tensor:
    """Gathers the decoded pictures in one tensor, or raises for the reasons why there are none."""
    stack: Pixels | None = None
    sample = paths[0]  # the file that sets the size
    bad: list[str] = []
    for i, (path, pixels) in enumerate(zip(paths, results, strict=True)):
        if isinstance(pixels, str):
            bad.append(f"{path.relative_to(root)} ({pixels})")
            continue
        if stack is None:
            stack, sample = _allocate(len(paths), pixels.shape), path
        elif stack.shape[2:] != pixels.shape[1:]:
            raise _sizes_differ(root, {sample: stack.shape[2:], path: pixels.shape[1:]})
        elif len(pixels) > stack.shape[1]:
            grey, stack = stack, _allocate(len(paths), pixels.shape)  # the first colour picture after grey ones
            stack[:i] = grey[:i]
        stack[i] = pixels  # a grey picture is copied to each of three channels
    if bad or stack is None:
        named = ", ".join(bad[:NAMED]) + (f" and {len(bad) - NAMED:,} more" if len(bad) > NAMED else "")
        raise InputError(
            f"{len(bad):,} of {len(paths):,} pictures in '{root}' cannot be read: {named}",
            "remove or replace these files",
        )
    return torch.from_numpy(stack)


def _allocate(count: int, shape: tuple[int, ...]) -> Pixels:
    """Returns room for `count` pictures of `shape`."""
    need = count * math.prod(shape)
    try:
        if need > machine_memory():
            raise MemoryError
        return np.empty((count, *shape), dtype=np.uint8)
    except MemoryError:
        raise InputError(
            f"{count:,} pictures of {shape[2]} x {shape[1]} pixels need {need / 2**30:.1f} GiB of memory",
            "pass a smaller --size",
        ) from None


def _sizes_differ(root: Path, sizes: dict[Path, tuple[int, ...]]) -> InputError:
    """Returns the error for pictures of different sizes where none is asked for."""
    named = ", ".join(f"{path.relative_to(root)} is {w} x {h}" for path, (h, w) in sizes.items())
    shortest = min(min(size) for size in sizes.values())
    power = 2 ** int(math.log2(max(4, min(shortest, 64))))  # 64 or less: what a first model can learn in minutes
    return InputError(f"the pictures in '{root}' differ in size: {named} pixels", f"pass --size {power}")


def _try_read(path: Path, size: int | None) -> Pixels | str:
    """Decodes a file, or returns in one clause why that cannot be done."""
    try:
        return _read(path, size)
    except UnidentifiedImageError:
        return f"not a picture of the formats {', '.join(FORMATS)}"
    except Image.DecompressionBombError:
        return f"more than {MOST_PIXELS // 10**6} million pixels"
    except DAMAGE as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        return reason.splitlines()[0]


def _read(path: Path, size: int | None) -> Pixels:
    """Decodes a file to `(channels, height, width)`."""
    if not path.is_file():  # opening a named pipe would wait for ever
        raise OSError("not a file")
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MOST_PIXELS:
            raise Image.DecompressionBombError
        if size is not None:
            # JPEG alone can be decoded at a fraction of its size: a quarter of the time for a photograph of 12
            # megapixels. Twice the size asked for is left to the scaling, which keeps within 3 levels of 255.
            drafted = image.draft(image.mode, (2 * size, 2 * size))
        levels = _eight_bits(image)
        turn = UPRIGHT.get(_orientation(image))
    if size is not None:
        # The middle is cut out before the turn because it is small then, and a square stays in place.
        levels = _fit(levels, size, drafted[1][2:] if drafted else levels.size)
    return _to_array(levels if turn is None else levels.transpose(turn))


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF tag Orientation; 1, upright, where there is none that can be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except DAMAGE:  # the pixels are good all the same
        return 1
    return value if isinstance(value, int) else 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """Brings any picture to mode L or RGB."""
    if image.mode.startswith("I"):  # I;16 and its kin, and I, in which Pillow keeps 16-bit grey levels too
        levels = np.clip(np.asarray(image, dtype=np.int32), 0, 65535)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point levels")
    grey = image.mode in ("1", "L", "LA", "La") or (image.mode == "P" and _is_grey(image.getpalette()))
    mode = "L" if grey else "RGB"
    if not image.has_transparency_data:
        return image.convert(mode)
    layer = image.convert("LA" if grey else "RGBA")
    ground = Image.new(mode, image.size, "white")
    ground.paste(layer.convert(mode), mask=layer.getchannel("A"))
    return ground


def _is_grey(palette: list[int] | None) -> bool:
    """Tells whether a palette, red, green and blue in turn, holds greys only; so save many programs grey pictures."""
    return palette is not None and palette[::3] == palette[1::3] == palette[2::3]


def _fit(image: Image.Image, size: int, extent: tuple[float, float]) -> Image.Image:
    """Scales the shorter side to `size` and cuts out the middle.

    Args:
        image: A picture of mode L or RGB.
        size: The height and width of the result.
        extent: The width and height that the picture really has: a JPEG decoded at a fraction of its size
            ends within its last pixel.
    """
    width, height = extent
    side = min(extent)
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))


def _to_array(image: Image.Image) -> Pixels:
    """Returns a picture of mode L or RGB as `(channels, height, width)`."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _from_array(pixels: Pixels) -> Image.Image:
    """Returns `(channels, height, width)` with 1 or 3 channels as a picture."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))

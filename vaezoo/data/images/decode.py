"""Image files and images in memory, brought to one size: what the image folder and CelebA share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from vaezoo.core.memory import machine_memory
from vaezoo.data.images.image_headers import (
    UPRIGHT,
    BadImagesError,
    Shape,
    is_grayscale,
    open_image,
    orientation,
    quiet,
    sizes_differ,
    try_read,
)
from vaezoo.data.thread_map import thread_map
from vaezoo.errors import InputError

Pixels: TypeAlias = npt.NDArray[np.uint8]


def read_images(paths: Sequence[Path], root: Path, size: int | None) -> Tensor:
    """Decodes image files, all grey ones to one channel, else all to three.

    Args:
        paths: The files; the result is in their order.
        root: The folder that errors name them by.
        size: Height and width to bring them to, in pixels: the shorter side is scaled to it and the
            middle cut out. None leaves them as they are.

    Returns:
        `(N, channels, height, width)`, uint8. Images stand upright as their EXIF data say, what is
        transparent lies on white, 16-bit grey levels are scaled to 8 bits.

    Raises:
        BadImagesError: If files cannot be read.
        InputError: If no size is given and theirs differ, or if they do not fit in memory.
    """
    with quiet(), closing(thread_map(lambda path: try_decode(path, size), paths)) as results:
        return _stack(paths, results, root)


def resize(x: Tensor, size: int) -> Tensor:
    """Brings images in memory to `size`, in the way of `read_images`.

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
    images: Sequence[Pixels] = list(x.numpy())
    results = thread_map(lambda p: _to_array(_fit(_from_array(p), size, (width, height))), images)
    for i, pixels in enumerate(results):
        resized[i] = pixels
    return torch.from_numpy(resized)


def _stack(paths: Sequence[Path], results: Iterable[Pixels | str], root: Path) -> Tensor:
    """Gathers the decoded images in one tensor, or raises for the reasons why there are none."""
    stack: Pixels | None = None
    sample = paths[0]  # the file that sets the size
    bad: list[tuple[Path, str]] = []
    for i, (path, pixels) in enumerate(zip(paths, results, strict=True)):
        if isinstance(pixels, str):
            bad.append((path, pixels))
            continue
        if stack is None:
            stack, sample = _allocate(len(paths), pixels.shape), path
        elif stack.shape[2:] != pixels.shape[1:]:
            raise sizes_differ(root, {sample: stack.shape[2:], path: pixels.shape[1:]})
        elif len(pixels) > stack.shape[1]:
            grey, stack = stack, _allocate(len(paths), pixels.shape)  # the first colour image after grey ones
            stack[:i] = grey[:i]
        stack[i] = pixels  # a grey image is copied to each of three channels
    if bad or stack is None:
        raise BadImagesError(bad, len(paths), root, "remove or replace these files")
    return torch.from_numpy(stack)


def _allocate(count: int, shape: tuple[int, ...]) -> Pixels:
    """Returns room for `count` images of `shape`."""
    need = count * math.prod(shape)
    try:
        if need > machine_memory():
            raise MemoryError
        return np.empty((count, *shape), dtype=np.uint8)
    except MemoryError:
        raise InputError(
            f"{count:,} images of {shape[2]} x {shape[1]} pixels need {need / 2**30:.1f} GiB of memory",
            "pass a smaller --image-size",
        ) from None


def try_decode(path: Path, size: int | None) -> Pixels | str:
    """Decodes a file to `(channels, height, width)`, or returns in one clause why that cannot be done."""
    return try_read(lambda path: _read(path, size), path)


def decoded_shape(path: Path, size: int | None) -> Shape:
    """Returns the `(channels, height, width)` that a file is decoded to, having done so; see `headers.read_shape`."""
    channels, height, width = _read(path, size).shape
    return channels, height, width


def _read(path: Path, size: int | None) -> Pixels:
    """Decodes a file to `(channels, height, width)`."""
    with open_image(path) as image:
        if size is not None:
            # JPEG alone can be decoded at a fraction of its size: a quarter of the time for a photograph of 12
            # megapixels. Twice the size asked for is left to the scaling, which keeps within 3 levels of 255.
            drafted = image.draft(image.mode, (2 * size, 2 * size))
        levels = _eight_bits(image)
        turn = UPRIGHT.get(orientation(image))
    if size is not None:
        # The middle is cut out before the turn because it is small then, and a square stays in place.
        levels = _fit(levels, size, drafted[1][2:] if drafted else levels.size)
    return _to_array(levels if turn is None else levels.transpose(turn))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Brings any image to mode L or RGB."""
    grey = is_grayscale(image)
    if image.mode.startswith("I"):  # I;16 and its kin, and I, in which Pillow keeps 16-bit grey levels too
        levels = np.clip(np.asarray(image, dtype=np.int32), 0, 65535)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    mode = "L" if grey else "RGB"
    if not image.has_transparency_data:
        return image.convert(mode)
    layer = image.convert("LA" if grey else "RGBA")
    ground = Image.new(mode, image.size, "white")
    ground.paste(layer.convert(mode), mask=layer.getchannel("A"))
    return ground


def _fit(image: Image.Image, size: int, extent: tuple[float, float]) -> Image.Image:
    """Scales the shorter side to `size` and cuts out the middle.

    Args:
        image: An image of mode L or RGB.
        size: The height and width of the result.
        extent: The width and height that the image really has: a JPEG decoded at a fraction of its size
            ends within its last pixel.
    """
    width, height = extent
    side = min(extent)
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))


def _to_array(image: Image.Image) -> Pixels:
    """Returns an image of mode L or RGB as `(channels, height, width)`."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _from_array(pixels: Pixels) -> Image.Image:
    """Returns `(channels, height, width)` with 1 or 3 channels as an image."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))

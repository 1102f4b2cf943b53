"""Decodes image files and resizes images, for image folders, CelebA and the standard data sets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from vaezoo.core.memory import machine_memory
from vaezoo.data.base import ImageSize
from vaezoo.data.images.image_headers import (
    READ_ERRORS,
    SIDEWAYS,
    BadImagesError,
    Shape,
    height_width,
    ignore_pillow_warnings,
    is_grayscale,
    is_inverted,
    max_level,
    open_image,
    orientation,
    sizes_differ,
    try_read,
)
from vaezoo.data.thread_map import thread_map
from vaezoo.errors import InputError

Pixels: TypeAlias = npt.NDArray[np.uint8]


def read_images(paths: Sequence[Path], root: Path, image_size: ImageSize | None, channels: int | None = None) -> Tensor:
    """Decodes image files, by default to one channel if all are grey, else to three.

    Args:
        paths: The files, in the order of the result.
        root: The folder. Errors name the files relative to it.
        image_size: Height and width of the result, in pixels. The image is resized to cover it, and the centre is
            cropped. None keeps the size of the files.
        channels: 1 for grey levels, 3 for colour.

    Returns:
        `(N, channels, height, width)`, uint8. Images are turned upright by their EXIF orientation. Transparent pixels
        lie on white. 16-bit grey levels are scaled to 8 bits. Of several pages or frames the first one is read.

    Raises:
        BadImagesError: If files cannot be read.
        InputError: If `image_size` is None and the images differ in size, or if they do not fit in memory.
    """
    with (
        ignore_pillow_warnings(),
        closing(thread_map(lambda path: try_decode(path, image_size, channels), paths)) as results,
    ):
        return _stack(paths, results, root)


def resize(x: Tensor, image_size: ImageSize) -> Tensor:
    """Resizes images in memory as `read_images` does.

    Args:
        x: `(N, channels, height, width)`, uint8, with 1 or 3 channels.
        image_size: Height and width of the result, in pixels.

    Returns:
        `(N, channels, height, width)` of that size, uint8.
    """
    size = height_width(image_size)
    if x.shape[2:] == size:
        return x
    resized = _allocate(len(x), (x.shape[1], *size))
    height, width = x.shape[2:]
    images: Sequence[Pixels] = list(x.numpy())
    results = thread_map(lambda p: _to_pixels(_crop_and_resize(_to_image(p), size, (width, height))), images)
    for i, pixels in enumerate(results):
        resized[i] = pixels
    return torch.from_numpy(resized)


def to_channels(x: Tensor, channels: int) -> Tensor:
    """Converts images in memory between grey and colour, as `read_images` does.

    Args:
        x: `(N, 1 or 3, height, width)`, bytes or floats.
        channels: 1 or 3.

    Returns:
        `(N, channels, height, width)`. The weights of red, green and blue are those of ITU-R BT.601, as in Pillow.
    """
    if x.shape[1] == channels:
        return x
    if channels == 3:
        return x.expand(-1, 3, -1, -1).contiguous()
    grey = torch.empty((len(x), 1, *x.shape[2:]), dtype=x.dtype)
    for i, (red, green, blue) in enumerate(x):  # one by one, because the intermediate numbers are large
        if x.dtype == torch.uint8:
            red, green, blue = red.int(), green.int(), blue.int()
            grey[i, 0] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
        else:
            # In this form equal channels stay exactly what they are.
            grey[i, 0] = green + 0.299 * (red - green) + 0.114 * (blue - green)
    return grey


def _stack(paths: Sequence[Path], results: Iterable[Pixels | str], root: Path) -> Tensor:
    """Stacks decoded images, or raises an error with the reasons of those that could not be decoded."""
    stack: Pixels | None = None
    first = paths[0]  # the file that sets the size
    bad: list[tuple[Path, str]] = []
    for i, (path, pixels) in enumerate(zip(paths, results, strict=True)):
        if isinstance(pixels, str):
            bad.append((path, pixels))
            continue
        if stack is None:
            stack, first = _allocate(len(paths), pixels.shape), path
        elif stack.shape[2:] != pixels.shape[1:]:
            raise sizes_differ(root, {first: stack.shape[2:], path: pixels.shape[1:]})
        elif len(pixels) > stack.shape[1]:  # the first colour image after grey ones
            grey, stack = stack, _allocate(len(paths), pixels.shape)
            stack[:i] = grey[:i]
        stack[i] = pixels  # a grey image is broadcast to three channels
    if bad or stack is None:
        raise BadImagesError(bad, len(paths), root, "remove or replace these files")
    return torch.from_numpy(stack)


def _allocate(count: int, shape: tuple[int, ...]) -> Pixels:
    """Returns an uninitialised array for `count` images of `shape`."""
    nbytes = count * math.prod(shape)
    try:
        if nbytes > machine_memory():
            raise MemoryError
        return np.empty((count, *shape), dtype=np.uint8)
    except MemoryError:
        raise InputError(
            f"{count:,} images of {shape[2]} x {shape[1]} pixels need {nbytes / 2**30:.1f} GiB of memory",
            "pass a smaller --image-size",
        ) from None


def try_decode(path: Path, image_size: ImageSize | None, channels: int | None = None) -> Pixels | str:
    """Decodes a file to `(channels, height, width)`, or returns the reason in one clause if it cannot be decoded."""
    return try_read(lambda path: _decode(path, image_size, channels), path)


def decoded_shape(path: Path, image_size: ImageSize | None) -> Shape:
    """Decodes a file and returns its `(channels, height, width)`. See also `image_headers.read_shape`."""
    channels, height, width = _decode(path, image_size).shape
    return channels, height, width


def _decode(path: Path, image_size: ImageSize | None, channels: int | None = None) -> Pixels:
    """Decodes a file to `(channels, height, width)`. None keeps the file's channels."""
    size = None if image_size is None else height_width(image_size)
    with open_image(path) as image:
        if size is not None:
            # Only JPEG can be decoded at a fraction of its size, in a quarter of the time for 12 megapixels. The draft
            # is at least twice as large as the result, which then differs by at most 3 levels of 255.
            draft = image.draft(image.mode, (2 * max(size), 2 * max(size)))
        levels = _to_8_bits(image)
        turn = orientation(image)
    if size is not None:
        # The centre is cropped before the turn, because the crop is the same and the turn is then cheap.
        lying = size[::-1] if turn in SIDEWAYS else size
        levels = _crop_and_resize(levels, lying, draft[1][2:] if draft else levels.size)
    if channels is not None:
        levels = levels.convert("L" if channels == 1 else "RGB")
    return _to_pixels(_turn_upright(levels, turn))


def to_pixels(image: Image.Image) -> Pixels:
    """Returns an image of a program as `(channels, height, width)`, converted as `read_images` does.

    Raises:
        InputError: If it has a mode that has no levels of 8 or 16 bits.
    """
    try:
        return _to_pixels(_to_8_bits(image))
    except READ_ERRORS as error:
        raise InputError(f"an image of mode {image.mode} cannot be converted: {error}", "convert it to RGB") from error


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Converts an image of any mode to a new one of mode L or RGB."""
    is_grey = is_grayscale(image)
    if image.mode.startswith("I"):  # the variants of I;16, and I, which Pillow also uses for 16-bit grey levels
        white, inverted, transparent = max_level(image), is_inverted(image), image.info.get("transparency")
        levels = np.clip(np.asarray(image, dtype=np.int32), 0, white)
        pixels = ((levels * 255 + white // 2) // white).astype(np.uint8)
        pixels = 255 - pixels if inverted else pixels
        return Image.fromarray(np.where(levels == transparent, np.uint8(255), pixels))
    mode = "L" if is_grey else "RGB"
    if not image.has_transparency_data:
        return image.convert(mode)
    layer = image.convert("LA" if is_grey else "RGBA")
    background = Image.new(mode, image.size, "white")
    background.paste(layer.convert(mode), mask=layer.getchannel("A"))
    return background


def _turn_upright(image: Image.Image, turn: int) -> Image.Image:
    """Turns an image as `turn`, a value of the EXIF tag Orientation, says. Changes the image's metadata."""
    if turn == 1:
        return image
    image.info.clear()  # the file's own metadata may be damaged, and crops do not always have them
    image.getexif()[ExifTags.Base.Orientation] = turn
    return ImageOps.exif_transpose(image)


def _crop_and_resize(image: Image.Image, size: tuple[int, int], extent: tuple[float, float]) -> Image.Image:
    """Crops the largest centre that has the proportions of `size`, and resizes it.

    Args:
        image: An image of mode L or RGB.
        size: The height and width of the result.
        extent: The exact width and height of the content. A JPEG decoded at a fraction of its size may end within its
            last pixel.
    """
    width, height = extent
    proportion = size[1] / size[0]
    crop_width, crop_height = min(width, height * proportion), min(height, width / proportion)
    left, top = (width - crop_width) / 2, (height - crop_height) / 2
    box = (left, top, left + crop_width, top + crop_height)
    return image.resize(size[::-1], Image.Resampling.LANCZOS, box=box)


def _to_pixels(image: Image.Image) -> Pixels:
    """Returns an image of mode L or RGB as `(channels, height, width)`."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _to_image(pixels: Pixels) -> Image.Image:
    """Returns `(channels, height, width)` with 1 or 3 channels as an image."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))

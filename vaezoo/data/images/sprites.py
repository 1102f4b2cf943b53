"""Generated sprites with known factors of variation, in the manner of dSprites (Matthey et al. 2017).

Unlike the files of dSprites they need no download and have any image size. A sprite fills a circle of a given radius
around its centre. Centres keep the largest radius away from the border, so every combination of factors lies fully
inside the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vaezoo.data.base import TensorSplit
from vaezoo.errors import VaezooError

SHAPES = ("square", "ellipse", "heart")
# Rotations cover a quarter turn, from 0 to 90 degrees, without the end. A square looks the same after 90 degrees. With
# a larger range two values of the factor would give the same image, which no model could distinguish.
FACTORS: Mapping[str, int] = MappingProxyType({"shape": len(SHAPES), "scale": 6, "rotation": 12, "x": 16, "y": 16})
TRAIN = 20_000
TEST = 2_000

RADII = (0.10, 0.20)  # of the smallest and the largest sprite, in image widths
MARGIN = 0.02  # that stays black around sprites, in image widths: a pixel of 64, enough for the soft edge
CHUNK_PIXELS = 2**16  # that are drawn at a time, so that the few temporary arrays stay in the processor's cache

# The drawing uses NumPy. It has many small operations, and PyTorch's threads wait for each other after each of them.
# The same formulas took between 0.8 and 9 s in PyTorch on two busy cores.
Floats: TypeAlias = npt.NDArray[np.floating]


def load(image_size: int = 64, seed: int = 0) -> tuple[TensorSplit, TensorSplit]:
    """Draws 20,000 sprites for training and 2,000 for testing. Their factors are uniform and independent.

    Args:
        image_size: Height and width of the images, in pixels.
        seed: The same seed gives the same sprites. Training and test factors come from two streams of it.

    Returns:
        The training split and the test split. x is `(N, 1, image_size, image_size)`, uint8, white on black. y is
        `(N, 5)`, the indices of the factors in the order of `FACTORS`.
    """
    streams = np.random.SeedSequence(seed).spawn(2)
    train, test = (
        _sample_factors(np.random.default_rng(stream), n) for stream, n in zip(streams, (TRAIN, TEST), strict=True)
    )
    return TensorSplit(render(train, image_size), train), TensorSplit(render(test, image_size), test)


def render(factors: Tensor, image_size: int) -> Tensor:
    """Draws one sprite for each row of `factors`.

    Args:
        factors: `(N, 5)`, integers. Column k has values from 0 to the k-th value of `FACTORS`, exclusive.
        image_size: Height and width of the images, in pixels, at least 4.

    Returns:
        `(N, 1, image_size, image_size)`, uint8, white on black with soft edges. Factor x moves a sprite to the right
        and y moves it down. scale enlarges it and rotation turns it clockwise.

    Raises:
        VaezooError: If a factor is out of range.
    """
    limits = torch.tensor(list(FACTORS.values()))
    if factors.ndim != 2 or factors.shape[1] != len(FACTORS) or bool(((factors < 0) | (factors >= limits)).any()):
        ranges = ", ".join(f"{name} 0..{n - 1}" for name, n in FACTORS.items())
        raise VaezooError("factors of sprites are out of range", f"give rows of {ranges}")
    rows = factors.numpy()
    images = np.zeros((len(rows), image_size, image_size), dtype=np.uint8)
    window = math.ceil(2 * RADII[1] * image_size) + 2  # pixels per side, around a sprite: a fifth of the image's area
    chunk_size = max(1, CHUNK_PIXELS // window**2)
    for shape, distance in enumerate(DISTANCES):  # each shape has its own formula
        index = np.flatnonzero(rows[:, 0] == shape)
        for chunk in np.split(index, range(chunk_size, len(index), chunk_size)):
            _draw(images, chunk, rows[chunk], window, distance)
    return torch.from_numpy(images).unsqueeze(1)


def _sample_factors(rng: np.random.Generator, n: int) -> Tensor:
    """Samples `n` rows of factors, `(n, 5)`."""
    return torch.from_numpy(rng.integers(0, list(FACTORS.values()), size=(n, len(FACTORS)), dtype=np.int64))


def _draw(
    images: npt.NDArray[np.uint8],
    index: npt.NDArray[np.int64],
    factors: npt.NDArray[np.int64],
    window: int,
    distance: Callable[[Floats, Floats], Floats],
) -> None:
    """Draws sprites of one shape into the images at `index`, each in a window of `window` pixels per side.

    The grey level of a pixel follows from its signed distance to the outline. It is white from 0.5 pixels inside and
    black from 0.5 pixels outside.
    """
    image_size = images.shape[-1]
    # The factors scale, x and y as fractions of their ranges, and rotation as an angle.
    fraction = factors / (np.array(list(FACTORS.values())) - 1)
    radius = image_size * (RADII[0] + (RADII[1] - RADII[0]) * fraction[:, 1])
    angle = math.pi / 2 * factors[:, 2] / FACTORS["rotation"]
    border = RADII[1] + MARGIN  # the smallest distance of a centre to the edge of the image
    centre = image_size * (border + (1 - 2 * border) * fraction[:, 3:])  # (N, 2), x before y
    # The window's pixels in image coordinates, (N, 2, window).
    corner = np.clip(np.rint(centre - window / 2).astype(np.int64), 0, image_size - window)
    pixels = corner[:, :, None] + np.arange(window)
    # Pixel centres relative to the sprite's centre, in radii, turned into the sprite's own coordinates (u, v).
    x, y = np.moveaxis((pixels + 0.5 - centre[:, :, None]) / radius[:, None, None], 1, 0).astype(np.float32)
    cos, sin = (f(angle).astype(np.float32)[:, None] for f in (np.cos, np.sin))
    u = (cos * x)[:, None, :] + (sin * y)[:, :, None]
    v = (cos * y)[:, :, None] - (sin * x)[:, None, :]
    # The signed distance in pixels, clipped to one pixel around the outline, gives the grey level, rounded by + 0.5.
    outside = distance(u, v) * radius.astype(np.float32)[:, None, None]
    grey = 255 * np.clip(0.5 - outside, 0, 1) + 0.5
    images[index[:, None, None], pixels[:, 1, :, None], pixels[:, 0, None, :]] = grey.astype(np.uint8)


def _square(u: Floats, v: Floats) -> Floats:
    """Returns the signed distance to a square with its corners on the unit circle, negative inside."""
    return np.maximum(np.abs(u), np.abs(v)) - math.sqrt(0.5)


def _ellipse(u: Floats, v: Floats) -> Floats:
    """Returns the signed distance, to first order, to an ellipse with half axes 1 and 1/2, negative inside."""
    # f = |(u, 2v)| is 1 on the ellipse. Its gradient has the length slope / f. The distance is (f - 1) / (slope / f).
    f = np.maximum(_length(u, 2 * v), 1e-6)
    slope = np.maximum(_length(u, 4 * v), 1e-6)
    return (f - 1) * f / slope


def _heart(u: Floats, v: Floats) -> Floats:
    """Returns the signed distance to a heart inside the unit circle, with its tip down, negative inside.

    The heart is a square on its tip with two half discs on its upper sides. The formula is sdHeart of
    https://iquilezles.org/articles/distfunctions2d/, where the tip is the origin.
    """
    scale = 1 / (3 - math.sqrt(2))  # the radius of the circle through the tip and around both lobes
    x, y = scale * np.abs(u), scale * (1 - v)  # by symmetry the right half is enough
    lobe = _length(x - 0.25, y - 0.75) - math.sqrt(2) / 4
    diagonal = 0.5 * np.maximum(x + y, 0)  # the nearest point on the diagonal side is (diagonal, diagonal)
    edge = np.minimum(_length(x, y - 1), _length(x - diagonal, y - diagonal))
    return np.where(x + y > 1, lobe, edge * np.sign(x - y)) / scale


def _length(u: Floats, v: Floats) -> Floats:
    """Returns the length of the vectors (u, v), five times as fast as `np.hypot`."""
    return np.sqrt(u * u + v * v)


DISTANCES = (_square, _ellipse, _heart)

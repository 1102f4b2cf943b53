"""Generated sprites whose factors of variation are known, in the manner of dSprites (Matthey et al. 2017).

Unlike the files of dSprites these need no download and come in any size. A sprite fills a circle of
a given radius around its centre, and centres keep the largest radius away from the border, so that
each combination of factors lies fully inside the image.
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
# The rotations cover a quarter turn, 0 to 90 degrees without the end: a square looks the same after 90
# degrees, so with more of them two values of the factor would give one image and none could tell them apart.
FACTORS: Mapping[str, int] = MappingProxyType({"shape": len(SHAPES), "scale": 6, "rotation": 12, "x": 16, "y": 16})
TRAIN = 20_000
TEST = 2_000

RADII = (0.10, 0.20)  # of the smallest and the largest sprite, in image widths
MARGIN = 0.02  # what stays black around them, in image widths: a pixel of 64, room for the soft edge
CHUNK_PIXELS = 2**16  # drawn at once: the handful of temporaries of this size stay in the processor's cache

# The drawing is in NumPy. In PyTorch, whose threads wait for each other after each of these many small operations,
# the same formulas took anything between 0.8 and 9 s on two cores that had other work to do.
Floats: TypeAlias = npt.NDArray[np.floating]


def load(size: int = 64, seed: int = 0) -> tuple[TensorSplit, TensorSplit]:
    """Draws 20,000 sprites to train with and 2,000 to test with, their factors uniform and independent.

    Args:
        size: Height and width of the images, in pixels.
        seed: The same seed gives the same sprites; training and test factors come from two streams of it.

    Returns:
        The training and the test part: x `(N, 1, size, size)`, uint8, white on black; y `(N, 5)`, the
        indices of the factors in the order of `FACTORS`.
    """
    streams = np.random.SeedSequence(seed).spawn(2)
    train, test = (_draw(np.random.default_rng(stream), n) for stream, n in zip(streams, (TRAIN, TEST), strict=True))
    return TensorSplit(render(train, size), train), TensorSplit(render(test, size), test)


def render(factors: Tensor, size: int) -> Tensor:
    """Draws one sprite for each row of `factors`.

    Args:
        factors: `(N, 5)`, integers; column k counts from 0 to the k-th value of `FACTORS`, exclusive.
        size: Height and width of the images, in pixels, at least 4.

    Returns:
        `(N, 1, size, size)`, uint8, white on black with soft edges. Factor x moves a sprite to the right
        and y down, scale enlarges it, rotation turns it clockwise.

    Raises:
        VaezooError: If a factor is out of its range.
    """
    limits = torch.tensor(list(FACTORS.values()))
    if factors.ndim != 2 or factors.shape[1] != len(FACTORS) or bool(((factors < 0) | (factors >= limits)).any()):
        wanted = ", ".join(f"{name} 0..{n - 1}" for name, n in FACTORS.items())
        raise VaezooError("factors of sprites are out of range", f"give rows of {wanted}")
    rows = factors.numpy()
    images = np.zeros((len(rows), size, size), dtype=np.uint8)
    side = math.ceil(2 * RADII[1] * size) + 2  # of a window around a sprite: a fifth of the image's area
    step = max(1, CHUNK_PIXELS // side**2)
    for shape, distance in enumerate(DISTANCES):
        # Shape by shape, because each has its own formula.
        index = np.flatnonzero(rows[:, 0] == shape)
        for chunk in np.split(index, range(step, len(index), step)):
            _paint(images, chunk, rows[chunk], side, distance)
    return torch.from_numpy(images).unsqueeze(1)


def _draw(rng: np.random.Generator, n: int) -> Tensor:
    """Draws `n` rows of factors, `(n, 5)`."""
    return torch.from_numpy(rng.integers(0, list(FACTORS.values()), size=(n, len(FACTORS)), dtype=np.int64))


def _paint(
    images: npt.NDArray[np.uint8],
    index: npt.NDArray[np.int64],
    factors: npt.NDArray[np.int64],
    side: int,
    distance: Callable[[Floats, Floats], Floats],
) -> None:
    """Draws sprites of one shape into the images at `index`, each in a window of `side` pixels.

    A pixel is white by its signed distance to the outline: 0.5 pixels inside all, 0.5 outside nothing.
    """
    size = images.shape[-1]
    share = factors / (np.array(list(FACTORS.values())) - 1)
    radius = size * (RADII[0] + (RADII[1] - RADII[0]) * share[:, 1])
    angle = math.pi / 2 * factors[:, 2] / FACTORS["rotation"]
    nearest = RADII[1] + MARGIN
    centre = size * (nearest + (1 - 2 * nearest) * share[:, 3:])  # (N, 2), x before y
    corner = np.clip(np.rint(centre - side / 2).astype(np.int64), 0, size - side)
    pixels = corner[:, :, None] + np.arange(side)  # (N, 2, side)
    x, y = np.moveaxis((pixels + 0.5 - centre[:, :, None]) / radius[:, None, None], 1, 0).astype(np.float32)
    cos, sin = (f(angle).astype(np.float32)[:, None] for f in (np.cos, np.sin))
    u = (cos * x)[:, None, :] + (sin * y)[:, :, None]
    v = (cos * y)[:, :, None] - (sin * x)[:, None, :]
    outside = distance(u, v) * radius.astype(np.float32)[:, None, None]
    grey = 255 * np.clip(0.5 - outside, 0, 1) + 0.5
    images[index[:, None, None], pixels[:, 1, :, None], pixels[:, 0, None, :]] = grey.astype(np.uint8)


def _square(u: Floats, v: Floats) -> Floats:
    """Returns the signed distance to a square with its corners on the unit circle, negative inside."""
    return np.maximum(np.abs(u), np.abs(v)) - math.sqrt(0.5)


def _ellipse(u: Floats, v: Floats) -> Floats:
    """Returns the signed distance, to first order, to an ellipse of half axes 1 and 1/2, negative inside."""
    level = np.maximum(_length(u, 2 * v), 1e-6)  # its gradient's length is slope / level
    slope = np.maximum(_length(u, 4 * v), 1e-6)
    return (level - 1) * level / slope


def _heart(u: Floats, v: Floats) -> Floats:
    """Returns the signed distance to a heart inside the unit circle, its tip down, negative inside.

    The heart is a square on its tip with two half discs on its upper sides, after sdHeart in
    https://iquilezles.org/articles/distfunctions2d/; there the tip is the origin.
    """
    around = 1 / (3 - math.sqrt(2))  # radius of the circle through the tip and around both lobes
    x, y = around * np.abs(u), around * (1 - v)
    lobe = _length(x - 0.25, y - 0.75) - math.sqrt(2) / 4
    along = 0.5 * np.maximum(x + y, 0)
    edge = np.minimum(_length(x, y - 1), _length(x - along, y - along))
    return np.where(x + y > 1, lobe, edge * np.sign(x - y)) / around


def _length(u: Floats, v: Floats) -> Floats:
    """Returns the length of the vectors (u, v); five times as fast as `np.hypot`."""
    return np.sqrt(u * u + v * v)


DISTANCES = (_square, _ellipse, _heart)

"""The places of the pixels of an image of any resolution, which a decoder of coordinates takes."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vaezoo.core.counts import whole_number
from vaezoo.errors import VaezooError, safe_repr

COORDINATES = 3  # x, y and the distance from the middle
MAX_SIDE = 16_384  # pixels
HINT = "give a number of pixels such as 1024, or height x width such as 768x1024"
Resolution = int | str | Sequence[int]


def pixel_coordinates(height: int, width: int) -> npt.NDArray[np.float32]:
    """Returns x, y and radius of the middle of each pixel, `(3, height, width)`.

    x and y go from -1 to 1 between the borders of the image, whatever its resolution. So images of several resolutions
    show the same, and y grows downwards. The radius is the square root of x^2 + y^2.
    """
    y, x = np.meshgrid(*((np.arange(n) + 0.5) / n * 2 - 1 for n in (height, width)), indexing="ij")
    return np.stack([x, y, np.hypot(x, y)]).astype(np.float32)


def parse_resolution(resolution: Resolution) -> tuple[int, int]:
    """Returns height and width in pixels.

    Args:
        resolution: A number for both sides, height and width, or a text such as "1024" or "768x1024".

    Raises:
        VaezooError: If it is something else, or too large.
    """
    sides: object = resolution
    if isinstance(resolution, str):
        match = re.fullmatch(r"([0-9]{1,9})(?:x([0-9]{1,9}))?", resolution.strip())
        sides = [int(match[1]), int(match[2] or match[1])] if match else None
    elif not isinstance(resolution, Sequence):
        sides = [resolution, resolution]
    if not isinstance(sides, Sequence) or len(sides) != 2:
        raise VaezooError(f"resolution {safe_repr(resolution)} is not known", HINT)
    height, width = (whole_number("the resolution", side, 1) for side in sides)
    if max(height, width) > MAX_SIDE:
        raise VaezooError(f"a resolution of {height}x{width} is too large", f"give at most {MAX_SIDE} pixels a side")
    return height, width

"""Examples as small images: images as they are, series as lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from vaezoo.core.image_grids import as_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vaezoo.core.image_grids import Images

WIDTH, HEIGHT = 96, 64  # pixels of the image of a series
SMOOTHING = 3  # lines are drawn this much larger, and made smaller again
MARGIN = 3  # pixels above the largest and below the smallest value
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f")  # of matplotlib


def thumbnails(x: NDArray[Any]) -> Images:
    """Returns small images of examples, uint8 `(N, height, width, channels)`.

    Args:
        x: Images `(N, C, H, W)` in [0, 1], or series `(N, channels, time)`, which all get the same scale.
    """
    return as_bytes(x) if x.ndim == 4 else series_thumbnails(x)


def series_thumbnails(x: NDArray[Any]) -> Images:
    """Returns small images of series, one line for each channel. The range of all their values fills the height."""
    low, high = float(x.min()), float(x.max())
    width, height = WIDTH * SMOOTHING, HEIGHT * SMOOTHING
    across = np.linspace(MARGIN * SMOOTHING, width - 1 - MARGIN * SMOOTHING, x.shape[2])
    share = (x - low) / (high - low) if high > low else np.full(x.shape, 0.5)
    down = height - 1 - MARGIN * SMOOTHING - share * (height - 1 - 2 * MARGIN * SMOOTHING)
    return np.stack([_thumbnail(across, lines, (width, height)) for lines in down])


def _thumbnail(across: NDArray[Any], lines: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Draws lines, given the pixels of their points."""
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for i, down in enumerate(lines):
        draw.line([*zip(across.tolist(), down.tolist(), strict=True)], COLOURS[i % len(COLOURS)], SMOOTHING)
    return np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))

"""Grids of images, with numpy and Pillow."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    Images = NDArray[Any]  # bytes (N, H, W, C)

VISIBLE = 64  # pixels a side that small images are enlarged to
BLANK = 128  # grey of the grid's lines and gaps
PADDING = 2  # pixels
TEXT = 13  # pixels, the height of letters
LINE = 18  # pixels, a line with its space
FRAME_TIME = 80  # milliseconds


def as_bytes(images: NDArray[Any]) -> Images:
    """Brings images to bytes `(N, H, W, C)`; those in [0, 1] are `(N, C, H, W)`."""
    import numpy as np

    if images.dtype == np.uint8:
        return images
    levels: Images = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
    return levels.transpose(0, 2, 3, 1)


def interleave_rows(above: Images, below: Images, columns: int) -> Images:
    """Orders images so that in a grid each row of `above` is followed by its row of `below`."""
    import numpy as np

    blank = np.full((-len(above) % columns, *above.shape[1:]), BLANK, np.uint8)
    rows = [np.concatenate([part, blank]).reshape(-1, columns, *above.shape[1:]) for part in (above, below)]
    return np.stack(rows, axis=1).reshape(-1, *above.shape[1:])


def grid_columns(count: int) -> int:
    """Returns the number of columns of a grid of `count` images: as square as it can be, at most 16."""
    return min(16, max(1, round(math.sqrt(count))))


def image_grid(
    images: Images, columns: int, *, title: str = "", heads: Sequence[str] = (), sides: Sequence[str] = ()
) -> Image:
    """Draws images in rows, small ones enlarged.

    Args:
        images: Row by row; one or three channels.
        columns: Images in a row.
        title: Stands above all, if given.
        heads: Stand above the columns, if given.
        sides: Stand to the left of the rows, if given.
    """
    import numpy as np
    from PIL import Image

    images = enlarge(images)
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    step_y, step_x = height + PADDING, width + PADDING
    grid = np.full((rows * step_y + PADDING, min(n, columns) * step_x + PADDING, channels), BLANK, np.uint8)
    for i, image in enumerate(images):
        y, x = PADDING + i // columns * step_y, PADDING + i % columns * step_x
        grid[y : y + height, x : x + width] = image
    drawn = Image.fromarray(grid[..., 0] if channels == 1 else grid)
    return annotate(drawn, step_x, step_y, title, heads, sides) if title or heads or sides else drawn


def enlarge(images: Images) -> Images:
    """Repeats the pixels of small images."""
    times = max(1, VISIBLE // images.shape[2])
    return images.repeat(times, axis=1).repeat(times, axis=2)


def annotate(grid: Image, step_x: int, step_y: int, title: str, heads: Sequence[str], sides: Sequence[str]) -> Image:
    """Puts a grid, whose columns and rows are so many pixels apart, on white below and beside its texts."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(TEXT)

    def wide(text: str) -> int:
        return math.ceil(font.getlength(text))

    left = max(map(wide, sides), default=-PADDING) + PADDING
    left += PADDING if sides else 0
    top = (LINE if title else 0) + (LINE if heads else 0)
    canvas = Image.new(grid.mode, (max(left + grid.width, wide(title) + 2 * PADDING), top + grid.height), "white")
    canvas.paste(grid, (left, top))
    draw = ImageDraw.Draw(canvas)
    draw.text((PADDING, LINE // 2), title, "black", font, anchor="lm")
    for i, text in enumerate(heads):
        draw.text((left + (i + 0.5) * step_x, top - LINE // 2), text, "black", font, anchor="mm")
    for i, text in enumerate(sides):
        draw.text((left - PADDING, top + (i + 0.5) * step_y), text, "black", font, anchor="rm")
    return canvas


def caption(images: Images, texts: Sequence[str]) -> Images:
    """Enlarges images and gives each its text, in a strip above it."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(TEXT)
    images = enlarge(images)
    strips = []
    for text in texts:
        strip = Image.new("L", (images.shape[2], LINE), "white")
        ImageDraw.Draw(strip).text((strip.width / 2, LINE // 2), text, "black", font, anchor="mm")
        strips.append(np.asarray(strip)[..., None].repeat(images.shape[3], axis=2))
    return np.concatenate([np.stack(strips), images], axis=1)


def png(image: Image) -> bytes:
    """Returns an image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def gif(frames: Sequence[Image]) -> bytes:
    """Returns images as a GIF file that shows them forth and back, for ever; narrow ones get a white margin."""
    from PIL import Image

    size = max(frame.width for frame in frames), max(frame.height for frame in frames)
    even = [Image.new(frame.mode, size, "white") for frame in frames]
    for canvas, frame in zip(even, frames, strict=True):
        canvas.paste(frame)
    buffer = io.BytesIO()
    rest = [*even[1:], *even[-2:0:-1]]
    even[0].save(buffer, format="GIF", save_all=True, append_images=rest, duration=FRAME_TIME, loop=0)
    return buffer.getvalue()

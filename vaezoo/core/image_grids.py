"""Grids of images, with numpy and Pillow."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    Images = NDArray[Any]  # uint8 (N, H, W, C)

MIN_SIZE = 64  # pixels; smaller images are enlarged by a whole factor, up to this width
GAP_LEVEL = 128  # grey level of the gaps between images
PADDING = 2  # pixels
FONT_SIZE = 13  # pixels
LINE_HEIGHT = 18  # pixels
FRAME_TIME = 80  # milliseconds


def as_bytes(images: NDArray[Any]) -> Images:
    """Converts images to uint8 `(N, H, W, C)`.

    Args:
        images: Float `(N, C, H, W)` in [0, 1], or uint8 `(N, H, W, C)`, which is returned unchanged.
    """
    import numpy as np

    if images.dtype == np.uint8:
        return images
    levels: Images = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
    return levels.transpose(0, 2, 3, 1)


def interleave_rows(above: Images, below: Images, columns: int) -> Images:
    """Orders two sets of images so that in a grid each row of `above` is followed by the same row of `below`."""
    import numpy as np

    blank = np.full((-len(above) % columns, *above.shape[1:]), GAP_LEVEL, np.uint8)  # completes the last row
    rows = [np.concatenate([images, blank]).reshape(-1, columns, *above.shape[1:]) for images in (above, below)]
    return np.stack(rows, axis=1).reshape(-1, *above.shape[1:])


def to_size(images: Images, height: int, width: int) -> Images:
    """Returns images at another size, by the nearest pixel."""
    import numpy as np

    rows, columns = (np.arange(n) * size // n for n, size in zip((height, width), images.shape[1:3], strict=True))
    larger: Images = images[:, rows][:, :, columns]
    return larger


def grid_columns(count: int) -> int:
    """Returns the number of columns that makes a grid of `count` images nearly square, at most 16."""
    return min(16, max(1, round(math.sqrt(count))))


def image_grid(
    images: Images, columns: int, *, title: str = "", heads: Sequence[str] = (), sides: Sequence[str] = ()
) -> Image:
    """Draws a grid of images. Small images are enlarged.

    Args:
        images: The images, row by row, with one or three channels.
        columns: Images per row.
        title: Text above the grid.
        heads: Texts above the columns.
        sides: Texts to the left of the rows.
    """
    import numpy as np
    from PIL import Image

    images = enlarge(images)
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    step_y, step_x = height + PADDING, width + PADDING
    pixels = np.full((rows * step_y + PADDING, min(n, columns) * step_x + PADDING, channels), GAP_LEVEL, np.uint8)
    for i, image in enumerate(images):
        y, x = PADDING + i // columns * step_y, PADDING + i % columns * step_x
        pixels[y : y + height, x : x + width] = image
    grid = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    return annotate(grid, step_x, step_y, title, heads, sides) if title or heads or sides else grid


def enlarge(images: Images) -> Images:
    """Enlarges small images by repeating their pixels."""
    factor = max(1, MIN_SIZE // images.shape[2])
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def annotate(grid: Image, step_x: int, step_y: int, title: str, heads: Sequence[str], sides: Sequence[str]) -> Image:
    """Adds texts above and beside a grid, on white.

    Args:
        grid: The grid.
        step_x: Distance of its columns in pixels.
        step_y: Distance of its rows in pixels.
        title: See `image_grid`, as for `heads` and `sides`.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(FONT_SIZE)

    def text_width(text: str) -> int:
        return math.ceil(font.getlength(text))

    left = max(map(text_width, sides)) + 2 * PADDING if sides else 0
    top = (LINE_HEIGHT if title else 0) + (LINE_HEIGHT if heads else 0)
    size = max(left + grid.width, text_width(title) + 2 * PADDING), top + grid.height
    canvas = Image.new(grid.mode, size, "white")
    canvas.paste(grid, (left, top))
    draw = ImageDraw.Draw(canvas)
    draw.text((PADDING, LINE_HEIGHT // 2), title, "black", font, anchor="lm")
    for i, text in enumerate(heads):
        draw.text((left + (i + 0.5) * step_x, top - LINE_HEIGHT // 2), text, "black", font, anchor="mm")
    for i, text in enumerate(sides):
        draw.text((left - PADDING, top + (i + 0.5) * step_y), text, "black", font, anchor="rm")
    return canvas


def caption(images: Images, texts: Sequence[str]) -> Images:
    """Enlarges images and adds a text above each."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(FONT_SIZE)
    images = enlarge(images)
    strips = []
    for text in texts:
        strip = Image.new("L", (images.shape[2], LINE_HEIGHT), "white")
        ImageDraw.Draw(strip).text((strip.width / 2, LINE_HEIGHT // 2), text, "black", font, anchor="mm")
        strips.append(np.asarray(strip)[..., None].repeat(images.shape[3], axis=2))
    return np.concatenate([np.stack(strips), images], axis=1)


def png(image: Image) -> bytes:
    """Returns an image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def gif(frames: Sequence[Image]) -> bytes:
    """Returns frames as a GIF file that plays them forth and back in a loop. Narrow frames get a white margin."""
    from PIL import Image

    size = max(frame.width for frame in frames), max(frame.height for frame in frames)
    canvases = [Image.new(frame.mode, size, "white") for frame in frames]
    for canvas, frame in zip(canvases, frames, strict=True):
        canvas.paste(frame)
    buffer = io.BytesIO()
    rest = [*canvases[1:], *canvases[-2:0:-1]]
    canvases[0].save(buffer, format="GIF", save_all=True, append_images=rest, duration=FRAME_TIME, loop=0)
    return buffer.getvalue()

"""What image files say of themselves before they are decoded, and the errors that name bad ones.

Files are read as if their author were an enemy: Pillow is told which formats it may try, however a
file is called, and how large an image may be.
"""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from PIL import ExifTags, Image, UnidentifiedImageError

from vaezoo.data.thread_map import thread_map
from vaezoo.errors import InputError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "WEBP")
MAX_PIXELS = 89_478_485  # Pillow's own limit, where it starts to warn of a decompression bomb
NAMED = 3  # how many files an error names

# What Pillow raises on damaged files, by its own fuzz tests and by ours.
READ_ERRORS = (
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

# What the values of the EXIF tag Orientation ask for, so that the image stands upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # those that make a wide image a high one

Shape = tuple[int, int, int]
T = TypeVar("T")


class BadImagesError(InputError):
    """Image files cannot be read. The message counts them and names the first ones; a traceback lists them all.

    Attributes:
        files: All of them, each with the reason in one clause.
    """

    def __init__(self, files: Sequence[tuple[Path, str]], count: int, root: Path, hint: str) -> None:
        named = ", ".join(f"{path.relative_to(root)} ({reason})" for path, reason in files[:NAMED])
        more = f" and {len(files) - NAMED:,} more" if len(files) > NAMED else ""
        super().__init__(f"{len(files):,} of {count:,} images in '{root}' cannot be read: {named}{more}", hint)
        self.files = tuple(files)
        self.add_note("\n".join(f"{str(path)!r}: {reason}" for path, reason in files))


def read_shape(path: Path, size: int | None) -> Shape:
    """Returns the `(channels, height, width)` that a file is decoded to, from its header."""
    with open_image(path) as image:
        channels = 1 if is_grayscale(image) else 3
        if size is not None:
            return channels, size, size
        width, height = image.size
        if width != height and _lies_sideways(image, path):
            width, height = height, width
        return channels, height, width


def scan(
    paths: Sequence[Path], root: Path, size: int | None, read: Callable[[Path, int | None], Shape] = read_shape
) -> Shape:
    """Finds out what shape `read_images` would give images.

    Args:
        paths: The files.
        root: The folder that errors name them by.
        size: As in `read_images`.
        read: Finds the shape of one file, from its header or by decoding it.

    Returns:
        The shape of each, `(channels, height, width)`: one channel if all are grey, else three.

    Raises:
        BadImagesError: If headers cannot be read. Damage behind the header is found when an image is decoded.
        InputError: If no size is given and theirs differ.
    """
    sample, shape, bad = paths[0], None, []
    with quiet(), closing(thread_map(lambda path: try_read(lambda p: read(p, size), path), paths)) as results:
        for path, result in zip(paths, results, strict=True):
            if isinstance(result, str):
                bad.append((path, result))
            elif shape is None:
                sample, shape = path, result
            elif shape[1:] != result[1:]:
                raise sizes_differ(root, {sample: shape[1:], path: result[1:]})
            else:
                shape = max(shape, result)
    if bad or shape is None:
        raise BadImagesError(bad, len(paths), root, "remove or replace these files")
    return shape


def first_shape(paths: Sequence[Path], size: int | None) -> Shape | None:
    """Returns the shape of the first image whose header can be read; None if there is none."""
    with quiet():
        shapes = (try_read(partial(read_shape, size=size), path) for path in paths)
        return next((shape for shape in shapes if not isinstance(shape, str)), None)


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Opens a file of the formats and the size that are let in. What it raises is `READ_ERRORS`."""
    if not path.is_file():  # opening a named pipe would wait for ever
        raise OSError("not a file")
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        yield image


def is_grayscale(image: Image.Image) -> bool:
    """Tells from an image's mode and palette whether it is grey; asked before it is decoded."""
    if image.mode == "F":
        raise ValueError("floating-point levels")
    if image.mode != "P":
        return image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")
    probe = image
    if image.palette is not None:  # Pillow brings a palette to red, green and blue by decoding: one pixel will do
        probe = Image.new("P", (1, 1))
        probe.putpalette(image.palette)
    palette = probe.getpalette()
    if not palette:  # Pillow decodes such an image, but fails an assertion later
        raise ValueError("it has no palette")
    return palette[::3] == palette[1::3] == palette[2::3]  # so save many programs grey ones


def orientation(image: Image.Image) -> int:
    """Returns the EXIF tag Orientation; 1, upright, where there is none that can be read."""
    return _orientation(image.getexif)


def _orientation(getexif: Callable[[], Image.Exif]) -> int:
    try:
        value = getexif().get(ExifTags.Base.Orientation, 1)
    except READ_ERRORS:  # the pixels are good all the same
        return 1
    return value if isinstance(value, int) else 1


def _lies_sideways(image: Image.Image, path: Path) -> bool:
    """Tells whether an image changes its width for its height when it is made upright."""
    if image.format != "PNG" or _says_more_behind(path):
        return orientation(image) in SIDEWAYS
    # A PNG may have its EXIF data behind the pixels, and to look there Pillow's own would decode them.
    return _orientation(partial(Image.Image.getexif, image)) in SIDEWAYS


def _says_more_behind(path: Path) -> bool:
    """Tells whether a PNG has EXIF data or texts, which may hold some, behind the first of its pixels."""
    with path.open("rb") as file:
        file.seek(8)
        pixels = False
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if pixels and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            pixels = pixels or kind == b"IDAT"
            file.seek(length + 4, 1)
    return False


def try_read(read: Callable[[Path], T], path: Path) -> T | str:
    """Reads a file, or returns in one clause why that cannot be done."""
    try:
        return read(path)
    except UnidentifiedImageError:
        return f"not an image of the formats {', '.join(FORMATS)}"
    except Image.DecompressionBombError:
        return f"more than {MAX_PIXELS // 10**6} million pixels"
    except READ_ERRORS as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        return reason.splitlines()[0]


def sizes_differ(root: Path, sizes: dict[Path, tuple[int, ...]]) -> InputError:
    """Returns the error for images of different sizes where none is asked for."""
    named = ", ".join(f"{path.relative_to(root)} is {w} x {h}" for path, (h, w) in sizes.items())
    shortest = min(min(size) for size in sizes.values())
    power = 2 ** int(math.log2(max(4, min(shortest, 64))))  # 64 or less: what a first model can learn in minutes
    return InputError(f"the images in '{root}' differ in size: {named} pixels", f"pass --image-size {power}")


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps back what Pillow warns of: odd metadata, and large images, which are errors here by MOST_PIXELS.

    For one thread at a time: Python keeps one list of warning filters for all.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

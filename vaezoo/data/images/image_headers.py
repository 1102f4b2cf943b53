"""The headers of image files: shape, orientation and errors, found without decoding the pixels.

Files are read as untrusted input. Pillow may only try certain formats, whatever a file's name, and images have a
maximum size.
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

from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from vaezoo.data.base import ImageSize
from vaezoo.data.thread_map import thread_map
from vaezoo.errors import InputError

SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 89_478_485  # Pillow's own limit, above which it warns about a decompression bomb
MAX_NAMES = 3  # of files in an error
SIDEWAYS = range(5, 9)  # the values of the EXIF tag Orientation that swap width and height

# The errors that Pillow raises for damaged files, by its own fuzz tests and ours.
READ_ERRORS = (
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)

Shape = tuple[int, int, int]
T = TypeVar("T")


class BadImagesError(InputError):
    """Image files cannot be read. The message counts them and names the first ones. A traceback lists all of them.

    Attributes:
        files: All of them, each with the reason in one clause.
    """

    def __init__(self, files: Sequence[tuple[Path, str]], count: int, root: Path, hint: str) -> None:
        named = ", ".join(f"{path.relative_to(root)} ({reason})" for path, reason in files[:MAX_NAMES])
        more = f" and {len(files) - MAX_NAMES:,} more" if len(files) > MAX_NAMES else ""
        super().__init__(f"{len(files):,} of {count:,} images in '{root}' cannot be read: {named}{more}", hint)
        self.files = tuple(files)
        self.add_note("\n".join(f"{str(path)!r}: {reason}" for path, reason in files))


def height_width(image_size: ImageSize) -> tuple[int, int]:
    """Returns the height and the width that an image size means."""
    return (image_size, image_size) if isinstance(image_size, int) else image_size


def read_shape(path: Path, image_size: ImageSize | None) -> Shape:
    """Returns the `(channels, height, width)` that a file will be decoded to, from its header."""
    with open_image(path) as image:
        channels = 1 if is_grayscale(image) else 3
        if image_size is not None:
            return channels, *height_width(image_size)
        width, height = image.size
        if width != height and _is_sideways(image, path):
            width, height = height, width
        return channels, height, width


def common_shape(
    paths: Sequence[Path],
    root: Path,
    image_size: ImageSize | None,
    read: Callable[[Path, ImageSize | None], Shape] = read_shape,
) -> Shape:
    """Finds the shape of the images that `read_images` would return.

    Args:
        paths: The files.
        root: The folder. Errors name the files relative to it.
        image_size: As in `read_images`.
        read: Finds the shape of one file, from its header or by decoding it.

    Returns:
        `(channels, height, width)`: one channel if all images are grey, else three.

    Raises:
        BadImagesError: If headers cannot be read. Damage behind the header is only found when an image is decoded.
        InputError: If `image_size` is None and the images differ in size.
    """
    first, shape, bad = paths[0], None, []
    with (
        ignore_pillow_warnings(),
        closing(thread_map(lambda path: try_read(lambda p: read(p, image_size), path), paths)) as results,
    ):
        for path, result in zip(paths, results, strict=True):
            if isinstance(result, str):
                bad.append((path, result))
            elif shape is None:
                first, shape = path, result
            elif shape[1:] != result[1:]:
                raise sizes_differ(root, {first: shape[1:], path: result[1:]})
            else:
                shape = max(shape, result)  # three channels if one of the two has three
    if bad or shape is None:
        raise BadImagesError(bad, len(paths), root, "remove or replace these files")
    return shape


def first_shape(paths: Sequence[Path], image_size: ImageSize | None) -> Shape | None:
    """Returns the shape of the first image with a readable header, or None if there is none."""
    with ignore_pillow_warnings():
        shapes = (try_read(partial(read_shape, image_size=image_size), path) for path in paths)
        return next((shape for shape in shapes if not isinstance(shape, str)), None)


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Opens a file of an allowed format and size. Raises `READ_ERRORS` for other files."""
    if not path.is_file():  # opening a named pipe would block for ever
        raise OSError("not a file")
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        tags = getattr(image, "tag_v2", {})
        tile = [tags.get(tag, 0) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)]
        if not all(isinstance(side, int) for side in tile):
            raise ValueError("a damaged tile size")
        if tile[0] * tile[1] > MAX_PIXELS:  # libtiff allocates a whole tile, whatever the size of the image
            raise Image.DecompressionBombError
        if image.format == "TIFF":  # without a name Pillow does not map the file, which garbles sideways images
            image.filename = ""
        yield image


def is_grayscale(image: Image.Image) -> bool:
    """Returns whether an image is grey, from its mode and palette. Call it before the image is decoded."""
    if image.mode == "F":
        raise ValueError("floating-point levels")
    if image.mode.startswith("I"):
        max_level(image)  # raises for levels without a known white
    if image.mode != "P":
        return image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")
    probe = image
    if image.palette is not None:  # Pillow converts a palette to RGB by decoding, so a copy with one pixel is enough
        probe = Image.new("P", (1, 1))
        probe.putpalette(image.palette)
    palette = probe.getpalette()
    if not palette:  # Pillow decodes such an image but fails an assertion later
        raise ValueError("it has no palette")
    return palette[::3] == palette[1::3] == palette[2::3]  # many programs save grey images this way


def max_level(image: Image.Image) -> int:
    """Returns the level of white in an image of more than 8 bits, from its header. Call it before it is decoded.

    Raises:
        ValueError: If the header does not say it.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        if image.mode == "I":
            raise ValueError("levels of 32 bits or with a sign")
        return int(2 ** image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]) - 1
    return 65535


def has_16_bits(path: Path) -> bool:
    """Returns whether a file has levels of more than 8 bits. Raises `READ_ERRORS` if it cannot be read."""
    with open_image(path) as image:
        return image.mode.startswith("I") or ";16" in str(getattr(image, "tile", ""))


def is_inverted(image: Image.Image) -> bool:
    """Returns whether 0 is white in an image of more than 8 bits. Pillow turns only others around."""
    tags = getattr(image, "tag_v2", {})
    return bool(tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0)


def orientation(image: Image.Image) -> int:
    """Returns the EXIF tag Orientation, or 1, which means upright, if it is missing or unreadable."""
    return _orientation(image.getexif)


def _orientation(getexif: Callable[[], Image.Exif]) -> int:
    try:
        value = getexif().get(ExifTags.Base.Orientation, 1)
    except READ_ERRORS:  # the pixels may be good all the same
        return 1
    return value if isinstance(value, int) else 1


def _is_sideways(image: Image.Image, path: Path) -> bool:
    """Returns whether an image swaps its width and height when it is turned upright."""
    if image.format == "TIFF":  # Pillow turns these upright
        return False
    if image.format != "PNG" or _has_late_metadata(path):
        return orientation(image) in SIDEWAYS
    # A PNG may have EXIF data behind its pixels. PngImageFile.getexif would decode them to look there.
    return _orientation(partial(Image.Image.getexif, image)) in SIDEWAYS


def _has_late_metadata(path: Path) -> bool:
    """Returns whether a PNG has EXIF data behind the first pixels, or texts, which may contain EXIF data."""
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
    """Returns the result of `read`, or the reason in one clause if the file cannot be read."""
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
    """Returns the error for images of different sizes where no image size was given."""
    named = ", ".join(f"{path.relative_to(root)} is {w} x {h}" for path, (h, w) in sizes.items())
    shortest = min(min(size) for size in sizes.values())
    power = 2 ** int(math.log2(max(4, min(shortest, 64))))  # at most 64, which a first model can learn in minutes
    return InputError(f"the images in '{root}' differ in size: {named} pixels", f"pass --image-size {power}")


@contextmanager
def ignore_pillow_warnings() -> Iterator[None]:
    """Suppresses Pillow's warnings about odd metadata and about large images, which `MAX_PIXELS` makes errors.

    Only one thread at a time may use it, because Python has one list of warning filters for all threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

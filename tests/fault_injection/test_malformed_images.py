"""Damaged and forged image files: each is read, or raises an InputError that names it."""

from __future__ import annotations

import io
import os
import pickle
import re
import socket
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaezoo.data.images import image_folder
from vaezoo.data.images.image_headers import FORMATS
from vaezoo.data.images.streamed import StreamedImages
from vaezoo.errors import InputError, VaezooWarning

RNG = np.random.default_rng(0)
CANARY = Path("/tmp/vaezoo-evil")
TOO_LARGE = "more than 89 million pixels"
NOT_AN_IMAGE = "not an image of the formats"


def noise(mode: str = "RGB", size: tuple[int, int] = (16, 12)) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


def encoded(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    stream = io.BytesIO()
    (image or noise()).save(stream, kind, **options)
    return stream.getvalue()


# --- forged files


def chunk(kind: bytes, data: bytes, length: int | None = None) -> bytes:
    head = struct.pack(">I", len(data) if length is None else length) + kind
    return head + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int,
    height: int,
    *,
    depth: int = 8,
    colour: int = 2,
    between: bytes = b"",
    pixels: bytes = b"",
    end: bool = True,
) -> bytes:
    """Returns a PNG that declares `width` x `height`, with the uncompressed data `pixels`."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    last = chunk(b"IEND", b"") if end else b""
    return b"\x89PNG\r\n\x1a\n" + header + between + chunk(b"IDAT", zlib.compress(pixels)) + last


GREY_ROWS = bytes(range(12)) * 4  # four rows of a filter byte and 11 pixels
COLOUR_ROWS = b"".join(b"\0" + bytes(33) for _ in range(4))


def jpeg(width: int, height: int) -> bytes:
    """Returns a JPEG whose header declares another size."""
    content = bytearray(encoded("JPEG"))
    i = content.index(b"\xff\xc0")
    content[i + 5 : i + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def bmp(width: int, height: int, bits: int = 24, compression: int = 0, offset: int = 54, data: bytes = b"") -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, offset) + header + data


def gif(width: int, height: int, rest: bytes = b";") -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + rest


def webp(width: int, height: int) -> bytes:
    """Returns the header of a WebP file in the extended format."""
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + size
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff(kind: str) -> bytes:
    return encoded("TIFF", compression=kind)


def changed_tiff(changes: dict[int, int | tuple[int, int]], loop: bool = False) -> bytes:
    """Returns a TIFF with other values of some tags, or with another tag and value in the place of one."""
    content = bytearray(tiff("raw"))
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    for i in range(start + 2, start + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from("<H", content, i)
        if tag in changes:
            change = changes[tag]
            struct.pack_into(
                "<HHII", content, i, *((tag, 4, 1, change) if isinstance(change, int) else (change[0], 4, 1, change[1]))
            )
    if loop:
        struct.pack_into("<I", content, start + 2 + 12 * count, start)
    return bytes(content)


class Canary:
    """An object whose unpickling makes a file."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(CANARY), "w")


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def texts(count: int) -> bytes:
    """Returns text chunks of a megabyte each, compressed to a thousandth."""
    return chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 2**20)) * count


TEXT_ORIENTATION = b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0up\0\0" + bytes(4)  # EXIF data with the text "up"
FRAMES = [noise("P"), noise("P")]
WHOLE = {kind: encoded(kind, noise(size=(40, 30))) for kind in FORMATS}
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
FITS = b"SIMPLE  =                    T".ljust(80) + b"BITPIX  =                    8".ljust(80) + b"END".ljust(2720)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'

# The content and the reason why it is refused, or READ.
READ = "read"
CASES: dict[str, tuple[bytes, str]] = {
    # other files
    "0 bytes": (b"", NOT_AN_IMAGE),
    "1 byte": (b"\x89", NOT_AN_IMAGE),
    "zeros": (bytes(10_000), NOT_AN_IMAGE),
    "text": (b"hello", NOT_AN_IMAGE),
    "html": (b"<html>404 Not Found</html>", NOT_AN_IMAGE),
    "svg": (SVG, NOT_AN_IMAGE),
    "pickle": (pickle.dumps(Canary()), NOT_AN_IMAGE),
    "array": (b"\x93NUMPY\x01\x00", NOT_AN_IMAGE),
    "zip": (b"PK\x05\x06" + bytes(18), NOT_AN_IMAGE),
    "program": (b"\x7fELF" + bytes(100), NOT_AN_IMAGE),
    # image formats that are not allowed, whatever the file's name
    "EPS": (EPS, NOT_AN_IMAGE),
    "EPS, DOS": (b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, len(EPS)) + bytes(20) + EPS, NOT_AN_IMAGE),
    "FITS": (FITS, NOT_AN_IMAGE),
    "ICO": (encoded("ICO"), NOT_AN_IMAGE),
    "ICNS": (b"icns" + struct.pack(">I", 16) + b"ic07" + struct.pack(">I", 8), NOT_AN_IMAGE),
    "PCX": (encoded("PCX"), NOT_AN_IMAGE),
    "TGA": (encoded("TGA"), NOT_AN_IMAGE),
    "SGI": (encoded("SGI"), NOT_AN_IMAGE),
    "DDS": (encoded("DDS"), NOT_AN_IMAGE),
    "PDF": (encoded("PDF"), NOT_AN_IMAGE),
    "PSD": (b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 8, 3) + bytes(12), NOT_AN_IMAGE),
    "JPEG 2000": (b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(40), NOT_AN_IMAGE),
    # images that are read
    "1 x 1": (encoded("PNG", noise(size=(1, 1))), READ),
    "1 x 2000": (encoded("PNG", noise("L", (1, 2000))), READ),
    **{mode: (encoded("PNG", noise(mode)), READ) for mode in ("1", "L", "LA", "P", "RGBA")},
    "16-bit grey": (encoded("PNG", Image.fromarray(RNG.integers(0, 65536, (9, 9), dtype=np.uint16))), READ),
    "16-bit colour": (png(4, 2, depth=16, pixels=(b"\0" + bytes(24)) * 2), READ),
    "CMYK": (encoded("JPEG", noise("CMYK")), READ),
    "grey JPEG": (encoded("JPEG", noise("L")), READ),
    "progressive": (encoded("JPEG", progressive=True), READ),
    "animated GIF": (encoded("GIF", FRAMES[0], save_all=True, append_images=FRAMES[1:]), READ),
    "animated PNG": (encoded("PNG", FRAMES[0], save_all=True, append_images=FRAMES[1:]), READ),
    "animated WebP": (encoded("WEBP", save_all=True, append_images=[noise()]), READ),
    "several in one JPEG": (encoded("MPO", save_all=True, append_images=[noise()]), READ),
    "other ending": (encoded("PNG") + bytes(1000), READ),
    "without an end": (png(11, 4, colour=0, pixels=GREY_ROWS, end=False), READ),
    "from below": (bmp(2, -2, data=bytes(16)), READ),
    "palette with transparency": (encoded("PNG", noise("P"), transparency=3), READ),
    "lies sideways": (encoded("JPEG", exif=exif(6)), READ),
    "unknown orientation": (encoded("JPEG", exif=exif(77)), READ),
    "orientation is text": (encoded("PNG", exif=TEXT_ORIENTATION), READ),
    "damaged metadata": (encoded("JPEG", exif=b"Exif\0\0" + bytes(range(200))), READ),
    "damaged colour profile": (encoded("PNG", icc_profile=bytes(500)), READ),
    "GIF without a palette": (gif(1, 1, b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;"), READ),
    "more pixels than it says": (png(11, 2, colour=0, pixels=GREY_ROWS), READ),
    "fewer pixels than it says": (png(11, 9, colour=0, pixels=GREY_ROWS), READ),  # Pillow makes the missing ones black
    "TIFF": (tiff("raw"), READ),
    "TIFF, packed": (tiff("tiff_deflate"), READ),
    "TIFF, several pages": (encoded("TIFF", save_all=True, append_images=[noise()]), READ),
    "AVIF": (encoded("AVIF"), READ),
    "animated AVIF": (encoded("AVIF", save_all=True, append_images=[noise()]), READ),
    # headers that declare more than the file has
    "bomb of 20,000 x 20,000": (png(20_000, 20_000), TOO_LARGE),
    "bomb just above the limit": (png(9_460, 9_459), TOO_LARGE),
    "PNG of 4 billion squared": (png(2**31 - 1, 2**31 - 1), TOO_LARGE),
    "JPEG of 65,500 squared": (jpeg(65_500, 65_500), TOO_LARGE),
    "GIF of 65,535 squared": (gif(65_535, 65_535, b",\0\0\0\0\xff\xff\xff\xff\0\2\1\0\0;"), TOO_LARGE),
    "BMP of 2 billion squared": (bmp(2**31 - 1, 2**31 - 1), TOO_LARGE),
    "PPM of 99,999 squared": (b"P6 99999 99999 255\n", TOO_LARGE),
    "WebP of 16,384 squared": (webp(16_384, 16_384), TOO_LARGE),
    "large, and nothing there": (png(9_000, 9_000), "truncated"),
    "no width": (png(0, 4), "."),
    "no height": (jpeg(8, 0), "."),
    "no frames": (gif(8, 8), "."),
    "bomb of texts": (png(11, 4, colour=0, between=texts(70), pixels=GREY_ROWS), "."),
    "text larger than allowed": (
        png(11, 4, colour=0, between=chunk(b"zTXt", b"C\0\0" + zlib.compress(b"x" * 2**26)), pixels=GREY_ROWS),
        ".",
    ),
    "endless chunk": (png(11, 4, between=chunk(b"teSt", b"", 2**31 - 1), pixels=COLOUR_ROWS), "."),
    "damaged pixels": (encoded("PNG").replace(b"IDAT", b"IDAT\0\0\0\0", 1), "."),
    "unknown depth": (png(11, 4, depth=7, pixels=COLOUR_ROWS), "."),
    "unknown colours": (png(11, 4, colour=5, pixels=COLOUR_ROWS), "."),
    "no palette": (png(11, 4, colour=3, pixels=GREY_ROWS), "it has no palette"),
    "BMP of unknown kind": (bmp(8, 8, compression=77, data=bytes(256)), "."),
    "BMP with pixels behind its end": (bmp(8, 8, offset=10**9, data=bytes(256)), "."),
    "BMP of 7 bits": (bmp(8, 8, bits=7, data=bytes(256)), "."),
    "BMP, run beyond its end": (bmp(4, 4, bits=8, compression=1, offset=54, data=b"\xff\x01" * 40), "."),
    "PPM without levels": (b"P5 2 2 0\n\0\0\0\0", "."),
    "PPM of negative size": (b"P5 -2 2 255\n\0\0\0\0", "."),
    "PPM with letters": (b"P5 two 2 255\n\0\0\0\0", "."),
    "PPM, endless number": (b"P5 " + b"9" * 10**6, "."),
    "PPM, endless comment": (b"P5 #" + b"x" * 10**6, "."),
    "TIFF of 99,999 squared": (changed_tiff({256: 99_999, 257: 99_999}), TOO_LARGE),
    "TIFF with a tile of 32,768 squared": (changed_tiff({278: (322, 32_768), 279: (323, 32_768)}), TOO_LARGE),
    "TIFF without pixels": (changed_tiff({273: 10**9}), "."),
    "TIFF with a page that is its own next one": (changed_tiff({}, loop=True), READ),
    "floating-point TIFF": (encoded("TIFF", noise("F")), "floating-point"),
    "TIFF of 32 bits": (encoded("TIFF", noise("I")), "32 bits"),
    "floating-point levels": (b"Pf 1 1 -1.0 " + bytes(4), "floating-point"),
}


def load_all_ways(root: Path) -> list[str]:
    """Loads a folder in memory and streamed, with and without resizing. Returns READ or the error of each."""
    outcomes = []
    for stream in (False, True):
        for image_size in (None, 8):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    split, *_ = image_folder.load(root, image_size, stream)
                    x = split.gather(slice(None)).x
                assert x.shape == (len(split), *split.shape) and len(split) >= 1
                assert image_size is None or split.shape[1:] == (8, 8)
                assert isinstance(split, StreamedImages) == stream
                outcomes.append(READ)
            except InputError as error:
                outcomes.append(error.message)
    assert not CANARY.exists()
    return outcomes


@pytest.mark.parametrize(("content", "expected"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("suffix", ["png", "JPG"])
def test_malformed_images(tmp_path: Path, content: bytes, expected: str, suffix: str) -> None:
    (tmp_path / f"x.{suffix}").write_bytes(content)
    pattern = READ if expected == READ else rf"1 of 1 images in '.*' cannot be read: x.{suffix} \(.*{expected}.*\)"
    for outcome in load_all_ways(tmp_path):
        assert re.fullmatch(pattern, outcome)


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("sixteenths", range(1, 16))
def test_truncated_images(tmp_path: Path, kind: str, sixteenths: int) -> None:
    (tmp_path / "bad.png").write_bytes(WHOLE[kind][: len(WHOLE[kind]) * sixteenths // 16])
    for outcome in load_all_ways(tmp_path):
        assert "1 of 1 images" in outcome and "bad.png" in outcome


# --- special files and names


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def link_to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_folder(path: Path) -> None:
    (path.parent / "cat").mkdir()
    path.symlink_to(path.parent / "cat")


def unix_socket(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(str(path))


def unreadable(path: Path) -> None:
    path.write_bytes(encoded("PNG"))
    path.chmod(0)


SPECIAL = [link_to_itself, link_to_nothing, link_to_device, os.mkfifo, unix_socket]


@pytest.mark.parametrize("make", SPECIAL)
def test_special_files(tmp_path: Path, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    make(Path("x.png"))
    for outcome in load_all_ways(tmp_path):
        assert "1 of 1 images" in outcome and "x.png (not a file)" in outcome


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_read_permission(tmp_path: Path) -> None:
    unreadable(tmp_path / "x.png")
    assert all("Permission denied" in outcome for outcome in load_all_ways(tmp_path))


@pytest.mark.parametrize("make", [link_to_folder, Path.mkdir, None])
def test_folders_without_images(tmp_path: Path, make: Callable[[Path], None] | None) -> None:
    if make:
        make(tmp_path / "x.png")
    assert all("no images in folder" in outcome for outcome in load_all_ways(tmp_path))


NAMES = [
    "ünï çödé 絵.png",
    "new\nline.png",
    "tab\t.png",
    "'quoted' \"name\".png",
    "%s {0}.png",
    "a" * 251 + ".png",
    "-rf.png",
]
NAMES += [os.fsdecode(b"\xff\xfe.png"), "[red]x.png"]


@pytest.mark.parametrize("name", NAMES)
def test_strange_names(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(encoded("PNG"))
    assert load_all_ways(tmp_path) == [READ] * 4
    (tmp_path / name).write_bytes(b"")
    assert all(name in outcome for outcome in load_all_ways(tmp_path))


# --- random damage


def test_random_damage(tmp_path: Path) -> None:
    """Some damaged files can still be read. The others raise InputError and nothing else."""
    rng = np.random.default_rng(1)
    modes = {
        "JPEG": ("RGB", "CMYK"),
        "PNG": ("P", "LA"),
        "GIF": ("P",),
        "BMP": ("1", "RGB"),
        "WEBP": ("RGB",),
        "PPM": ("L",),
        "TIFF": ("RGB", "1"),
        "AVIF": ("RGB",),
    }
    for kind, mode in [(k, m) for k, names in modes.items() for m in names]:
        content = encoded(kind, noise(mode))
        for i in range(150):
            changed = bytearray(content)
            for _ in range(rng.integers(1, 8)):
                changed[rng.integers(min(len(changed), 300))] = rng.integers(256)
            (tmp_path / f"{kind}-{mode}-{i:03}.png").write_bytes(changed)
    for stream in (False, True):
        with pytest.raises(InputError), warnings.catch_warnings():
            warnings.simplefilter("error")
            image_folder.load(tmp_path, 8, stream)
    with pytest.warns(VaezooWarning, match="of 1,800 images"):
        train, *_ = image_folder.load(tmp_path, 8, skip=True)
    assert 0 < len(train) < 1800

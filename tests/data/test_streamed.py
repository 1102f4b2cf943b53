"""vaezoo.data.images.streamed: the same examples as in memory, decoded when a batch needs them."""

import threading
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, PngImagePlugin

from vaezoo.core import memory
from vaezoo.data.base import TensorSplit
from vaezoo.data.images import decode, image_folder, image_headers
from vaezoo.data.images.streamed import StreamedImages
from vaezoo.data.load import load_data
from vaezoo.errors import InputError, VaezooError

RNG = np.random.default_rng(0)


def noise(mode: str = "RGB", size: tuple[int, int] = (9, 7)) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Grey and colour images of two classes in the splits train and test."""
    for split, count in (("train", 23), ("test", 5)):
        for name in ("ape", "zebra"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for i in range(count):
                noise("RGB" if i % 3 else "L").save(tmp_path / "set" / split / name / f"{i:02}.png")
    return tmp_path / "set"


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Twenty colour images."""
    (tmp_path / "flat").mkdir()
    for i in range(20):
        noise().save(tmp_path / "flat" / f"{i:02}.png")
    return tmp_path / "flat"


# --- same examples as in memory


@pytest.mark.parametrize("image_size", [None, 4])
def test_same_splits_as_in_memory(root: Path, image_size: int | None) -> None:
    in_memory, streamed = (load_data(root, image_size=image_size, stream=stream) for stream in (False, True))
    assert in_memory.spec == streamed.spec and in_memory.source == streamed.source
    for name in ("train", "valid", "test"):
        a, b = getattr(in_memory, name), getattr(streamed, name)
        assert isinstance(a, TensorSplit) and isinstance(b, StreamedImages)
        assert (len(a), a.shape, a.nbytes) == (len(b), b.shape, b.nbytes)
        assert a.y.equal(b.y)
        order = torch.randperm(len(a))
        for index in (slice(None), slice(1, 3), order[:3], order % 2 == 0, order[-1:], order[:0]):
            for method in ("gather", "batch"):
                expected, actual = getattr(a, method)(index), getattr(b, method)(index)
                assert expected.x.dtype == actual.x.dtype
                assert expected.x.equal(actual.x) and expected.y.equal(actual.y)
        for count in (0, 3, 1000):
            assert a.subsample(count).x.equal(b.subsample(count).x) and a.subsample(count).y.equal(b.subsample(count).y)


def test_no_classes_no_labels(flat: Path) -> None:
    data = load_data(flat, stream=True)
    assert data.train.y is None and data.train.gather(slice(2)).y is None and data.valid.subsample(1).y is None
    assert data.test is None and data.held_out[0] == "valid"


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    for i in range(3):
        noise("L").save(tmp_path / f"{i}.png")
    assert load_data(tmp_path, stream=True).spec.shape == (1, 7, 9)


def test_decodes_only_the_batch(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    real = decode._decode
    monkeypatch.setattr(decode, "_decode", lambda path, *form: decoded.append(path.name) or real(path, *form))
    train, *_ = image_folder.load(flat, None, stream=True)
    train.select(torch.arange(10))
    assert decoded == []
    train.gather(torch.tensor([7, 3]))
    assert sorted(decoded) == ["03.png", "07.png"]


# --- when images are streamed


def test_default_depends_on_memory(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbytes = 20 * 3 * 7 * 9
    for available, kind in ((2 * nbytes, TensorSplit), (2 * nbytes - 1, StreamedImages)):
        monkeypatch.setattr(image_folder, "available_memory", lambda available=available: available)
        assert type(load_data(flat).train) is kind
    assert type(load_data(flat, stream=False).train) is TensorSplit


def test_grey_images_need_a_third(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(4):
        noise("L").save(tmp_path / f"{i}.png")
    monkeypatch.setattr(image_folder, "available_memory", lambda: 2 * 4 * 7 * 9)
    assert type(load_data(tmp_path).train) is TensorSplit


def test_small_folders_are_not_scanned(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_folder, "common_shape", None)
    load_data(flat)


def test_first_header_may_be_bad(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_folder, "available_memory", lambda: 100)
    (flat / "00.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"1 of 20 images .* 00.png \(not an image"):
        load_data(flat)


@pytest.mark.parametrize("data", ["digits", "array.npy"])
def test_only_image_folders_are_streamed(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("array.npy", np.zeros((4, 3)))
    with pytest.raises(VaezooError, match="cannot be streamed") as error:
        load_data(data, stream=True)
    assert "--stream" in error.value.hint
    load_data(data, stream=False)


def test_available_memory() -> None:
    assert 0 < memory.available_memory() < memory.machine_memory()


@pytest.mark.parametrize("text", ["", "MemAvailable: kB\n", "MemAvailable:\n", "MemFree: 12 kB\n", None])
def test_available_memory_falls_back(text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if text is not None:
        (tmp_path / "meminfo").write_text(text)
    monkeypatch.setattr("builtins.open", partial(lambda opened, *_: Path.open(opened), tmp_path / "meminfo"))
    assert memory.available_memory() == memory.machine_memory()


# --- headers


def palette(levels: list[int]) -> Image.Image:
    image = Image.new("P", (9, 7))
    image.putpalette(levels)
    image.putpixel((0, 0), 1)
    return image


@pytest.mark.parametrize(
    ("image", "suffix"),
    [
        *((noise(mode), "png") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
        *((noise(mode), "jpg") for mode in ("L", "RGB", "CMYK")),
        *((noise("L").quantize(8), suffix) for suffix in ("png", "gif", "bmp")),
        *((palette([9, 9, 9, 200, 200, 201]), suffix) for suffix in ("png", "gif", "bmp")),
        (noise("L"), "gif"),
        (noise("L"), "pgm"),
        (noise("1"), "bmp"),
        (noise("RGB"), "webp"),
        (Image.fromarray(RNG.integers(0, 65536, (7, 9), dtype=np.uint16)), "png"),
    ],
)
@pytest.mark.parametrize("image_size", [None, 4])
def test_headers_predict_the_shape(
    tmp_path: Path, image: Image.Image, suffix: str, image_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"1.{suffix}"
    image.save(path)
    expected = decode.read_images([path], tmp_path, image_size).shape[1:]
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)  # nothing is decoded
    assert image_headers.common_shape([path], tmp_path, image_size) == expected


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("place", ["jpg", "webp", "png", "png behind the pixels", "png in a text behind the pixels"])
def test_sideways_images(tmp_path: Path, orientation: int, place: str) -> None:
    exif, texts = Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x0112] = orientation
    path = tmp_path / f"1.{place[:4].strip()}"
    if place.endswith("jpg") or place in ("png", "webp"):
        noise().save(path, exif=exif)
    elif "text" in place:
        xmp = f'<x tiff:Orientation="{orientation}"/>'
        texts.add_itxt("XML:com.adobe.xmp", xmp)
        noise().save(path, pnginfo=texts)
        move_behind_pixels(path, b"iTXt")
    else:
        noise().save(path, exif=exif)
        move_behind_pixels(path, b"eXIf")
    train, *_ = image_folder.load(tmp_path, None, stream=True)
    assert train.shape == ((3, 7, 9) if orientation < 5 else (3, 9, 7))
    assert train.gather(slice(None)).x.equal(image_folder.load(tmp_path, None)[0].gather(slice(None)).x)


def move_behind_pixels(path: Path, kind: bytes) -> None:
    """Moves the chunks of one kind of a PNG behind its pixels."""
    content = path.read_bytes()
    chunks, at = [], 8
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        chunks.append(content[at:end])
        at = end
    moved = [chunk for chunk in chunks if chunk[4:8] == kind]
    others = [chunk for chunk in chunks if chunk[4:8] != kind]
    assert moved
    path.write_bytes(b"".join([content[:8], *others[:-1], *moved, others[-1]]))


def test_plain_png_is_not_decoded(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", None)
    assert image_folder.load(flat, None, stream=True)[0].shape == (3, 7, 9)


# --- errors at loading time


@pytest.mark.parametrize("image_size", [None, 4])
def test_error_counts_bad_files(flat: Path, image_size: int | None) -> None:
    for i in (3, 7, 8, 15):
        (flat / f"{i:02}.png").write_bytes(b"bad")
    (flat / "19.png").write_bytes(b"Pf 1 1 -1.0 " + b"\0" * 4)
    errors = []
    for stream in (False, True):
        with pytest.raises(InputError, match=r"5 of 20 images .* 03.png .* 07.png .* 08.png .* and 2 more") as error:
            load_data(flat, image_size=image_size, stream=stream)
        errors.append((error.value.message, error.value.hint))
    assert errors[0] == errors[1]


def test_sizes_must_agree(flat: Path) -> None:
    noise(size=(9, 8)).save(flat / "11.png")
    errors = []
    for stream in (False, True):
        with pytest.raises(InputError, match=r"differ in size: 00.png is 9 x 7, 11.png is 9 x 8 pixels") as error:
            load_data(flat, stream=stream)
        errors.append((error.value.message, error.value.hint))
    assert errors[0] == errors[1]
    assert load_data(flat, image_size=4, stream=True).spec.shape == (3, 4, 4)


# --- files that change after loading


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def enlarge(path: Path) -> None:
    noise(size=(10, 7)).save(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [(remove, "not a file"), (truncate, "[a-z]+"), (enlarge, "10 x 7 pixels now, 9 x 7 before")],
)
def test_error_names_changed_files(flat: Path, change: Callable[[Path], None], reason: str) -> None:
    train, *_ = image_folder.load(flat, None, stream=True)
    whole = train.gather(slice(None)).x
    for i in (2, 5, 11, 12, 13):
        change(flat / f"{i:02}.png")
    with pytest.raises(InputError, match=rf"2 of 3 images in .*: 05.png \({reason}.*\), 02.png \({reason}") as error:
        train.gather(torch.tensor([5, 0, 2]))
    assert "restore" in error.value.hint
    with pytest.raises(InputError, match=r"5 of 20 images .* 02.png .* 05.png .* 11.png .* and 2 more"):
        train.batch(slice(None))
    with pytest.raises(InputError, match=r"02\.png"):
        train.subsample(20)
    assert train.gather(torch.tensor([0, 19])).x.equal(whole[[0, 19]])  # the other images are unchanged


def test_damage_behind_the_header(flat: Path) -> None:
    truncate(flat / "04.png")
    data = load_data(flat, stream=True)
    with pytest.raises(InputError, match=r"04\.png"):
        data.train.gather(slice(None))


def test_grey_images_stay_grey(tmp_path: Path) -> None:
    for i in range(3):
        noise("L").save(tmp_path / f"{i}.png")
    train, *_ = image_folder.load(tmp_path, None, stream=True)
    noise().save(tmp_path / "1.png")
    with pytest.raises(InputError, match=r"1 of 3 .* 1.png \(in colour now"):
        train.gather(slice(None))


# --- warnings


def test_pillow_warnings_are_suppressed(flat: Path) -> None:
    (flat / "00.png").unlink()
    noise().save(flat / "00.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01")

    def read_exif() -> None:
        with Image.open(flat / "00.jpg") as image:
            image.getexif()

    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        warnings.simplefilter("ignore", ResourceWarning)
        read_exif()
        assert caught != []  # without the filter Pillow does warn
        caught.clear()
        train, *_ = image_folder.load(flat, None, stream=True)
        threads = [threading.Thread(target=train.gather, args=(slice(None),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        read_exif()
        assert caught == []
        warnings.warn("mine", stacklevel=1)
        assert [str(warning.message) for warning in caught] == ["mine"]  # other warnings are not suppressed

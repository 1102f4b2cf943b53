"""vaezoo.data.images.image_folder and vaezoo.data.images.decode: layouts, channels, sizes and bad files."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from vaezoo.data.images import decode, image_folder
from vaezoo.errors import InputError

RNG = np.random.default_rng(0)


def noise(mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


def write(path: Path, image: Image.Image | bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        (image or noise()).save(path)
    return path


# --- layouts


def test_flat_folder_is_sorted(tmp_path: Path) -> None:
    images = {name: noise() for name in ("b.png", "a.png", "c.PNG")}
    for name, image in images.items():
        write(tmp_path / name, image)
    write(tmp_path / "notes.txt", b"not an image")
    write(tmp_path / ".hidden.png", b"not an image")
    write(tmp_path / ".cache" / "d.png", b"not an image")
    train, test = image_folder.load(tmp_path, None)
    assert test is None and train.y is None
    assert train.x.shape == (3, 3, 8, 8) and train.x.dtype == torch.uint8
    for x, name in zip(train.x, sorted(images), strict=True):
        assert np.array_equal(x.permute(1, 2, 0).numpy(), np.asarray(images[name]))


def test_class_folders_are_labels(tmp_path: Path) -> None:
    for name in ("zebra/1.png", "ape/2.png", "ape/deep/er/1.png", "ape/deep/dir.png/3.png"):
        write(tmp_path / name)
    (tmp_path / "empty").mkdir()
    train, test = image_folder.load(tmp_path, None)
    assert test is None and train.y is not None
    assert train.y.tolist() == [0, 0, 0, 1] and train.y.dtype == torch.int64


@pytest.mark.parametrize("classes", [("",), ("cat", "dog")])
@pytest.mark.parametrize("splits", [("train",), ("train", "test"), ("train", "test", "val")])
def test_train_and_test_folders(tmp_path: Path, splits: tuple[str, ...], classes: tuple[str, ...]) -> None:
    for split in splits:
        for name in classes:
            write(tmp_path / split / name / "1.png")
    train, test = image_folder.load(tmp_path, None)
    assert len(train) == len(classes)
    assert (test is not None) == ("test" in splits)
    for split in filter(None, (train, test)):
        assert (split.y is None) == (classes == ("",))
        assert split.y is None or split.y.tolist() == [0, 1]


def test_train_can_be_a_class(tmp_path: Path) -> None:
    for name in ("boat", "train"):
        write(tmp_path / name / "1.png")
    train, test = image_folder.load(tmp_path, None)
    assert test is None and train.y is not None and train.y.tolist() == [0, 1]


def test_class_folders_may_be_links(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "cat").symlink_to(tmp_path / "elsewhere")
    assert len(image_folder.load(tmp_path / "set", None)[0]) == 1


def missing(root: Path) -> None: ...


def empty(root: Path) -> None:
    root.mkdir()


def no_images(root: Path) -> None:
    write(root / "data.csv", b"1,2")


def mixed_layout(root: Path) -> None:
    write(root / "1.png")
    write(root / "cat" / "1.png")


def other_classes(root: Path) -> None:
    write(root / "train" / "cat" / "1.png")
    write(root / "test" / "dog" / "1.png")


def flat_test(root: Path) -> None:
    write(root / "train" / "cat" / "1.png")
    write(root / "test" / "1.png")


@pytest.mark.parametrize(
    ("make", "message", "hint"),
    [
        (missing, "no folder", "name a folder"),
        (empty, "no images", "BMP, GIF, JPEG, PNG, PPM, WEBP"),
        (no_images, "no images", "BMP, GIF, JPEG, PNG, PPM, WEBP"),
        (mixed_layout, "images of its own and also folders of images, such as 'cat'", "keep only images"),
        (other_classes, "different classes: only train has class 'cat'", "the same class folders"),
        (flat_test, "different classes: only test has images outside of class folders", "the same class folders"),
    ],
)
def test_invalid_layouts(tmp_path: Path, make: Callable[[Path], None], message: str, hint: str) -> None:
    make(tmp_path / "set")
    with pytest.raises(InputError, match=message) as error:
        image_folder.load(tmp_path / "set", None)
    assert hint in error.value.hint


# --- channels


@pytest.mark.parametrize(
    ("mode", "suffix", "channels"),
    [
        ("1", "png", 1),
        ("1", "bmp", 1),
        ("L", "png", 1),
        ("L", "jpg", 1),
        ("L", "gif", 1),
        ("L", "pgm", 1),
        ("LA", "png", 1),
        ("P", "png", 3),
        ("P", "gif", 3),
        ("RGB", "jpeg", 3),
        ("RGB", "bmp", 3),
        ("RGB", "ppm", 3),
        ("RGB", "webp", 3),
        ("RGBA", "png", 3),
        ("CMYK", "jpg", 3),
    ],
)
def test_modes(tmp_path: Path, mode: str, suffix: str, channels: int) -> None:
    image = noise(mode)
    path = write(tmp_path / f"1.{suffix}", image)
    train, _ = image_folder.load(tmp_path, None)
    assert train.x.shape == (1, channels, 8, 8)
    with Image.open(path) as saved:
        expected = np.asarray(saved.convert("L" if channels == 1 else "RGB"))
    assert np.array_equal(train.x[0].permute(1, 2, 0).squeeze(2).numpy(), expected)


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp"])
def test_grey_palette_is_grey(tmp_path: Path, suffix: str) -> None:
    image = noise("L").quantize(8)
    path = write(tmp_path / f"1.{suffix}", image)
    with Image.open(path) as saved:
        assert saved.mode == "P"
    train, _ = image_folder.load(tmp_path, None)
    assert np.array_equal(train.x[0].numpy(), [np.asarray(image.convert("L"))])


def test_one_colour_image_decides(tmp_path: Path) -> None:
    grey = [noise("L") for _ in range(3)]
    for i, image in enumerate(grey):
        write(tmp_path / "train" / f"{2 * i}.png", image)
    write(tmp_path / "train" / "3.png")
    write(tmp_path / "test" / "1.png", grey[0])
    train, test = image_folder.load(tmp_path, None)
    assert test is not None and train.x.shape == (4, 3, 8, 8) and test.x.shape == (1, 3, 8, 8)
    for i, image in zip((0, 1, 3), grey, strict=True):
        assert all(np.array_equal(channel.numpy(), np.asarray(image)) for channel in train.x[i])


def test_16_bit_grey_is_scaled(tmp_path: Path) -> None:
    levels = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    write(tmp_path / "1.png", Image.fromarray(levels))
    write(tmp_path / "2.pgm", b"P5 4 1 65535 " + levels.astype(">u2").tobytes())
    train, _ = image_folder.load(tmp_path, None)
    assert train.x.tolist() == [[[[0, 1, 128, 255]]]] * 2


@pytest.mark.parametrize(("mode", "levels"), [("RGBA", (200, 100, 0)), ("LA", (100,))])
def test_transparency_lies_on_white(tmp_path: Path, mode: str, levels: tuple[int, ...]) -> None:
    image = Image.new(mode, (3, 1))
    for x, alpha in enumerate((0, 102, 255)):
        image.putpixel((x, 0), (*levels, alpha))
    write(tmp_path / "1.png", image)
    train, _ = image_folder.load(tmp_path, None)
    for channel, level in zip(train.x[0, :, 0].tolist(), levels, strict=True):
        assert channel == [255, pytest.approx(255 * 0.6 + level * 0.4, abs=1), level]


def test_transparent_palette_lies_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "1.gif", transparency=1)
    train, _ = image_folder.load(tmp_path, None)
    assert train.x[0, :, 0].T.tolist() == [[10, 20, 30], [255, 255, 255]]


# How to store an upright image so that the EXIF orientation turns it back.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("image_size", [None, 4])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, image_size: int | None) -> None:
    upright = Image.fromarray(np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20, np.ones((8, 8), np.uint8)))
    stored = upright.transpose(STORED[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "1.jpg", quality=100, exif=exif)
    train, _ = image_folder.load(tmp_path, image_size)
    expected = upright
    if image_size is not None:
        expected = upright.crop((4, 0, 28, 24)).resize((image_size, image_size), Image.Resampling.LANCZOS)
    assert train.x.shape[2:] == (expected.height, expected.width)
    assert np.abs(train.x[0, 0].numpy().astype(int) - np.asarray(expected)).max() <= 3


def test_animations_give_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), level) for level in (10, 200)]
    frames[0].save(tmp_path / "1.gif", save_all=True, append_images=frames[1:])
    assert set(image_folder.load(tmp_path, None)[0].x.flatten().tolist()) == {10}


# --- sizes


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("shape", [(90, 60), (60, 90), (60, 60), (7, 200)])
def test_resize_crops_the_centre(tmp_path: Path, shape: tuple[int, int], suffix: str) -> None:
    width, height = shape
    side = min(shape)
    levels = np.zeros((height, width), dtype=np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    levels[top : top + side, left : left + side] = 255
    write(tmp_path / f"1.{suffix}", Image.fromarray(levels))
    train, _ = image_folder.load(tmp_path, 12)
    assert train.x.shape == (1, 1, 12, 12)
    assert train.x[0, 0, 2:-2, 2:-2].min() > 240


def test_large_jpegs_are_exact_enough(tmp_path: Path) -> None:
    image = noise(size=(12, 9)).resize((1200, 900), Image.Resampling.BICUBIC)
    write(tmp_path / "a.jpg", image)
    write(tmp_path / "b.png", Image.open(tmp_path / "a.jpg"))
    train, _ = image_folder.load(tmp_path, 32)
    assert (train.x[0].int() - train.x[1].int()).abs().max() <= 3


def test_resize_in_memory(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.png", noise(size=(20, 30)))
    whole, small = (image_folder.load(tmp_path, image_size)[0].x for image_size in (None, 8))
    assert decode.resize(whole, 8).equal(small)
    assert decode.resize(whole[:, :1], 8).equal(small[:, :1])
    assert decode.resize(small, 8) is small


@pytest.mark.parametrize(
    ("sizes", "advice"), [(((8, 8), (8, 9)), 8), (((300, 200), (200, 300)), 64), (((1, 1), (2, 2)), 4)]
)
def test_sizes_must_agree(tmp_path: Path, sizes: tuple[tuple[int, int], ...], advice: int) -> None:
    for i, size in enumerate(sizes):
        write(tmp_path / f"{i}.png", noise(size=size))
    with pytest.raises(InputError) as error:
        image_folder.load(tmp_path, None)
    for i, (width, height) in enumerate(sizes):
        assert f"{i}.png is {width} x {height}" in error.value.message
    assert error.value.hint == f"pass --image-size {advice}"


def test_different_sizes_stop_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(2000):
        write(tmp_path / f"{i:04}.png", b"")
    decoded = []

    def decode_slowly(path: Path, image_size: int | None) -> npt.NDArray[np.uint8]:
        decoded.append(path)
        time.sleep(0.01)
        return np.zeros((1, 4, 4 + len(path.name.strip("0.png"))), dtype=np.uint8)

    monkeypatch.setattr(decode, "_decode", decode_slowly)
    with pytest.raises(InputError, match="differ in size"):
        image_folder.load(tmp_path, None)
    count = len(decoded)
    assert count < 1000
    time.sleep(0.05)
    assert len(decoded) == count  # all threads have ended


def test_images_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "1.png")
    monkeypatch.setattr(decode, "machine_memory", lambda: 100)
    with pytest.raises(InputError, match="1 images of 8 x 8 pixels need") as error:
        image_folder.load(tmp_path, None)
    assert "--image-size" in error.value.hint


# --- bad files


def test_error_counts_bad_files(tmp_path: Path) -> None:
    for i in range(200):
        write(tmp_path / f"{i:03}.png", b"" if i % 10 == 0 else noise())
    with pytest.raises(InputError, match="20 of 200 images") as error:
        image_folder.load(tmp_path, None)
    assert all(f"{i:03}.png (" in error.value.message for i in (0, 10, 20))
    assert "and 17 more" in error.value.message and "030.png" not in error.value.message

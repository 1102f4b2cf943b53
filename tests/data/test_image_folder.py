"""vaezoo.data.images.image_folder and vaezoo.data.images.decode: layouts, channels, sizes and bad files."""

import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from vaezoo.data.images import decode, image_folder
from vaezoo.data.load import load_data
from vaezoo.errors import InputError, VaezooWarning

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
    train, test, *_ = image_folder.load(tmp_path, None)
    assert test is None and train.y is None
    assert train.x.shape == (3, 3, 8, 8) and train.x.dtype == torch.uint8
    for x, name in zip(train.x, sorted(images), strict=True):
        assert np.array_equal(x.permute(1, 2, 0).numpy(), np.asarray(images[name]))


def test_class_folders_are_labels(tmp_path: Path) -> None:
    for name in ("zebra/1.png", "ape/2.png", "ape/deep/er/1.png", "ape/deep/dir.png/3.png"):
        write(tmp_path / name)
    (tmp_path / "empty").mkdir()
    train, test, *_ = image_folder.load(tmp_path, None)
    assert test is None and train.y is not None
    assert train.y.tolist() == [0, 0, 0, 1] and train.y.dtype == torch.int64


# Layouts, and the splits that their folders are. `{}` stands for the class, if there are classes.
LAYOUTS = {
    "train/{}": "train",
    "training/{} testing/{}": "train test",
    "Train/{} Test/{}": "train test",
    "TRAIN/{} VAL/{} TST/{}": "train valid test",
    "train/{} val/{}": "train valid",
    "train/{} dev/{} eval/{}": "train valid test",
    "train/{} validation/{} test/{}": "train valid test",
    "training_set/{} test_set/{}": "train test",
    "train2017/{} val2017/{}": "train valid",
    "seg_train/seg_train/{} seg_test/seg_test/{}": "train test",
    "dataset/train/{} dataset/test/{}": "train test",
    "a/b/train/{} a/b/valid/{}": "train valid",
    "./{}/train ./{}/test": "train test",
    "./{}/Training ./{}/Testing ./{}/Validation": "train test valid",
    "dataset/{}/train dataset/{}/test": "train test",
}


@pytest.mark.parametrize("classes", [(), ("cat", "dog")])
@pytest.mark.parametrize(("layout", "expected"), LAYOUTS.items())
def test_split_folders(tmp_path: Path, layout: str, expected: str, classes: tuple[str, ...]) -> None:
    for number, folder in enumerate(layout.split(), 1):
        for name in classes or (".",):
            for i in range(number):
                write(tmp_path / "D" / folder.format(name) / f"{i}.png")
    loaded = image_folder.load(tmp_path / "D", None)
    splits = {name: getattr(loaded, name) for name in ("train", "valid", "test")}
    assert loaded.class_names == classes
    assert {name for name, split in splits.items() if split is not None} == set(expected.split())
    for number, name in enumerate(expected.split(), 1):
        labels = [label for label in range(len(classes)) for _ in range(number)]
        assert len(splits[name]) == number * max(1, len(classes))
        assert splits[name].y is None if not classes else splits[name].y.tolist() == labels


def test_validation_folder_is_the_validation_split(tmp_path: Path) -> None:
    for split, count in (("train", 20), ("val", 3)):
        for i in range(count):
            write(tmp_path / "D" / split / "cat" / f"{i}.png", Image.new("L", (4, 4), 100 + count))
    data = load_data(tmp_path / "D")
    assert [len(data.train), len(data.valid), data.test] == [20, 3, None]
    assert data.valid.gather(slice(None)).x.unique().tolist() == [103] and data.held_out[0] == "valid"


def test_names_of_several_words_are_classes(tmp_path: Path) -> None:
    for name in ("bullet train", "steam train", "test tube"):
        write(tmp_path / name / "1.png")
    assert image_folder.load(tmp_path, None).class_names == ("bullet train", "steam train", "test tube")


def test_numbered_classes_are_sorted_by_number(tmp_path: Path) -> None:
    for number in range(12):
        write(tmp_path / str(number) / "1.png", Image.new("L", (2, 2), number))
    splits = image_folder.load(tmp_path, None)
    assert splits.class_names == tuple(map(str, range(12)))
    assert splits.train.x[:, 0, 0, 0].tolist() == splits.train.y.tolist() == list(range(12))


@pytest.mark.parametrize(
    ("files", "message", "hint"),
    [
        ("train/0/a test/0/a extra/a", "split folder 'train' and also the folder 'extra'", "move 'extra' away"),
        ("train/a unlabeled/a", "split folder 'train' and also the folder 'unlabeled'", "if it is a class"),
        ("boat/a train/a", "split folder 'train' and also the folder 'boat'", "rename 'train' if it is a class"),
        ("cat/a dog/a test/cat/a", "split folder 'test' and also the folder 'cat'", "rename 'test'"),
        ("seg_train/a seg_test/a seg_pred/a", "split folder 'seg_train' and also the folder 'seg_pred'", "move"),
        ("trainA/a trainB/a testA/a testB/a", "split folder 'trainA' and also the folder 'testB'", "move"),
        ("train/a b", "split folder 'train' and also images of its own, such as 'b.png'", "move the images"),
        ("val/0/a test/0/a", "split folder 'test' but no folder of training images", "test' itself"),
        ("train/a val/a valid/a", "two folders of the valid split, 'val' and 'valid'", "one of them"),
        ("cat/train/a cat/test/a dog/a", "cat' has split folders, but '.*dog' has none", "same split folders"),
        ("cat/x/train/a cat/x/test/a dog/a", "cat/x' has split folders, such as 'test', inside a class", "itself"),
        ("A/train/cat/a A/test/cat/a B/train/cat/a B/test/cat/a", "'A' may be a data set or a class", "one data set"),
        ("train/cat/a val/dog/a", "train and val.* different classes: only train has class 'cat'", "the same class"),
    ],
)
def test_splits_and_classes_are_not_mixed(tmp_path: Path, files: str, message: str, hint: str) -> None:
    for name in files.split():
        write(tmp_path / "D" / f"{name}.png")
    with pytest.raises(InputError, match=message) as error:
        image_folder.load(tmp_path / "D", None)
    assert hint in error.value.hint


def test_class_folders_may_be_links(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "cat").symlink_to(tmp_path / "elsewhere")
    assert len(image_folder.load(tmp_path / "set", None)[0]) == 1


# --- what is left out


def test_classes_of_different_formats(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.tif", "emu/1.avif", "fox/1.pbm"):
        write(tmp_path / name, noise("1" if name.endswith("pbm") else "RGB"))
    noise().save(tmp_path / "cat" / "2.jfif", "JPEG")
    splits = image_folder.load(tmp_path, None)
    assert splits.class_names == ("cat", "dog", "emu", "fox")
    assert splits.train.y.tolist() == [0, 0, 1, 2, 3]


def test_one_warning_counts_what_is_left_out(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/2.heic", "dog/1.HEIC", "dog/2.svg", "dog/3.png", "notes.txt", "labels.csv"):
        write(tmp_path / name, noise() if name.endswith("png") else b"x")
    for name in ("Thumbs.db", ".DS_Store", ".hidden.heic", "README"):
        write(tmp_path / name, b"x")
    with pytest.warns(VaezooWarning, match=r"left out of .*: 2 .heic files, 1 .svg file; images are AVIF") as caught:
        image_folder.load(tmp_path, None)
    assert len(caught) == 1


def test_no_images_names_what_is_there(tmp_path: Path) -> None:
    write(tmp_path / "1.heic", b"x")
    with pytest.raises(InputError, match=r"no images in folder .*, only 1 \.heic file"):
        image_folder.load(tmp_path, None)


def test_linked_folders_are_read_once(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "deep" / "1.png")
    write(tmp_path / "set" / "cat" / "1.png")
    (tmp_path / "set" / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "deep" / "back").symlink_to(tmp_path / "set")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere" / "deep")
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "set" / "cat")
    with pytest.warns(VaezooWarning, match="3 linked folders read already"):
        splits = image_folder.load(tmp_path / "set", None)
    assert splits.class_names == ("cat",) and len(splits.train) == 2


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
        (empty, "no images", "AVIF, BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP"),
        (no_images, "no images", "AVIF, BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP"),
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
        ("1", "pbm", 1),
        ("1", "tif", 1),
        ("L", "tiff", 1),
        ("P", "tif", 3),
        ("RGB", "TIFF", 3),
        ("CMYK", "tif", 3),
        ("RGB", "avif", 3),
        ("RGB", "pnm", 3),
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
    train, *_ = image_folder.load(tmp_path, None)
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
    train, *_ = image_folder.load(tmp_path, None)
    assert np.array_equal(train.x[0].numpy(), [np.asarray(image.convert("L"))])


def test_one_colour_image_decides(tmp_path: Path) -> None:
    grey = [noise("L") for _ in range(3)]
    for i, image in enumerate(grey):
        write(tmp_path / "train" / f"{2 * i}.png", image)
    write(tmp_path / "train" / "3.png")
    write(tmp_path / "test" / "1.png", grey[0])
    train, test, *_ = image_folder.load(tmp_path, None)
    assert test is not None and train.x.shape == (4, 3, 8, 8) and test.x.shape == (1, 3, 8, 8)
    for i, image in zip((0, 1, 3), grey, strict=True):
        assert all(np.array_equal(channel.numpy(), np.asarray(image)) for channel in train.x[i])


def test_16_bit_grey_is_scaled(tmp_path: Path) -> None:
    levels = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    write(tmp_path / "1.png", Image.fromarray(levels))
    write(tmp_path / "2.pgm", b"P5 4 1 65535 " + levels.astype(">u2").tobytes())
    train, *_ = image_folder.load(tmp_path, None)
    assert train.x.tolist() == [[[[0, 1, 128, 255]]]] * 2


def tiff(levels: list[int], bits: int, photometric: int = 1) -> bytes:
    """Returns an uncompressed TIFF of one row of grey levels."""
    if bits == 16:
        data = np.array(levels, "<u2").tobytes()
    else:
        data = int("".join(f"{level:012b}" for level in levels), 2).to_bytes(len(levels) * 12 // 8, "big")
    tags = [(256, len(levels)), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, 1)]
    tags.append((279, len(data)))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    start = 8 + len(data) + len(data) % 2
    return (
        b"II*\0"
        + struct.pack("<I", start)
        + data.ljust(start - 8, b"\0")
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (tiff([0, 257, 32896, 65535], 16), [0, 1, 128, 255]),
        (tiff([0, 257, 32896, 65535], 16, photometric=0), [255, 254, 127, 0]),
        (tiff([0, 1000, 2048, 4095], 12), [0, 62, 128, 255]),
    ],
)
def test_tiff_of_many_bits(tmp_path: Path, content: bytes, expected: list[int]) -> None:
    write(tmp_path / "1.tif", content)
    train, *_ = image_folder.load(tmp_path, None)
    assert train.x.tolist() == [[[expected]]]


def test_16_bit_grey_with_transparency_lies_on_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16)).save(tmp_path / "1.png")
    content = (tmp_path / "1.png").read_bytes()
    data = struct.pack(">H", 257)
    chunk = struct.pack(">I", 2) + b"tRNS" + data + struct.pack(">I", zlib.crc32(b"tRNS" + data))
    at = content.index(b"IDAT") - 4
    write(tmp_path / "1.png", content[:at] + chunk + content[at:])
    train, *_ = image_folder.load(tmp_path, None)
    assert train.x.tolist() == [[[[0, 255, 128, 255]]]]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_12_bits_in_16_bit_files_are_refused(tmp_path: Path, suffix: str, stream: bool) -> None:
    levels = RNG.integers(0, 4096, (3, 8, 8), dtype=np.uint16)
    for i, image in enumerate(levels):
        write(tmp_path / f"{i}.{suffix}", Image.fromarray(image))
    with pytest.raises(InputError, match="no level above 4,095 of 65,535") as error:
        image_folder.load(tmp_path, None, stream)
    assert "multiply their levels by 16" in error.value.hint
    write(tmp_path / f"1.{suffix}", Image.fromarray(16 * levels[1]))
    assert len(image_folder.load(tmp_path, None, stream).train) == 3


@pytest.mark.parametrize(("mode", "levels"), [("RGBA", (200, 100, 0)), ("LA", (100,))])
def test_transparency_lies_on_white(tmp_path: Path, mode: str, levels: tuple[int, ...]) -> None:
    image = Image.new(mode, (3, 1))
    for x, alpha in enumerate((0, 102, 255)):
        image.putpixel((x, 0), (*levels, alpha))
    write(tmp_path / "1.png", image)
    train, *_ = image_folder.load(tmp_path, None)
    for channel, level in zip(train.x[0, :, 0].tolist(), levels, strict=True):
        assert channel == [255, pytest.approx(255 * 0.6 + level * 0.4, abs=1), level]


def test_transparent_palette_lies_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "1.gif", transparency=1)
    train, *_ = image_folder.load(tmp_path, None)
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
@pytest.mark.parametrize("suffix", ["jpg", "tif", "avif"])
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int, image_size: int | None) -> None:
    upright = Image.fromarray(np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20, np.ones((8, 8), np.uint8)))
    stored = upright.transpose(STORED[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"1.{suffix}", exif=exif, **({} if suffix == "tif" else {"quality": 100}))
    train, *_ = image_folder.load(tmp_path, image_size)
    assert image_folder.load(tmp_path, image_size, stream=True).train.shape == train.shape
    expected = upright
    if image_size is not None:
        expected = upright.crop((4, 0, 28, 24)).resize((image_size, image_size), Image.Resampling.LANCZOS)
    assert train.x.shape[2:] == (expected.height, expected.width)
    assert np.abs(train.x[0, 0].numpy().astype(int) - np.asarray(expected)).max() <= 3


@pytest.mark.parametrize("suffix", ["gif", "tif"])
def test_first_frame_or_page_is_read(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("L", (4, 4), level) for level in (10, 200)]
    frames[0].save(tmp_path / f"1.{suffix}", save_all=True, append_images=frames[1:])
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
    train, *_ = image_folder.load(tmp_path, 12)
    assert train.x.shape == (1, 1, 12, 12)
    assert train.x[0, 0, 2:-2, 2:-2].min() > 240


def test_large_jpegs_are_exact_enough(tmp_path: Path) -> None:
    image = noise(size=(12, 9)).resize((1200, 900), Image.Resampling.BICUBIC)
    write(tmp_path / "a.jpg", image)
    write(tmp_path / "b.png", Image.open(tmp_path / "a.jpg"))
    train, *_ = image_folder.load(tmp_path, 32)
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

    def decode_slowly(path: Path, image_size: int | None, channels: int | None) -> npt.NDArray[np.uint8]:
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

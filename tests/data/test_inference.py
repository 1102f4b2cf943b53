"""Examples that a trained model is applied to: all rows, in order, in the form of the model's data."""

import dataclasses
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vaezoo
from vaezoo import DataSpec, TensorSplit
from vaezoo.data.base import Dataset, valid_mask
from vaezoo.data.images.decode import to_channels
from vaezoo.data.inference import examples_of, find_examples
from vaezoo.errors import InputError, UnsupportedDataError, VaezooError

pytestmark = pytest.mark.usefixtures("inside")

GREY = DataSpec(name="grey", shape=(1, 28, 28))
WIDE = DataSpec(name="wide", shape=(3, 24, 32), likelihood="gaussian:optimal")
VECTORS = DataSpec(name="vectors", shape=(9,))


def photo(path, size=(40, 30), level=100, mode="RGB"):
    """Writes an image. The red channel differs from the others."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    colour = (level, 0, 0) if mode == "RGB" else level
    Image.new(mode, size, colour).save(path)


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_arrays_give_all_rows_in_order(rows):
    x = np.random.default_rng(0).random((rows, 9), np.float32)
    np.save("x.npy", x)
    examples = find_examples(VECTORS, "x.npy")
    assert np.array_equal(examples.split.batch(slice(None)).x, x)
    assert examples.names.tolist() == list(range(rows)) and examples.part == "all"


def test_labels_stay_with_their_rows():
    np.savez("x.npz", x=np.eye(9)[[3, 1, 2]], y=[3, 1, 2])
    examples = find_examples(VECTORS, "x.npz")
    assert examples.split.y.tolist() == [3, 1, 2] and examples.spec.classes == (4,)


def test_folders_give_all_files_with_their_names():
    for name in ("b/2.png", "a/1.png", "a/0.jpg"):
        photo(f"new/{name}")
    for stream in (False, True):
        examples = find_examples(WIDE, "new", stream=stream)
        assert examples.names.tolist() == ["a/0.jpg", "a/1.png", "b/2.png"]
        assert examples.split.y.tolist() == [0, 0, 1] and examples.split.shape == (3, 24, 32)


@pytest.mark.parametrize("stream", [False, True])
def test_folders_of_photos_and_subfolders_give_all_of_them(stream):
    """Such a folder is refused for a training. Here nothing hangs on what a subfolder means."""
    files = ("new/2.png", "new/10.jpg", "new/old/1.png", "new/old/9/3.png", "new/old/10/3.png")
    for name in files:
        photo(name)
    with pytest.raises(InputError, match="has images of its own and also folders"):
        vaezoo.load_data("new", image_size=28)
    examples = find_examples(GREY, "new", stream=stream)
    assert examples.names.tolist() == [name.removeprefix("new/") for name in files]  # 2 before 10
    assert examples.split.y is None and examples.parts is None and examples.spec.classes == ()


def test_photos_are_in_natural_order():
    for name in ("img10", "img9", "img2b", "img02", "b/7", "b/1"):
        photo(f"new/{name}.png")
    names = find_examples(GREY, "new").names.tolist()
    assert names == ["b/1.png", "b/7.png", "img02.png", "img2b.png", "img9.png", "img10.png"]


def test_split_folders_beside_photos_are_refused():
    """Some of them may have been trained on."""
    for name in ("set/0.png", "set/train/1.png", "set/test/2.png"):
        photo(name)
    with pytest.raises(InputError, match="has the split folder 'train' and also images of its own"):
        find_examples(GREY, "set")


@pytest.mark.parametrize("name", ["missing.jpg", "missing.npz", "photos.new", "a/b", Path("missing")])
def test_missing_paths_are_not_taken_for_names(name):
    for load in (partial(find_examples, GREY), vaezoo.load_data):
        with pytest.raises(InputError, match=f"no file or folder '{name}'"):
            load(name)
    with pytest.raises(VaezooError, match="no data set named 'digit'"):
        find_examples(GREY, "digit")


def test_limit_means_evenly_spaced_examples():
    np.savez("x.npz", x=np.arange(20, dtype=np.uint8)[:, None].repeat(9, 1), y=np.arange(20))
    examples = find_examples(VECTORS, "x.npz")
    assert examples.limited(None) is examples and len(examples.limited(50)) == 20
    few = examples.limited(5)
    assert few.names.tolist() == few.split.y.tolist() == [0, 4, 8, 12, 16]
    for limit in (0, -1):
        with pytest.raises(VaezooError, match=f"limit is {limit}"):
            examples.limited(limit)


def test_classes_keep_the_numbers_of_the_run():
    spec = dataclasses.replace(WIDE, classes=(2,), class_names=("cat", "truck"))
    vae = vaezoo.create_model("conv-vae", spec)
    for name in ("ship/0.png", "truck/1.png"):
        photo(f"new/{name}")
    examples = vaezoo.load_examples(vae, "new")
    assert examples.split.y.tolist() == [2, 1]  # cat is 0 and truck 1, as in the run; ship follows
    assert examples.spec.class_names == ("cat", "truck", "ship") and examples.spec.classes == (3,)


def test_one_image_file_is_one_example():
    photo("one.png")
    examples = find_examples(WIDE, "one.png")
    assert len(examples) == 1 and examples.names.tolist() == ["one.png"]
    photo("new/only.png")
    assert len(find_examples(WIDE, "new")) == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("mode", "spec"), [("L", WIDE), ("RGB", GREY), ("RGB", WIDE), ("L", GREY)])
def test_images_get_size_and_channels_of_the_model(mode, spec, stream):
    for i in range(2):
        photo(f"new/{i}.png", size=(50, 70), mode=mode)
    x = find_examples(spec, "new", stream=stream).split.batch(slice(None)).x
    assert tuple(x.shape[1:]) == spec.shape
    # A grey level is 100. Of red, BT.601 keeps 0.299.
    expected = {("L", 3): [100, 100, 100], ("RGB", 1): [30], ("RGB", 3): [100, 0, 0], ("L", 1): [100]}
    assert (255 * x[0, :, 12, 14]).round().tolist() == expected[mode, spec.shape[0]]


def test_centre_is_kept_in_the_proportions_of_the_model():
    pixels = np.zeros((48, 128, 3), np.uint8)
    pixels[:, 32:96] = 200  # the centre of 48 x 64 has the proportions of 24 x 32
    Image.fromarray(pixels).save("wide.png")
    inner = slice(4, -4)  # the filter sees some pixels behind the edge
    assert find_examples(WIDE, "wide.png").split.x[..., inner, inner].unique().tolist() == [200]
    turned = Image.fromarray(pixels.transpose(1, 0, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned.save("turned.png", exif=exif)
    assert find_examples(WIDE, "turned.png").split.x[..., inner, inner].unique().tolist() == [200]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_arrays_are_converted_between_grey_and_colour(dtype):
    top = 255 if dtype == np.uint8 else 1
    grey = (np.random.default_rng(0).random((4, 28, 28)) * top).astype(dtype)
    np.save("grey.npy", grey)
    for equal in (np.stack([grey] * 3, 1), np.stack([grey] * 3, 3)):  # R = G = B, channels first and last
        np.save("equal.npy", equal)
        assert torch.equal(find_examples(GREY, "equal.npy").split.x, torch.from_numpy(grey[:, None]))
    colour = DataSpec(name="colour", shape=(3, 28, 28))
    assert torch.equal(find_examples(colour, "grey.npy").split.x, torch.from_numpy(np.stack([grey] * 3, 1)))


def test_grey_of_bytes_is_that_of_pillow():
    x = torch.randint(0, 256, (2, 3, 9, 7), dtype=torch.uint8)
    expected = [np.asarray(Image.fromarray(p.permute(1, 2, 0).numpy()).convert("L")) for p in x]
    assert np.array_equal(to_channels(x, 1)[:, 0], np.stack(expected))
    assert to_channels(x.float() / 255, 1)[:, 0] == pytest.approx(np.stack(expected) / 255, abs=3e-3)


@pytest.mark.parametrize(
    ("spec", "array", "message", "hint"),
    [
        (
            GREY,
            np.zeros((4, 32, 32)),
            "(1, 32, 32), but the model was made for (1, 28, 28)",
            "28 x 28",
        ),
        (WIDE, np.zeros((4, 3, 32, 24)), "(3, 32, 24)", "24 x 32"),
        (GREY, np.zeros((28, 28)), "examples of shape (28,)", "(N, 1, 28, 28)"),
        (WIDE, np.zeros((3, 24, 32)), "the shape (3, 24, 32)", "x[None]"),
        (VECTORS, np.zeros((4, 8)), "(8,)", "(N, 9)"),
        (VECTORS, np.zeros(9), "the shape (9,)", "x[None]"),
        (VECTORS, np.zeros((0, 9)), "the shape (0, 9)", "(N, 9)"),
    ],
)
def test_other_shapes_name_those_of_the_model(spec, array, message, hint):
    np.save("x.npy", array.astype(np.float32))
    with pytest.raises(UnsupportedDataError) as error:
        find_examples(spec, "x.npy")
    assert message in error.value.message and hint in error.value.hint


def test_images_need_a_model_of_images():
    photo("one.png")
    with pytest.raises(UnsupportedDataError, match="but the data are images"):
        find_examples(VECTORS, "one.png")
    Path("notes.txt").write_text("")
    with pytest.raises(InputError, match="neither a folder, an image, an array file nor a table"):
        find_examples(GREY, "notes.txt")


def test_values_of_another_kind_are_refused():
    texts = DataSpec(name="texts", shape=(4,), kind="tokens", vocabulary=5, likelihood="categorical")
    np.save("ids.npy", np.array([[1, 2, 4, 0]]))
    assert find_examples(texts, "ids.npy").split.x.tolist() == [[1, 2, 4, 0]]
    for wrong in (np.array([[1, 2, 5, 0]]), np.zeros((1, 4))):
        np.save("ids.npy", wrong)
        with pytest.raises(InputError, match="not data of kind tokens"):
            find_examples(texts, "ids.npy")
    real = DataSpec(name="real", shape=(2, 3), kind="real", likelihood="gaussian")
    np.save("x.npy", np.full((5, 2, 3), -7.5))
    assert find_examples(real, "x.npy").split.x.unique().tolist() == [-7.5]


def test_values_are_scaled_as_in_the_training():
    """The numbers are those of the training. New data are not fitted again, and an outlier stays one."""
    table = np.random.default_rng(0).normal([200, 0.003], [15, 0.0001], (100, 2))
    np.save("new.npy", np.vstack([table[:3], [500, 0.003]]))
    for scale in ("standardize", "minmax"):
        spec = vaezoo.from_arrays(table, scale=scale).spec
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the value beyond the range of the training
            x = find_examples(spec, "new.npy").split.x
        assert x.numpy() == pytest.approx(spec.scaling.apply(np.load("new.npy"))) and x[3, 0] > x[:3, 0].max() + 1
    photo("one.png")
    with pytest.raises(UnsupportedDataError, match="trained on arrays with --scale minmax, but the data are images"):
        find_examples(DataSpec(name="scaled", shape=(1, 28, 28), offset=(0.0,), factor=(2.0,)), "one.png")


def test_part_chooses_among_the_parts():
    x = np.arange(60, dtype=np.uint8)[:, None].repeat(9, 1)
    np.savez("x.npz", x_train=x[:50], x_test=x[50:])
    valid = np.flatnonzero(valid_mask(50))
    expected = {"test": range(50, 60), "valid": valid, "train": np.delete(np.arange(50), valid), "all": range(60)}
    for part, rows in expected.items():
        examples = find_examples(VECTORS, "x.npz", part=part)
        assert (255 * examples.split.batch(slice(None)).x[:, 0]).round().tolist() == list(rows), part
        assert examples.names.tolist() == [row if row < 50 else row - 50 for row in rows]
    assert find_examples(VECTORS, "x.npz").part == "test"
    parts = find_examples(VECTORS, "x.npz", part="all").parts
    assert parts[valid].tolist() == ["valid"] * 5 and parts[50:].tolist() == ["test"] * 10


def test_parts_of_a_program():
    """A program may choose its own validation examples. They come behind the training examples."""
    x = torch.arange(9.0).unsqueeze(1).expand(9, 9) / 9
    train, valid = TensorSplit(x[:4], None), TensorSplit(x[4:], None)
    examples = examples_of(Dataset(spec=VECTORS, train=train, valid=valid, test=None), "all")
    assert torch.equal(examples.split.x, x) and examples.names.tolist() == list(range(9))
    assert examples.parts.tolist() == ["train"] * 4 + ["valid"] * 5


def test_parts_of_folders(inside):
    for name in ("train/0.png", "train/1.png", "train/2.png", "test/0.png"):
        photo(f"set/{name}")
    for stream in (False, True):
        assert find_examples(GREY, "set", stream=stream).names.tolist() == ["test/0.png"]
        every = find_examples(GREY, "set", part="all", stream=stream)
        assert every.names.tolist() == ["train/0.png", "train/1.png", "train/2.png", "test/0.png"]
        assert every.parts.tolist() == ["valid", "train", "train", "test"] and len(every.split) == 4


def test_unknown_parts_are_refused():
    np.save("x.npy", np.zeros((4, 9)))
    with pytest.raises(VaezooError, match="'x' has no part test"):
        find_examples(VECTORS, "x.npy", part="test")
    with pytest.raises(VaezooError, match="no part named 'tset'"):
        find_examples(VECTORS, "x.npy", part="tset")
    split = TensorSplit(torch.zeros(4, 9), None)
    with pytest.raises(VaezooError, match="has no part test"):
        examples_of(Dataset(spec=VECTORS, train=split, valid=split, test=None), "test")


def test_named_sets_are_converted():
    examples = find_examples(DataSpec(name="small", shape=(3, 16, 20)), "digits")
    assert examples.split.shape == (3, 16, 20) and examples.part == "test" and len(examples) == 2000


def test_public_function_takes_arrays_and_data_sets(trained, digits):
    x = digits.test.x[:5]
    for data in (x, x.numpy(), x[:, 0].numpy()):
        examples = vaezoo.load_examples(trained, data, y=digits.test.y[:5])
        assert torch.equal(examples.split.x, x) and examples.split.y.tolist() == digits.test.y[:5].tolist()
    assert vaezoo.load_examples(trained, examples) is examples
    assert len(vaezoo.load_examples(trained)) == 2000
    assert len(vaezoo.load_examples(trained, digits)) == len(digits.test)
    assert len(vaezoo.load_examples(trained, part="all")) == 12_000
    with pytest.raises(UnsupportedDataError, match=r"has shape \(7,\)"):
        vaezoo.load_examples(trained, "penguins")


def test_values_that_are_not_finite_are_named():
    for spec in (
        VECTORS,
        dataclasses.replace(VECTORS, kind="real", likelihood="gaussian"),
        dataclasses.replace(VECTORS, offset=(0.0,) * 9, factor=(1.0,) * 9),
    ):
        x = np.full((4, 9), 0.5)
        x[2, 7] = np.nan
        np.save("x.npy", x)
        with pytest.raises(InputError, match="infinite: 1, the first in row 2, column 7"):
            find_examples(spec, "x.npy")

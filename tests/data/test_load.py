"""vaezoo.load_data: names, paths and options, and the source that loads the same data again."""

import ast
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaezoo.data import load
from vaezoo.data.base import DataSource
from vaezoo.data.catalog import DATASETS
from vaezoo.data.images import standard_sets
from vaezoo.data.load import load_data
from vaezoo.errors import InputError, VaezooError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with image folders and array files."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("My photos.v2", "digits"):
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    np.save(tmp_path / "vectors.npy", rng.random((10, 3)))
    np.savez(tmp_path / "Images_2.npz", x=rng.random((10, 4, 4)))
    (tmp_path / "table.xlsx").write_text("1,2")
    (tmp_path / "table.tsv").write_text("1,2")
    return tmp_path


def test_default_is_digits() -> None:
    data = load_data()
    assert (data.spec.name, data.spec.shape, data.spec.likelihood) == ("digits", (1, 28, 28), "bernoulli")
    assert data.test is not None and [len(split) for split in (data.train, data.valid, data.test)] == [9000, 1000, 2000]
    assert data.source == DataSource(data="digits")


@pytest.mark.parametrize(
    ("data", "name", "shape", "likelihood"),
    [
        ("My photos.v2", "my-photos-v2", (3, 6, 6), "gaussian:optimal"),
        ("./digits", "digits", (3, 6, 6), "gaussian:optimal"),
        ("vectors.npy", "vectors", (3,), "gaussian:optimal"),
        ("Images_2.npz", "images-2", (1, 4, 4), "bernoulli"),
    ],
)
@pytest.mark.parametrize("kind", [str, Path])
def test_paths(folder: Path, data: str, name: str, shape: tuple[int, ...], likelihood: str, kind: type) -> None:
    dataset = load_data(kind(data))
    assert (dataset.spec.name, dataset.spec.shape, dataset.spec.likelihood) == (name, shape, likelihood)
    assert dataset.source == DataSource(data=str(folder / data))
    assert dataset.test is None and dataset.held_out[0] == "valid"


def test_source_reloads_the_data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_data("My photos.v2", data_dir="sets", image_size=4, likelihood="gaussian:0.1")
    assert first.source == DataSource(
        data=str(folder / "My photos.v2"), data_dir=str(folder / "sets"), image_size=4, likelihood="gaussian:0.1"
    )
    monkeypatch.chdir("/")
    source = first.source
    again = load_data(source.data, data_dir=source.data_dir, image_size=source.image_size, likelihood=source.likelihood)
    assert again.spec == first.spec and again.source == source and again.train.x.equal(first.train.x)


@pytest.mark.parametrize(("name", "image_size"), [("digits", 20), ("shapes", 8)])
def test_image_size(name: str, image_size: int) -> None:
    assert load_data(name, image_size=image_size).spec.shape == (1, image_size, image_size)


@pytest.mark.parametrize(
    ("data", "kind", "message", "hint"),
    [
        ("digit", VaezooError, "no data set named 'digit'", "did you mean 'digits'?"),
        ("imagenet", VaezooError, "no data set named 'imagenet'", "path of an image folder"),
        ("", VaezooError, "no data set named ''", "digits, shapes, "),
        ("x" * 5000, VaezooError, "no data set named", "digits, shapes, "),
        ("nul\0byte", VaezooError, "no data set named", "digits, shapes, "),
        ("photos/cats", InputError, "no file or folder 'photos/cats'", "check the path"),
        ("data.npz", InputError, "no file or folder 'data.npz'", "check the path"),
        (Path("photos"), InputError, "no file or folder 'photos'", "check the path"),
        ("table.xlsx", InputError, "neither a folder, an array file nor a table", ".csv"),
        ("table.tsv", InputError, "neither a folder, an array file nor a table", ".npy"),
    ],
)
def test_unknown_data(folder: Path, data: str | Path, kind: type[VaezooError], message: str, hint: str) -> None:
    with pytest.raises(kind, match=message) as error:
        load_data(data)
    assert type(error.value) is kind and hint in error.value.hint


@pytest.mark.parametrize("image_size", [3, 0, -8, 1025])
def test_image_size_out_of_range(image_size: int) -> None:
    with pytest.raises(VaezooError, match=f"^image size {image_size} is out of range"):
        load_data(image_size=image_size)


@pytest.mark.parametrize("data", ["vectors.npy", "Images_2.npz"])
def test_arrays_cannot_be_resized(folder: Path, data: str) -> None:
    with pytest.raises(VaezooError, match="cannot be resized to image size 8"):
        load_data(data, image_size=8)


def test_likelihood_is_checked_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_load_path", None)
    with pytest.raises(VaezooError, match="no likelihood named 'bernouli'"):
        load_data("vectors.npy", likelihood="bernouli")


@pytest.mark.parametrize(
    ("data_dir", "cache", "expected"),
    [("sets", "cache", "sets"), (None, "cache", "cache/vaezoo/data"), (None, "", "home/.cache/vaezoo/data")],
)
def test_data_dir(
    folder: Path, monkeypatch: pytest.MonkeyPatch, data_dir: str | None, cache: str, expected: str
) -> None:
    roots = []

    def record_root(name: str, root: Path, image_size: int | None) -> None:
        roots.append(root)
        raise InputError("enough", "")

    monkeypatch.setattr(standard_sets, "load", record_root)
    monkeypatch.setenv("XDG_CACHE_HOME", cache and str(folder / cache))
    monkeypatch.setenv("HOME", str(folder / "home"))
    with pytest.raises(InputError, match="enough"):
        load_data("mnist", data_dir=data_dir)
    assert roots == [folder / expected]


def test_scaling_of_a_file_is_recorded(folder: Path) -> None:
    data = load_data("vectors.npy", scale="standardize")
    assert data.source is not None and data.source.scale == "standardize"
    again = load_data("vectors.npy", scale=data.spec.scaling)
    assert again.spec == data.spec and again.source == data.source and again.train.x.equal(data.train.x)


@pytest.mark.parametrize("data", ["digits", "penguins", "./digits"])
def test_images_and_named_sets_are_scaled_already(folder: Path, data: str) -> None:
    with pytest.raises(VaezooError, match="is scaled already"):
        load_data(data, scale="minmax")


def test_catalog_is_complete() -> None:
    assert list(DATASETS) == ["digits", "shapes", *load.OTHER_KINDS, *standard_sets.NAMES]
    assert all(line and "\n" not in line for line in DATASETS.values())


def test_scipy_is_imported_lazily() -> None:
    for file in Path(load.__file__).parent.rglob("*.py"):
        for node in ast.parse(file.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] in ("torchvision", "scipy") for name in names), file

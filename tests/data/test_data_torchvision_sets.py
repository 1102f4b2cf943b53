"""vaezoo.data.torchvision_sets: sets that lie in a folder, that are damaged, that must be downloaded."""

import errno
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image

from vaezoo.data import torchvision_sets
from vaezoo.errors import InputError, StorageError, VaezooError

RNG = np.random.default_rng(0)


def write_idx(folder: Path, count: int = 6) -> None:
    """Writes a set in MNIST's format."""
    folder.mkdir(parents=True)
    for prefix, n in (("train", 2 * count), ("t10k", count)):
        head = (0x803).to_bytes(4, "big") + b"".join(k.to_bytes(4, "big") for k in (n, 28, 28))
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(head + RNG.bytes(n * 784))
        head = (0x801).to_bytes(4, "big") + n.to_bytes(4, "big")
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(head + bytes(i % 10 for i in range(n)))


def offline(*args: object, **kwargs: object) -> None:
    raise urllib.error.URLError("no network in tests")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", offline)


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
@pytest.mark.parametrize("size", [None, 16])
def test_idx_sets(tmp_path: Path, name: str, folder: str, size: int | None) -> None:
    write_idx(tmp_path / folder / "raw")
    for split, n in zip(torchvision_sets.load(name, tmp_path, size), (12, 6), strict=True):
        assert split.x.shape == (n, 1, size or 28, size or 28) and split.x.dtype == torch.uint8
        assert split.y is not None and split.y.tolist() == [i % 10 for i in range(n)] and split.y.dtype == torch.int64


def test_cifar10_is_turned_channels_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    data = RNG.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    made = []

    def cifar(root: Path, train: bool, download: bool) -> SimpleNamespace:
        made.append((root, train, download))
        return SimpleNamespace(data=data, targets=[3, 1, 4, 1, 5])

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", cifar)
    train, _ = torchvision_sets.load("cifar10", tmp_path, None)
    assert np.array_equal(train.x.numpy(), np.moveaxis(data, 3, 1)) and train.x.is_contiguous()
    assert train.y is not None and train.y.tolist() == [3, 1, 4, 1, 5]
    assert made == [(tmp_path, True, False), (tmp_path, False, False)]


def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = RNG.integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    for part in ("train", "test"):
        (tmp_path / f"{part}_32x32.mat").touch()
    made = SimpleNamespace(data=data, labels=np.arange(5))
    monkeypatch.setattr(torchvision.datasets, "SVHN", lambda root, split, download: made)
    monkeypatch.setitem(sys.modules, "scipy", SimpleNamespace())
    train, test = torchvision_sets.load("svhn", tmp_path, None)
    assert np.array_equal(train.x.numpy(), data) and test.y is not None and test.y.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("name", "package"), [("svhn", "scipy"), ("mnist", "torchvision")])
def test_missing_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(VaezooError, match=f"needs the package {package}") as error:
        torchvision_sets.load(name, tmp_path, None)
    assert error.value.hint == f"pip install {package}"


@pytest.mark.parametrize("size", [None, 32])
def test_celeba_keeps_the_middle_178_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int | None) -> None:
    folder = tmp_path / "celeba" / "img_align_celeba"
    folder.mkdir(parents=True)
    lines = {"attr": ["5", "A B"], "eval_partition": [], "bbox": ["5", "x"], "landmarks_align": ["5", "x"]}
    levels = np.zeros((218, 178, 3), dtype=np.uint8)
    levels[20:198] = 255
    for i, part in enumerate((0, 2, 1, 0, 2)):
        Image.fromarray(levels).save(folder / f"{i}.jpg")
        for name, more in (("attr", "-1 1"), ("eval_partition", str(part)), ("bbox", "0"), ("landmarks_align", "0")):
            lines[name].append(f"{i}.jpg {more}")
    for name, text in lines.items():
        suffix = "" if name == "eval_partition" else "_celeba"
        (tmp_path / "celeba" / f"list_{name}{suffix}.txt").write_text("\n".join(text))
    (tmp_path / "celeba" / "identity_CelebA.txt").write_text("\n".join(f"{i}.jpg 1" for i in range(5)))
    monkeypatch.setattr(torchvision.datasets.CelebA, "_check_integrity", lambda self: True)
    for split, n in zip(torchvision_sets.load("celeba", tmp_path, size), (2, 2), strict=True):
        assert split.x.shape == (n, 3, size or 64, size or 64)
        assert split.x.min() > 200
        assert split.y is not None and split.y.tolist() == [[0, 1]] * n


@pytest.mark.parametrize(
    "damage", [lambda f: f.write_bytes(f.read_bytes()[:-9]), lambda f: f.write_bytes(b""), Path.unlink]
)
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_damaged_sets_are_left_alone(tmp_path: Path, damage: Callable[[Path], object], file: str) -> None:
    raw = tmp_path / "MNIST" / "raw"
    write_idx(raw)
    damage(raw / file)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"'mnist' in .* is damaged or incomplete") as error:
        torchvision_sets.load("mnist", tmp_path, None)
    assert str(raw) in error.value.hint and "download=True" not in error.value.message
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", [name for name in torchvision_sets.NAMES if name != "svhn"])
def test_without_network(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=f"'{name}' is not in '{tmp_path}'.*no network in tests") as error:
        torchvision_sets.load(name, tmp_path, None)
    assert "pass --data-dir with the folder that holds" in error.value.hint
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_network_that_swallows_everything_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_sets, "TIMEOUT", 0.2)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **kwargs: [time.sleep(5), offline()])
    start = time.perf_counter()
    with pytest.raises(InputError, match="no answer from"):
        torchvision_sets.load("celeba", tmp_path, None)
    assert time.perf_counter() - start < 4


class FakeDownload:
    """Takes the place of torchvision's MNIST: noisily "downloads" small files, or fails half-way."""

    failure: Exception | None = None

    def __init__(self, root: Path, train: bool, download: bool) -> None:
        raw = root / "MNIST" / "raw"
        if download and not raw.exists():
            print("downloading")
            print("100 %", file=sys.stderr)
            write_idx(raw)
            (root / "archive.tar.gz").touch()
            if self.failure is not None:
                raise self.failure
        real = self.real(root, train)
        self.data, self.targets = real.data, real.targets

    real = torchvision.datasets.MNIST


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeDownload]:
    class Fake(FakeDownload): ...

    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **kwargs: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(torchvision.datasets, "MNIST", Fake)
    return Fake


def test_download_moves_the_finished_set_in_silence(
    tmp_path: Path, fake: type[FakeDownload], capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "new" / "folder"
    train, test = torchvision_sets.load("mnist", root, None)
    assert (len(train), len(test)) == (12, 6)
    assert [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_dir()] == ["MNIST", "MNIST/raw"]
    assert not (root / "archive.tar.gz").exists()
    assert capfd.readouterr() == ("", "")
    again, _ = torchvision_sets.load("mnist", root, None)
    assert again.x.equal(train.x)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (RuntimeError("Error downloading:\nTried a\nFile not found or corrupted."), InputError),
        (urllib.error.URLError("reset"), InputError),
        (ConnectionResetError(errno.ECONNRESET, "reset"), InputError),
        (OSError(errno.ENOSPC, "No space left on device"), StorageError),
        (PermissionError(errno.EACCES, "Permission denied"), StorageError),
    ],
)
def test_a_broken_download_leaves_nothing(
    tmp_path: Path, fake: type[FakeDownload], failure: Exception, kind: type[VaezooError]
) -> None:
    fake.failure = failure
    with pytest.raises(kind) as error:
        torchvision_sets.load("mnist", tmp_path, None)
    assert type(error.value) is kind and "\n" not in error.value.message and "--data-dir" in error.value.hint
    assert list(tmp_path.iterdir()) == []


def test_another_process_may_be_faster(
    tmp_path: Path, fake: type[FakeDownload], monkeypatch: pytest.MonkeyPatch
) -> None:
    move = torchvision_sets._move

    def late(source: Path, target: Path) -> None:
        write_idx(target, count=3)
        move(source, target)

    monkeypatch.setattr(torchvision_sets, "_move", late)
    train, _ = torchvision_sets.load("mnist", tmp_path, None)
    assert len(train) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["MNIST"]

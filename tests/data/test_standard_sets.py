"""vaezoo.data.images.standard_sets: reading the files; tests/fault_injection/test_downloads.py tests the downloads."""

import gzip
import hashlib
import io
import pickle
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image

from vaezoo.data import download
from vaezoo.data.base import TensorSplit
from vaezoo.data.download import Remote
from vaezoo.data.images import standard_sets, svhn
from vaezoo.errors import InputError, VaezooError

RNG = np.random.default_rng(0)
MNIST = Path(__file__).parents[2] / "../shared/data/mnist"
IDX = [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "URL_PREFIXES", ("nothing at all",))


def equal(split: TensorSplit, x: torch.Tensor, y: torch.Tensor) -> bool:
    """Returns whether a split has exactly these images, contiguous in memory, and exactly these labels."""
    assert split.y is not None
    return split.x.is_contiguous() and split.x.equal(x) and split.y.equal(y)


# --- MNIST, Fashion-MNIST, KMNIST


def write_idx(folder: Path, pack: Callable[[bytes], bytes] = bytes, suffix: str = "") -> None:
    """Writes a data set in the IDX format with 12 and 6 images of 28 x 20 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, n in (("train", 12), ("t10k", 6)):
        head = (0x803).to_bytes(4, "big") + b"".join(k.to_bytes(4, "big") for k in (n, 28, 20))
        images = head + np.random.default_rng(n).bytes(n * 560)
        (folder / f"{prefix}-images-idx3-ubyte{suffix}").write_bytes(pack(images))
        labels = (0x801).to_bytes(4, "big") + n.to_bytes(4, "big") + bytes(i % 10 for i in range(n))
        (folder / f"{prefix}-labels-idx1-ubyte{suffix}").write_bytes(pack(labels))


@pytest.mark.parametrize(("name", "folder"), IDX)
def test_idx_sets_match_torchvision(tmp_path: Path, name: str, folder: str) -> None:
    write_idx(tmp_path / folder / "raw")
    for split, train in zip(standard_sets.load(name, tmp_path, None), (True, False), strict=True):
        expected = getattr(torchvision.datasets, folder)(tmp_path, train=train)
        assert equal(split, expected.data.unsqueeze(1), expected.targets)


@pytest.mark.skipif(not MNIST.is_dir(), reason="the folder shared/data/mnist beside the repository is absent")
def test_real_mnist_matches_torchvision() -> None:
    for split, train in zip(standard_sets.load("mnist", MNIST, None), (True, False), strict=True):
        expected = torchvision.datasets.MNIST(MNIST, train=train)
        assert equal(split, expected.data.unsqueeze(1), expected.targets)


def test_gzip_files_give_the_same(tmp_path: Path) -> None:
    write_idx(tmp_path / "a" / "MNIST" / "raw")
    write_idx(tmp_path / "b" / "MNIST" / "raw", gzip.compress, ".gz")
    (tmp_path / "b" / "MNIST" / "raw" / "train-labels-idx1-ubyte.gz").unlink()  # both kinds may be mixed
    plain = tmp_path / "a" / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    (tmp_path / "b" / "MNIST" / "raw" / plain.name).write_bytes(plain.read_bytes())
    for a, b in zip(*(standard_sets.load("mnist", tmp_path / name, None) for name in "ab"), strict=True):
        assert a.y is not None and equal(b, a.x, a.y)


def test_image_size(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw")
    train, test = standard_sets.load("mnist", tmp_path, 16)
    assert train.x.shape == (12, 1, 16, 16) and test.x.shape == (6, 1, 16, 16)


def idx(*shape: int, data: bytes, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape) + data


NOT_IDX = "not in the IDX format"
DAMAGED_IDX = {
    "empty": (b"", NOT_IDX),
    "cut header": (b"\0\0\x08\x03\0\0", NOT_IDX),
    "text": (b"<html>404 Not Found</html>", NOT_IDX),
    "other type": (idx(2, 3, 3, data=bytes(36), kind=0x0B), NOT_IDX),
    "other rank": (idx(18, data=bytes(18)), NOT_IDX),
    "too short": (idx(12, 3, 3, data=bytes(107)), "fewer than the 108 numbers"),
    "too long": (idx(12, 3, 3, data=bytes(109)), "more than the 108 numbers"),
    "no images": (idx(0, 3, 3, data=b""), r"declares the shape \(0, 3, 3\)"),
    "no pixels": (idx(12, 0, 3, data=b""), r"declares the shape \(12, 0, 3\)"),
    "terabytes": (idx(2**32 - 1, 2**32 - 1, 2**32 - 1, data=b""), r"declares the shape \(4294967295, "),
    "other number": (idx(2, 3, 3, data=bytes(18)), "2 images and 12 labels"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("content", "reason"), DAMAGED_IDX.values(), ids=DAMAGED_IDX.keys())
def test_damaged_idx_files(tmp_path: Path, content: bytes, reason: str, packed: bool) -> None:
    raw = tmp_path / "MNIST" / "raw"
    write_idx(raw, gzip.compress if packed else bytes, ".gz" if packed else "")
    (raw / f"train-images-idx3-ubyte{'.gz' if packed else ''}").write_bytes(
        gzip.compress(content) if packed else content
    )
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=rf"'mnist' in .* is damaged: .*{reason}") as error:
        standard_sets.load("mnist", tmp_path, None)
    assert error.value.hint == f"delete {raw} to download it again"
    assert sorted(tmp_path.rglob("*")) == before


def test_declared_size_is_not_allocated(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw")
    forged = idx(2**10, 2**10, 2**10 + 1, data=b"")
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(forged)
    with pytest.raises(
        InputError, match=r"train-images-idx3-ubyte: its header declares the shape \(1024, 1024, 1025\)"
    ):
        standard_sets.load("mnist", tmp_path, None)


# --- CIFAR-10


def records(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3072), dtype=np.uint8), rng.integers(0, 10, count)


def write_cifar(root: Path) -> dict[str, bytes]:
    """Writes the binary version in files of different lengths and returns their contents."""
    files = {}
    for i, name in enumerate([f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"], 1):
        pixels, labels = records(i, i)
        files[name] = np.hstack([labels.astype(np.uint8)[:, None], pixels]).tobytes()
        (root / "cifar-10-batches-bin").mkdir(parents=True, exist_ok=True)
        (root / "cifar-10-batches-bin" / name).write_bytes(files[name])
    return files


def archive(files: Mapping[str, bytes], folder: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(folder + name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def test_cifar10_matches_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path)
    (tmp_path / "cifar-10-batches-py").mkdir()
    for i, name in enumerate([f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"], 1):
        pixels, labels = records(i, i)
        with (tmp_path / "cifar-10-batches-py" / name).open("wb") as file:
            pickle.dump({"data": pixels, "labels": labels.tolist()}, file)
    with (tmp_path / "cifar-10-batches-py" / "batches.meta").open("wb") as file:
        pickle.dump({"label_names": list("abcdefghij")}, file)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *args: True)
    for split, train in zip(standard_sets.load("cifar10", tmp_path, None), (True, False), strict=True):
        expected = torchvision.datasets.CIFAR10(tmp_path, train=train)
        assert equal(split, torch.from_numpy(expected.data).permute(0, 3, 1, 2), torch.tensor(expected.targets))


@pytest.mark.parametrize("folder", ["cifar-10-batches-bin/", "./cifar-10-batches-bin/"])
def test_cifar10_archive(tmp_path: Path, folder: str) -> None:
    files = write_cifar(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "cifar-10-binary.tar.gz").write_bytes(archive({"readme.html": b"hello", **files}, folder))
    for a, b in zip(*(standard_sets.load("cifar10", tmp_path / name, None) for name in "ab"), strict=True):
        assert a.y is not None and equal(b, a.x, a.y)
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["cifar-10-binary.tar.gz"]


@pytest.mark.parametrize("name", ["cifar-10-batches-py", "cifar-10-python.tar.gz"])
def test_pickled_cifar10_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"'{tmp_path / name}' is the pickled version of CIFAR-10") as error:
        standard_sets.load("cifar10", tmp_path, None)
    assert "cifar-10-binary.tar.gz" in error.value.hint


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "no file"), (b"", "0 bytes"), (bytes(3072), "3,072 bytes"), (b"\x0a" * 3073, "above")],
)
def test_damaged_cifar10(tmp_path: Path, content: bytes | None, reason: str) -> None:
    write_cifar(tmp_path)
    file = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(InputError, match=f"'cifar10' in .* is damaged: .*{reason}") as error:
        standard_sets.load("cifar10", tmp_path, None)
    assert error.value.hint == f"delete {file.parent} to download it again"


# --- SVHN


@pytest.fixture
def mat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files in the format of SVHN, registered as the official ones."""
    scipy = pytest.importorskip("scipy.io")
    for name, n in (("train_32x32.mat", 5), ("test_32x32.mat", 2)):
        x = RNG.integers(0, 256, (32, 32, 3, n), dtype=np.uint8)
        scipy.savemat(tmp_path / name, {"X": x, "y": 10 - np.arange(n, dtype=np.uint8)[:, None]})
        make_official(tmp_path / name, monkeypatch)
    return tmp_path


def make_official(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = path.read_bytes()
    monkeypatch.setitem(svhn.FILES, path.name, Remote((), len(data), hashlib.sha256(data).hexdigest()))


def test_svhn_matches_torchvision(mat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets.SVHN, "_check_integrity", lambda self: True)
    for split, name in zip(standard_sets.load("svhn", mat, None), ("train", "test"), strict=True):
        expected = torchvision.datasets.SVHN(mat, split=name)
        assert equal(split, torch.from_numpy(expected.data), torch.from_numpy(expected.labels))


def test_scipy_reads_only_official_files(mat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scipy.io.loadmat", None)
    path = mat / "train_32x32.mat"
    data = path.read_bytes()
    for changed, reason in ((data[:-1], "bytes of the official"), (data[:-1] + b"x", "SHA-256 differs")):
        path.write_bytes(changed)
        with pytest.raises(InputError, match=f"'svhn' in .* is damaged: .*{reason}"):
            standard_sets.load("svhn", mat, None)


def test_svhn_with_another_shape(mat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = mat / "test_32x32.mat"
    pytest.importorskip("scipy.io").savemat(path, {"X": np.zeros((32, 32, 3), np.uint8), "y": np.zeros((2, 1))})
    make_official(path, monkeypatch)
    with pytest.raises(InputError, match=r"'svhn' in .* is damaged: .*shape \(32, 32, 3\) for 2 labels"):
        standard_sets.load("svhn", mat, None)


def test_svhn_needs_scipy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(VaezooError, match="needs the package scipy") as error:
        standard_sets.load("svhn", tmp_path, None)
    assert error.value.hint == "pip install scipy"


# --- CelebA


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Five images of a white square on black in the format of CelebA."""
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    lines = {"attr": ["5", "A B"], "eval_partition": [], "bbox": ["5", "x"], "landmarks_align": ["5", "x"]}
    levels = np.zeros((218, 178, 3), dtype=np.uint8)
    levels[20:198] = 255
    for i, partition in enumerate((0, 2, 1, 0, 2)):
        Image.fromarray(levels).save(folder / "img_align_celeba" / f"{i}.jpg")
        attr = f"-1  {1 if i else -1}"
        for name, value in (
            ("attr", attr),
            ("eval_partition", str(partition)),
            ("bbox", "0"),
            ("landmarks_align", "0"),
        ):
            lines[name].append(f"{i}.jpg {value}")
    for name, text in lines.items():
        suffix = "" if name == "eval_partition" else "_celeba"
        (folder / f"list_{name}{suffix}.txt").write_text("\n".join(text) + "\n")
    (folder / "identity_CelebA.txt").write_text("\n".join(f"{i}.jpg 1" for i in range(5)))
    return tmp_path


@pytest.mark.parametrize("image_size", [None, 32])
def test_celeba_crops_the_centre(faces: Path, image_size: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets.CelebA, "_check_integrity", lambda self: True)
    for split, name in zip(standard_sets.load("celeba", faces, image_size), ("train", "test"), strict=True):
        expected = torchvision.datasets.CelebA(faces, split=name)
        assert split.x.shape == (2, 3, image_size or 64, image_size or 64)
        assert split.x.min() > 200
        assert split.y is not None and split.y.equal(expected.attr)


@pytest.mark.parametrize("name", ["img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"])
def test_celeba_is_not_downloaded(faces: Path, name: str) -> None:
    (faces / "celeba" / name).rename(faces / "elsewhere")
    with pytest.raises(InputError, match=f"there is no celeba/{name}, and it cannot be downloaded") as error:
        standard_sets.load("celeba", faces, None)
    assert "mmlab.ie.cuhk.edu.hk" in error.value.hint and str(faces / "celeba") in error.value.hint


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("eval_partition", lambda text: text.replace("1.jpg", "../1.jpg"), "do not list the same"),
        ("eval_partition", lambda text: text.replace(" 2", " 1"), "partition 2"),
        ("eval_partition", lambda text: "1.jpg\n2.jpg\n", "is damaged"),
        ("attr_celeba", lambda text: text.replace("-1", "x"), "neither 1 nor -1"),
        ("attr_celeba", lambda text: text[:-20], "do not list the same"),
        ("attr_celeba", lambda text: "", "is damaged"),
    ],
)
def test_damaged_celeba_lists(faces: Path, name: str, change: Callable[[str], str], reason: str) -> None:
    path = faces / "celeba" / f"list_{name}.txt"
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=f"'celeba' in .*{reason}"):
        standard_sets.load("celeba", faces, None)


def test_celeba_lists_name_no_paths(faces: Path) -> None:
    for path in (faces / "celeba").glob("list_*"):
        path.write_text(path.read_text().replace("3.jpg", "../img_align_celeba/3.jpg"))
    with pytest.raises(InputError, match="not a file name"):
        standard_sets.load("celeba", faces, None)


# --- nothing there


@pytest.mark.parametrize("name", [name for name in standard_sets.NAMES if name != "celeba"])
def test_no_files_and_no_network(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    if name == "svhn":
        pytest.importorskip("scipy")
    root = tmp_path / "new" / "sets"
    with pytest.raises(InputError, match=f"is not in '{root}' and cannot be downloaded") as error:
        standard_sets.load(name, root, None)
    assert "pass --data-dir with the folder that contains it, or save https://" in error.value.hint
    assert list(tmp_path.iterdir()) == []  # not even a folder
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("below", ["", "MNIST", "MNIST/raw"])
def test_folder_of_one_data_set(tmp_path: Path, below: str) -> None:
    write_idx(tmp_path / "MNIST" / "raw")
    (train, _), (again, _) = (standard_sets.load("mnist", root, None) for root in (tmp_path, tmp_path / below))
    assert again.x.equal(train.x)


def test_folder_of_another_data_set_is_not_taken(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw")
    with pytest.raises(InputError, match="cannot be downloaded"):
        standard_sets.load("fashion-mnist", tmp_path / "MNIST" / "raw", None)
    assert not (tmp_path / "MNIST" / "raw" / "FashionMNIST").exists()

"""Small data and models that many tests share."""

from __future__ import annotations

import functools
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from vaezoo import Dataset, Run, TrainConfig, load_data, train
from vaezoo.data.base import TensorSplit

if TYPE_CHECKING:
    from vaezoo import ExportResult, LpipsFiles

# Child processes inherit ignored signals: SIGHUP under nohup, SIGINT in the background of a script.
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(min(2, torch.get_num_threads()))  # OMP_NUM_THREADS=1 keeps tests side by side apart


def shorten(data: Dataset, n: int) -> Dataset:
    """Returns a data set with the first n examples of each split."""

    def first(split: TensorSplit) -> TensorSplit:
        return TensorSplit(split.x[:n], None if split.y is None else split.y[:n])

    test = None if data.test is None else first(data.test)
    return Dataset(spec=data.spec, train=first(data.train), valid=first(data.valid), test=test, source=data.source)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """600 real digits."""
    return shorten(load_data("digits"), 600)


@pytest.fixture(scope="session")
def lpips_files(tmp_path_factory: pytest.TempPathFactory) -> LpipsFiles:
    """Files of LPIPS with random weights."""
    from lpips_weights import write_lpips

    return write_lpips(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def trained(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A conv-vae trained for two short epochs."""
    out = tmp_path_factory.mktemp("runs") / "conv"
    return train("conv-vae", digits, config=TrainConfig(epochs=2, batch_size=50), out=out)


@pytest.fixture(scope="session")
def shared_export(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ExportResult]:
    """A function that exports `trained`, once for the same options. Tests must not change the folder."""
    from vaezoo import export_onnx

    @functools.cache
    def export(**options: Any) -> ExportResult:
        return export_onnx(trained, tmp_path_factory.mktemp("exports") / "conv", **options)

    return export


@pytest.fixture(scope="session")
def exported(shared_export: Callable[..., ExportResult]) -> ExportResult:
    return shared_export()


@pytest.fixture(scope="session")
def free_size_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of autoencoder-kl, trained for some steps on colour images, whose height and width are free."""
    from vaezoo import export_onnx, from_arrays

    rng = np.random.default_rng(0)
    x = np.repeat(np.repeat(rng.random((60, 4, 4, 3), np.float32), 4, 1), 4, 2)  # blocks of one colour
    folder = tmp_path_factory.mktemp("kl")
    options = {"channels": "8,8,8", "norm_groups": 2}
    config = TrainConfig(steps=60, batch_size=16, lr=3e-3)
    run = train("autoencoder-kl", from_arrays(x), options=options, config=config, out=folder / "run")
    return export_onnx(run, folder / "export").path


@pytest.fixture
def export_copy(exported: ExportResult, tmp_path: Path) -> Path:
    """A copy of an export, which a test may change."""
    return shutil.copytree(exported.path, tmp_path / "copy")


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def own_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The module own_models.py, whose models are registered while the tests of a module run."""
    import own_models

    site = tmp_path_factory.mktemp("site")
    info = site / "own_models-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-models\nVersion: 1.0\nSummary: For tests\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        lines = [f"{name} = own_models:{attribute}" for name, attribute in own_models.MODELS.items()]
        (info / "entry_points.txt").write_text("\n".join(["[vaezoo.models]", *lines, ""]))
        yield own_models


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Returns a function that installs a package with one model on the path and returns its metadata folder."""

    def install(distribution: str, model: str, code: str = "from vaezoo.models.mlp_vae import SPEC") -> Path:
        module = distribution.replace("-", "_")
        site = tmp_path / "site" / distribution
        info = site / f"{module}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\nSummary: Ours\n")
        (info / "entry_points.txt").write_text(f"[vaezoo.models]\n{model} = {module}:SPEC\n")
        (site / f"{module}.py").write_text(code)
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, module, raising=False)
        return info

    return install

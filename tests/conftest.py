"""Small data and models that many tests share."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vaezoo import Dataset, Run, TrainConfig, load_data, train
from vaezoo.data.base import TensorSplit

# What is ignored stays ignored in all that we start: SIGHUP under nohup, SIGINT in a script's background.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


def shorten(data: Dataset, n: int) -> Dataset:
    """Returns a data set with the first n examples of each part."""

    def first(part: TensorSplit) -> TensorSplit:
        return TensorSplit(part.x[:n], None if part.y is None else part.y[:n])

    test = None if data.test is None else first(data.test)
    return Dataset(spec=data.spec, train=first(data.train), valid=first(data.valid), test=test, source=data.source)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """600 real digits."""
    return shorten(load_data("digits"), 600)


@pytest.fixture(scope="session")
def trained(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A conv-vae trained for two short epochs."""
    out = tmp_path_factory.mktemp("runs") / "conv"
    return train("conv-vae", digits, config=TrainConfig(epochs=2, batch_size=50), out=out)


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Returns a function that puts a package with one model on the path, as pip would, and returns its metadata."""

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

"""An export that the tests of this folder look at, and copies of it that they may damage."""

import shutil
from pathlib import Path

import pytest

from vaezoo import export_onnx


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory):
    return export_onnx(trained, tmp_path_factory.mktemp("exports") / "conv")


@pytest.fixture
def copy(exported, tmp_path):
    """A copy of the export."""
    return Path(shutil.copytree(exported.path, tmp_path / "copy"))

"""--scale: fitted once, kept in run and export, never fitted again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import vaezoo
from vaezoo.core import scaling
from vaezoo.data import arrays

TABLE = np.random.default_rng(0).normal([200.0, -3e-3], [15.0, 1e-4], (120, 2))
TRAIN = ("train", "mlp-vae", "-o", "hidden=8", "--data", "t.npy", "--steps", 6, "--eval-every", 2, "--batch-size", 50)


@pytest.fixture
def folder(inside):
    np.save("t.npy", TABLE)
    return inside


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["minmax", pytest.param("standardize", marks=pytest.mark.slow)])
def test_run_and_export_keep_the_scaling(scale, folder, run_ok, monkeypatch):
    run_ok(*TRAIN, "--scale", scale, "--out", "r")
    run = vaezoo.load("r")
    fitted = scaling.fit(scale, np.delete(TABLE, np.arange(12) * 10, 0))
    assert run.data.scaling == fitted and run.source.scale == scale

    def refit(*args):
        raise AssertionError("fitted again")

    monkeypatch.setattr(arrays, "fit", refit)
    assert run.load_data().spec == run.data
    run_ok("eval", "r")
    run_ok("export", "r", "--onnx", "--out", "e")
    export = vaezoo.runtime.load("e")
    assert export.scaling == fitted and "offset" in Path("e/README.md").read_text()
    x = export.scaling.apply(TABLE * 1.5)  # beyond the range of the training
    assert export.reconstruct(x).shape == (120, 2)
    assert export.scaling.invert(x) == pytest.approx(TABLE * 1.5, rel=1e-5)


def test_resume_reads_the_scaling_of_the_run(folder, run, monkeypatch):
    """Another machine may round a mean differently, so nothing is fitted again."""
    assert run(*TRAIN, "--scale", "standardize", "--resume", "r")[0] == 0
    whole = Path("r/result.json").read_bytes()
    Path("r/result.json").unlink()
    shutil.rmtree("r/checkpoints/step-00000006")
    original = arrays.fit
    monkeypatch.setattr(arrays, "fit", lambda *args: original(*args)._replace(offset=(0.0, 0.0)))
    code, _, err = run(*TRAIN, "--scale", "minmax", "--resume", "r")
    assert code == 2 and "was started with --scale standardize, not minmax" in err
    assert run(*TRAIN, "--scale", "standardize", "--resume", "r")[0] == 0
    assert Path("r/result.json").read_bytes() == whole


def test_data_of_another_scaling_are_refused(folder, run_ok):
    run_ok(*TRAIN, "--scale", "standardize", "--out", "r")
    other = vaezoo.from_arrays(TABLE, scale="standardize", x_test=TABLE * 2)
    assert vaezoo.evaluate("r", other).examples == 120  # the same training part, and so the same scaling
    with pytest.raises(vaezoo.UnsupportedDataError, match="not scaled as the data of the training") as error:
        vaezoo.evaluate("r", vaezoo.from_arrays(TABLE * 2, scale="standardize"))
    assert "scale=run.data.scaling" in error.value.hint


def test_hint_of_the_range_leads_to_a_training(folder, run):
    code, _, err = run(*TRAIN, "--out", "r")
    assert code == 3 and "hint: give --scale minmax, standardize or none" in err and "x.min" not in err
    for scale in ("minmax", "standardize", "none"):
        assert run(*TRAIN, "--scale", scale, "--out", scale)[0] == 0


def test_what_a_scaling_excludes(folder, run, run_ok):
    code, _, err = run(*TRAIN, "--scale", "minmax", "--binarize", "dynamic", "--out", "r")
    assert code == 2 and "minmax has scaled cannot be binarized" in err and not Path("r").exists()
    np.save("t.npy", TABLE[:, :1, None] * np.ones((1, 8, 8)))
    run_ok(*TRAIN, "--scale", "minmax", "--out", "r")
    assert json.loads(Path("r/run.json").read_text())["data"]["shape"] == [1, 8, 8]
    code, _, err = run("export", "r", "--onnx", "--uint8")
    assert code == 2 and "no 8-bit form" in err

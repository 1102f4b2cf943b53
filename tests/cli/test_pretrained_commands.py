"""vaezoo pretrained, commands with the name of a pretrained model, and vaezoo encode."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vaezoo import load, pretrained

pytestmark = pytest.mark.usefixtures("inside")


def test_pretrained_are_listed_and_shown(run_ok):
    listed = run_ok("pretrained")
    for card in pretrained.list_pretrained():
        assert card.name in listed and card.recipe in listed
    assert "Licence: CC BY-SA 3.0" in run_ok("pretrained", "mlp-vae-mnist")
    card = json.loads(run_ok("pretrained", "mlp-vae-mnist", "--json"))
    assert card["sha256"] == load("mlp-vae", pretrained="mnist").checkpoint.model_sha256


@pytest.fixture
def unchanged_package():
    """Checks that a test writes nothing into the package."""

    def modification_times():
        return {f: f.stat().st_mtime_ns for f in pretrained.FOLDER.rglob("*") if "__pycache__" not in f.parts}

    before = modification_times()
    yield
    assert modification_times() == before


def test_commands_accept_pretrained_name(run_ok, unchanged_package, digits):
    assert run_ok("sample", "mlp-vae-mnist").strip() == "pretrained/mlp-vae-mnist/samples.png"
    run_ok("reconstruct", "mlp-vae-mnist", "--data", "digits")
    run_ok("plot", "mlp-vae-mnist", "--kind", "learning-curves")
    np.save("images.npy", digits.train.x[:30, 0].numpy())
    run_ok("encode", "mlp-vae-mnist", "--data", "images.npy")
    assert Path("pretrained/mlp-vae-mnist/latents.npz").exists()
    evaluation = json.loads(run_ok("eval", "mlp-vae-mnist", "--data", "digits", "--limit", 20, "--json"))
    assert evaluation["model"] == "vaezoo/mlp-vae"


@pytest.mark.slow
def test_pretrained_is_exported_and_measured(run_ok, unchanged_package):
    run_ok("export", "mlp-vae-mnist", "--onnx")
    assert Path("exports/mlp-vae-mnist/decoder.onnx").exists()
    run_ok("bench", "mlp-vae-mnist", "--batch", "1", "--seconds", "0.001")


def test_misspelt_name_suggests_nearest(run, inside):
    code, _, err = run("sample", "mlp-vae-mnits")
    assert code == 3 and "hint: did you mean 'mlp-vae-mnist'?" in err
    code, _, err = run("pretrained", "mlp-vae-mnits")
    assert code == 2 and "hint: did you mean 'mlp-vae-mnist'?" in err


def test_pretrained_has_one_checkpoint(run, inside):
    code, _, err = run("sample", "mlp-vae-mnist", "--checkpoint", 500)
    assert code == 2 and "one checkpoint" in err


@pytest.mark.slow
@pytest.mark.parametrize("as_export", [False, True])
@pytest.mark.parametrize("uint8", [False, True])
def test_codes_keep_order_of_data(as_export, uint8, run_ok, trained, shared_export, digits):
    source = trained.path
    if as_export:
        source = shared_export(**({"uint8": True} if uint8 else {})).path
    elif uint8:
        pytest.skip("only exports have uint8 inputs")
    np.savez("mine.npz", x=digits.train.x[:30, 0].numpy(), y=np.arange(30))
    assert run_ok("encode", source, "--data", "mine.npz", "--out", "latents.npz").strip() == "latents.npz"
    with np.load("latents.npz", allow_pickle=False) as codes:
        assert codes.files == ["name", "y", "mu", "logvar"]
        assert codes["y"].tolist() == codes["name"].tolist() == list(range(30))
        mu = codes["mu"]
    with torch.no_grad():
        expected = trained.vae.encode(digits.train.x[:30].float() / 255).mu.numpy()
    assert mu == pytest.approx(expected, abs=1e-4)


def test_unlabelled_data_have_no_labels(run_ok, trained, digits):
    np.save("mine.npy", digits.train.x[:30, 0].numpy())
    run_ok("encode", trained.path, "--data", "mine.npy", "--out", "latents.npz")
    with np.load("latents.npz", allow_pickle=False) as codes:
        assert not any(name.startswith("y") for name in codes.files)


def test_codes_need_a_known_suffix(run, inside, trained):
    code, _, err = run("encode", trained.path, "--out", "codes.png")
    assert code == 2 and ".npz" in err

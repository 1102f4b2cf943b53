"""`vaezoo pretrained`, and pretrained names where commands take a run; `vaezoo encode`."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vaezoo import export_onnx, load, pretrained

pytestmark = pytest.mark.usefixtures("inside")


def test_pretrained_models_are_listed_and_shown(fine):
    listed = fine("pretrained")
    for card in pretrained.list_pretrained():
        assert card.name in listed and card.recipe in listed
    assert "Licence: CC BY-SA 3.0" in fine("pretrained", "mlp-vae-mnist")
    told = json.loads(fine("pretrained", "mlp-vae-mnist", "--json"))
    assert told["sha256"] == load("mlp-vae", pretrained="mnist").checkpoint.model_sha256


def test_commands_take_a_pretrained_name_and_write_nothing_into_the_package(fine):
    def there():
        return {f: f.stat().st_mtime_ns for f in pretrained.FOLDER.rglob("*") if "__pycache__" not in f.parts}

    before = there()
    assert fine("sample", "mlp-vae-mnist").strip() == "pretrained/mlp-vae-mnist/samples.png"
    fine("reconstruct", "mlp-vae-mnist", "--data", "digits")
    fine("plot", "mlp-vae-mnist", "--kind", "curves")
    fine("encode", "mlp-vae-mnist", "--data", "digits")
    fine("export", "mlp-vae-mnist", "--onnx")
    fine("bench", "mlp-vae-mnist", "--batch", "1", "--seconds", "0.001")
    figures = json.loads(fine("eval", "mlp-vae-mnist", "--data", "digits", "--limit", 20, "--json"))
    assert figures["model"] == "vaezoo/mlp-vae"
    assert Path("exports/mlp-vae-mnist/decoder.onnx").exists()
    assert there() == before


def test_a_misspelt_name_is_told_the_right_one(run, inside):
    code, _, err = run("sample", "mlp-vae-mnits")
    assert code == 3 and "hint: did you mean 'mlp-vae-mnist'?" in err
    code, _, err = run("pretrained", "mlp-vae-mnits")
    assert code == 2 and "hint: did you mean 'mlp-vae-mnist'?" in err


def test_a_pretrained_model_has_one_checkpoint(run, inside):
    code, _, err = run("sample", "mlp-vae-mnist", "--checkpoint", 500)
    assert code == 2 and "one checkpoint" in err


@pytest.mark.parametrize("as_export", [False, True])
@pytest.mark.parametrize("uint8", [False, True])
def test_codes_are_those_of_the_model_in_the_order_of_the_data(as_export, uint8, fine, trained, digits):
    source = trained.path
    if as_export:
        source = export_onnx(trained, "e", uint8=uint8).path
    elif uint8:
        pytest.skip("runs take floats")
    np.savez("mine.npz", x=digits.train.x[:30, 0].numpy(), y=np.arange(30))
    assert fine("encode", source, "--data", "mine.npz", "--out", "codes.npz").strip() == "codes.npz"
    with np.load("codes.npz", allow_pickle=False) as codes:
        assert {"mu_train", "logvar_train", "y_train", "mu_valid"} <= set(codes.files)
        order = np.concatenate([codes["y_train"], codes["y_valid"]])
        mu = np.concatenate([codes["mu_train"], codes["mu_valid"]])
    assert sorted(order) == list(range(30))
    with torch.no_grad():
        expected = trained.vae.encode(digits.train.x[order].float() / 255).mu.numpy()
    assert mu == pytest.approx(expected, abs=1e-4)


def test_codes_have_no_labels_where_the_data_have_none(fine, trained, digits):
    np.save("mine.npy", digits.train.x[:30, 0].numpy())
    fine("encode", trained.path, "--data", "mine.npy", "--out", "codes.npz")
    with np.load("codes.npz", allow_pickle=False) as codes:
        assert not any(name.startswith("y") for name in codes.files)


def test_codes_go_into_a_npz_file(run, inside, trained):
    code, _, err = run("encode", trained.path, "--out", "codes.csv")
    assert code == 2 and ".npz" in err

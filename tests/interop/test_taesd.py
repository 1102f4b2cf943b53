"""TAESD's files: a real model against the outputs of its own program, and small ones of the same layout."""

from pathlib import Path

import numpy as np
import pytest
import torch
from foreign import weights_of
from safetensors.torch import save_file

import vaezoo
from vaezoo import DataSpec, create_model, import_folder

TAEF2 = Path(__file__).parents[3] / "shared" / "data" / "taef2"
UNIT = {"likelihood": "gaussian-identity"}


def write_taesd(folder, options):
    """Writes encoder and decoder with the names of TAESD's program, and returns the weights by our names."""
    vae = create_model("tiny-autoencoder", DataSpec(name="x", shape=(3, 64, 64), **UNIT), options)
    weights = weights_of({name: tuple(t.shape) for name, t in vae.state_dict().items()})
    folder.mkdir()
    for part, shift in (("encoder", 0), ("decoder", 1)):
        tensors = {}
        for name, tensor in weights.items():
            if name.startswith(part):
                number, rest = name.removeprefix(f"{part}.layers.").split(".", 1)
                tensors[f"{int(number) + shift}.{rest}"] = tensor
        save_file(tensors, folder / f"tae_{part}.safetensors")
    return weights


@pytest.mark.parametrize(
    "options",
    [
        {"channels": 4, "blocks": [1, 3, 3, 3], "latent_channels": 4, "latent_norm": False},
        {"channels": 6, "blocks": [2, 1], "latent_channels": 3, "latent_norm": True},
    ],
)
def test_options_are_read_from_the_names(options, tmp_path):
    weights = write_taesd(tmp_path / "tae", options)
    run = import_folder(tmp_path / "tae", tmp_path / "run")
    assert run.model == "tiny-autoencoder" and run.imported["class"] == "TAESD" and run.imported["config"] == {}
    assert run.options == {**options, "scaling_factor": 1.0, "shift_factor": 0.0}
    assert all(torch.equal(t, weights[name]) for name, t in run.vae.state_dict().items())
    assert sorted(run.imported["files"]) == ["tae_decoder.safetensors", "tae_encoder.safetensors"]


@pytest.mark.skipif(not TAEF2.exists(), reason="needs the files of TAEF2 in ../shared/data")
@torch.no_grad()
def test_taef2_equals_its_own_program(tmp_path):
    run = import_folder(TAEF2, tmp_path / "run")
    golden = np.load(TAEF2 / "golden.npz", allow_pickle=False)
    x = torch.from_numpy(golden["x"]).permute(0, 3, 1, 2) / 255
    z, y = torch.from_numpy(golden["z"]), torch.from_numpy(golden["y"])
    torch.testing.assert_close(run.vae.encode(x).mode(), z, rtol=0, atol=2e-3)
    torch.testing.assert_close(run.vae.decode(z), y, rtol=0, atol=2e-3)
    mse = (run.vae.reconstruct(x) - x).square().mean()
    assert float(-10 * torch.log10(mse)) == pytest.approx(35.6, abs=0.1)
    assert vaezoo.load(tmp_path / "run").vae.latent_shape == (32, 8, 8)

"""Damaged bytes in each part of a folder: the import refuses them, or the weights are those of the file."""

import random

import pytest
import torch
from foreign import CASES, weights_of, write_folder
from safetensors.torch import load_file

from vaezoo import DataSpec, VaezooError, create_model, import_folder
from vaezoo.interop.formats import FORMATS

FILE = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path):
    settings = CASES["tiny-shallow"]
    options = FORMATS["AutoencoderTiny"].read(settings)
    vae = create_model("tiny-autoencoder", DataSpec(name="x", shape=(3, 8, 8)), options)
    weights = weights_of({name: tuple(t.shape) for name, t in vae.state_dict().items()})
    return write_folder(tmp_path / "vae", settings, weights)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["config", "header", "weights"])
def test_damaged_bytes(part, folder, tmp_path):
    file = folder / ("config.json" if part == "config" else FILE)
    intact, rng = file.read_bytes(), random.Random(0)
    end = len(intact) if part == "config" else 8 + int.from_bytes(intact[:8], "little")
    refused = 0
    for attempt in range(60):
        damaged = bytearray(intact)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(end, len(intact)) if part == "weights" else rng.randrange(end)
            damaged[place] = rng.randrange(256)
        file.write_bytes(damaged)
        out = tmp_path / f"run-{attempt}"
        try:
            run = import_folder(folder, out)
        except VaezooError as e:
            assert e.hint and "\n" not in e.message and not out.exists()
            refused += 1
        else:
            expected = load_file(folder / FILE)
            assert all(torch.equal(t, expected[name]) for name, t in run.vae.state_dict().items())
    assert refused > 30 or part == "weights"
    file.write_bytes(intact)
    assert import_folder(folder, tmp_path / "run").model == "tiny-autoencoder"

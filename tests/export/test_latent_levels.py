"""What a manifest says about codes: the grids that lie in z, and their numbers of codes."""

import numpy as np
import pytest
import torch

from vaezoo import DataSpec, LatentLevel, create_model, export_onnx, runtime
from vaezoo.errors import PluginError
from vaezoo.export.description import level_entry

X = torch.rand(3, 1, 12, 8, generator=torch.Generator().manual_seed(0))
SMALL = {"channels": "4,4", "residual_blocks": 0, "codebook_size": 16, "code_dim": 4}


def build(name, **options):
    torch.manual_seed(0)
    return create_model(name, DataSpec(name="x", shape=(1, 12, 8)), SMALL | options).eval()


def test_grids_of_two_levels(tmp_path):
    vae = build("vq-vae-2", quantizer="residual", codebooks=2)
    exported = export_onnx(vae, tmp_path / "e", parts=["encoder"])
    levels = exported.manifest["latent_levels"]
    assert [(level["name"], level["shape"], level["codes"]) for level in levels] == [
        ("top_1", [1, 1], 16),
        ("top_2", [1, 1], 16),
        ("bottom_1", [3, 2], 16),
        ("bottom_2", [3, 2], 16),
    ]
    model = runtime.load(tmp_path / "e")
    codes, start, grids = model.encode(X.numpy())["z"], 0, []
    for level in model.manifest["latent_levels"]:
        size = int(np.prod(level["shape"]))
        grids.append(codes[:, start : start + size].reshape(-1, *level["shape"]))
        start += size
    with torch.no_grad():
        top, bottom = vae.codes.split(vae.encode(X).z)
    expected = [*top.unbind(1), *bottom.unbind(1)]
    assert all(np.array_equal(grid, own.numpy()) for grid, own in zip(grids, expected, strict=True))


def test_codebooks_of_one_grid():
    levels = [level_entry(level) for level in build("residual-vq-vae", codebooks=3).latent_levels]
    assert [level["name"] for level in levels] == ["codebook_1", "codebook_2", "codebook_3"]
    assert {(*level["shape"], level["codes"]) for level in levels} == {(3, 2, 16)}


def test_numbers_are_no_codes(exported):
    assert "latent_levels" not in exported.manifest


def test_levels_in_a_row_and_wrong_shapes():
    assert level_entry(LatentLevel("codes", 5, 64)) == {"name": "codes", "shape": [5], "codes": 64}
    with pytest.raises(PluginError, match=r"level 'codes' has 5 latents, and the shape \(2, 2\)") as e:
        level_entry(LatentLevel("codes", 5, 64, (2, 2)))
    assert e.value.hint

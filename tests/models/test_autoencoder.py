"""The plain autoencoder: no chance, no KL."""

import json

import torch

import vaezoo
from vaezoo import Batch, StepContext, TrainConfig, create_model, get_model


def test_a_code_is_a_point_and_costs_nothing(digits):
    spec = get_model("autoencoder")
    vae, objective = create_model("autoencoder", digits), spec.objective(spec.config, digits.spec)
    x = digits.train.batch(slice(0, 8)).x
    code = vae.encode(x)
    assert code._fields == ("z",) and torch.equal(code.rsample(), code.mode())
    first, second = (objective(vae, Batch(x, None), StepContext.initial()) for _ in range(2))
    assert first.losses["vae"] == second.losses["vae"] == first.metrics["reconstruction"]
    assert first.metrics["kl"] == 0


def test_its_export_has_one_output_and_no_prior_to_draw_from(digits, tmp_path):
    run = vaezoo.train("autoencoder", digits, config=TrainConfig(steps=2, batch_size=50), out=tmp_path / "run")
    vaezoo.export_onnx(run, tmp_path / "export")
    manifest = json.loads((tmp_path / "export" / "manifest.json").read_text())
    assert [output["name"] for output in manifest["graphs"]["encoder"]["outputs"]] == ["z"]
    assert manifest["mode"] == "z" and manifest["prior"] is None

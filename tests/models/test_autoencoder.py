"""The plain autoencoder: deterministic, without KL."""

import json

import pytest
import torch

import vaezoo
from vaezoo import Batch, StepContext, TrainConfig, create_model, get_model


def test_encoding_is_deterministic_without_kl(digits):
    spec = get_model("autoencoder")
    vae, objective = create_model("autoencoder", digits), spec.objective(spec.config, digits.spec)
    x = digits.train.batch(slice(0, 8)).x
    posterior = vae.encode(x)
    assert posterior._fields == ("z",) and torch.equal(posterior.rsample(), posterior.mode())
    first, second = (objective(vae, Batch(x, None), StepContext.initial()) for _ in range(2))
    assert first.losses["vae"] == second.losses["vae"] == first.metrics["reconstruction"]
    assert first.metrics["kl"] == 0


@pytest.mark.slow
def test_export_has_one_output(digits, tmp_path):
    run = vaezoo.train("autoencoder", digits, config=TrainConfig(steps=2, batch_size=50), out=tmp_path / "run")
    vaezoo.export_onnx(run, tmp_path / "export")
    manifest = json.loads((tmp_path / "export" / "manifest.json").read_text())
    assert [output["name"] for output in manifest["graphs"]["encoder"]["outputs"]] == ["z"]
    assert manifest["mode"] == "z" and manifest["prior"] == "standard-normal"

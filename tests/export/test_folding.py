"""Exports with the scale of the latents inside the graphs."""

import math

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from vaezoo import VAE, DataSpec, DiagonalGaussian, VaezooError, create_model, export_onnx, runtime, verify_onnx
from vaezoo.export.folding import FoldedVAE, LatentScaling, scaling_of_latents
from vaezoo.posteriors.delta import Delta
from vaezoo.priors.standard_normal import ZeroKLPrior
from vaezoo.testing.export import open_runtime
from vaezoo.vae import eval_mode

SCALE, SHIFT = 0.18215, 0.3


class Scaled(VAE):
    """A small model that states the scale of its latents as latent diffusion does."""

    def __init__(self, *, posterior="gaussian", scale=SCALE, shift=SHIFT, prior=None) -> None:
        super().__init__(DataSpec(name="x", shape=(1, 4, 4)), (3,), prior)
        self.encoder, self.decoder = nn.Linear(16, 6), nn.Linear(3, 16)
        self.posterior, self.scaling_factor, self.shift_factor = posterior, scale, shift

    def encode(self, x):
        mu, logvar = self.encoder(x.flatten(1)).chunk(2, 1)
        return DiagonalGaussian(mu, logvar) if self.posterior == "gaussian" else Delta(mu)

    def decode(self, z):
        return self.decoder(z).view(-1, 1, 4, 4)


def build(**options):
    torch.manual_seed(0)
    return Scaled(**options).eval()


def test_latents_are_those_of_latent_diffusion():
    vae, x = build(), torch.rand(5, 1, 4, 4)
    folded = FoldedVAE(vae, scaling_of_latents(vae))
    with torch.no_grad():
        plain, scaled = vae.encode(x), folded.encode(x)
        torch.testing.assert_close(scaled.mu, (plain.mu - SHIFT) * SCALE)
        torch.testing.assert_close((scaled.logvar / 2).exp(), SCALE * (plain.logvar / 2).exp())
        torch.testing.assert_close(folded.decode(scaled.mu), vae.decode(plain.mu))
        z = torch.randn(5, 3)
        change = 3 * math.log(SCALE)  # log |dz'/dz|
        new = folded.scaling.apply(z)
        torch.testing.assert_close(scaled.log_prob(new), plain.log_prob(z) - change)
        torch.testing.assert_close(folded.prior.log_prob(new), vae.prior.log_prob(z) - change)


@pytest.mark.parametrize("options", [{}, {"posterior": "point", "shift": None, "prior": ZeroKLPrior((3,))}])
def test_samples_and_reconstructions_are_those_of_the_model(options):
    vae, x = build(**options), np.random.default_rng(0).random((4, 1, 4, 4), np.float32)
    folded = FoldedVAE(vae, scaling_of_latents(vae)).eval()
    with eval_mode(vae, folded):
        ours, theirs = open_runtime(vae), open_runtime(folded)
        np.testing.assert_allclose(theirs.reconstruct(x), ours.reconstruct(x), atol=1e-6)
        np.testing.assert_allclose(theirs.sample(20, seed=2), ours.sample(20, seed=2), atol=1e-6)
        assert theirs.manifest["prior"] == "graph"


@pytest.mark.parametrize(
    ("name", "options"),
    [("autoencoder-kl", {"channels": "4,8", "norm_groups": 2}), ("tiny-autoencoder", {"channels": 4, "blocks": "1,1"})],
)
def test_options_of_latent_diffusion_are_folded(name, options):
    torch.manual_seed(0)
    options |= {"scaling_factor": 0.5, "shift_factor": 0.25}
    vae = create_model(name, DataSpec(name="x", shape=(3, 8, 8), likelihood="gaussian"), options).eval()
    folded, x = FoldedVAE(vae, scaling_of_latents(vae)).eval(), torch.rand(2, 3, 12, 8)
    with torch.no_grad():
        plain, scaled = vae.encode(x).mode(), folded.encode(x).mode()
        torch.testing.assert_close(scaled, (plain - 0.25) * 0.5)
        torch.testing.assert_close(folded.decode(scaled), vae.decode(plain), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_export_states_the_scale(tmp_path, dtype):
    vae, x = build(), np.random.default_rng(0).random((6, 1, 4, 4), np.float32)
    result = export_onnx(vae, tmp_path / "export", fold_scaling=True, dtype=dtype)
    assert result.manifest["latent_scaling"] == {"scaling_factor": SCALE, "shift_factor": SHIFT}
    assert verify_onnx(result.path).parity
    model = runtime.load(result.path)
    with torch.no_grad():
        mu = vae.encode(torch.from_numpy(x)).mu.numpy()
    limit = 1e-5 if dtype == "fp32" else 1e-2
    np.testing.assert_allclose(model.encode(x)["mu"], (mu - SHIFT) * SCALE, atol=limit)
    proto = onnx.load(result.path / "decoder.onnx")
    entries = {entry.key: entry.value for entry in proto.metadata_props}
    assert '"scaling_factor": 0.18215' in entries["vaezoo.latent_scaling"]
    card = (result.path / "README.md").read_text()
    assert "`(z - 0.3) * 0.18215`" in card
    plain = export_onnx(vae, tmp_path / "plain", dtype=dtype)
    assert "latent_scaling" not in plain.manifest and plain.manifest["prior"] == "standard-normal"
    np.testing.assert_allclose(model.sample(9), runtime.load(plain.path).sample(9), atol=limit)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": None}, "has no scaling_factor"),
        ({"scale": 0}, "scaling_factor of the model is 0"),
        ({"scale": "1"}, "is 1, not a number"),
        ({"scale": float("nan")}, "not a number"),
        ({"shift": True}, "shift_factor of the model is True"),
    ],
)
def test_models_without_a_scale_are_refused(options, words, tmp_path):
    with pytest.raises(VaezooError) as e:
        export_onnx(build(**options), tmp_path / "export", fold_scaling=True)
    assert words in e.value.message and e.value.hint and not (tmp_path / "export").exists()


def test_other_posteriors_are_refused():
    with pytest.raises(VaezooError, match="cannot be folded into a"):
        LatentScaling(2.0, 0.0).posterior(Delta(torch.zeros(1, 3, dtype=torch.int64)))

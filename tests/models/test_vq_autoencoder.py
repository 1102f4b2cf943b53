"""The autoencoder of VQGAN: codes of images of free size, its losses, and its whole path."""

import math

import numpy as np
import pytest
import torch

import vaezoo
from vaezoo import DataSpec, TrainConfig, VaezooError, create_model
from vaezoo.core.options import configure
from vaezoo.data.base import Batch, TensorSplit
from vaezoo.export.folding import FoldedVAE, scaling_of_latents
from vaezoo.export.graphs import export_graphs
from vaezoo.export.parity import check_parity
from vaezoo.models.vq_autoencoder import SPEC
from vaezoo.objectives.base import StepContext
from vaezoo.objectives.elbo import elbo_terms
from vaezoo.testing.export import open_runtime

SMALL = {"channels": "4,8,8", "norm_groups": 2, "codebook_size": 16}


def build(shape=(3, 16, 12), options=SMALL, **data):
    torch.manual_seed(0)
    return SPEC.build(configure(SPEC.config, options), DataSpec(name="x", shape=shape, **data)).eval()


def spread(vae):
    """Makes all parameters random, the normalisations' too, so that each of them matters."""
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return vae


@torch.no_grad()
@pytest.mark.parametrize(
    ("shape", "options", "latents"),
    [
        ((1, 28, 28), {}, (7, 7)),
        ((4, 8, 12), SMALL, (2, 3)),
        ((3, 5, 7), {"channels": "4", "norm_groups": 2}, (5, 7)),
        ((1, 8, 8), {**SMALL, "quantizer": "residual", "codebooks": 3}, (3, 2, 2)),
    ],
)
def test_codes_are_a_grid(shape, options, latents):
    vae = build(shape, options)
    x = torch.rand(2, *shape)
    z = vae.encode(x).mode()
    assert vae.latent_shape == latents and z.shape == (2, *latents) and z.dtype == torch.int64
    assert vae.reconstruct(x).shape == vae.sample(2).shape == x.shape
    wide = torch.rand(1, shape[0], 4 * shape[1], 8 * shape[2])
    assert vae.encode(wide).mode().shape[-2:] == (4 * latents[-2], 8 * latents[-1])
    assert vae.reconstruct(wide).shape == wide.shape


@torch.no_grad()
def test_codes_name_the_nearest_vectors():
    vae = spread(build())
    posterior = vae.encode(torch.rand(3, 3, 16, 12))
    rows = posterior.features.permute(0, 2, 3, 1).reshape(-1, 8)
    assert torch.equal(posterior.z.flatten(), torch.cdist(rows, vae.codebook.vectors).argmin(1))
    assert len(posterior.z.unique()) > 2
    vectors = vae.codebook.vectors[posterior.z].permute(0, 3, 1, 2)
    torch.testing.assert_close(vae.decode(posterior.z), vae.decoder(vae.post_quant_conv(vectors)))


@torch.no_grad()
def test_pixels_are_signed_inside():
    unit, real = build(), build(kind="real", likelihood="gaussian")
    x = torch.rand(2, 3, 16, 12)
    torch.testing.assert_close(unit.encode(x).features, real.encode(2 * x - 1).features)
    images = build(likelihood="gaussian-identity")
    z = images.encode(x).mode()
    torch.testing.assert_close(images.decode(z), (unit.decode(z) + 1) / 2)  # the same weights


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_gradient_reaches_every_parameter(codebook):
    vae = spread(build(options={**SMALL, "codebook": codebook}))
    objective = SPEC.objective(SPEC.config, vae.data)
    output = objective(vae, Batch(torch.rand(3, 3, 16, 12)), StepContext.initial())
    parameters = dict(vae.named_parameters())
    gradients = torch.autograd.grad(output.losses["vae"], list(parameters.values()))
    assert ("codebook.vectors" in parameters) == (codebook == "gradient")
    for name, gradient in zip(parameters, gradients, strict=True):
        # A key's bias adds the same to all scores of a pixel, which a softmax ignores.
        assert gradient.abs().max() > 0 or name.endswith("to_k.bias"), name


def test_losses():
    """Both objectives have the bound and the loss of the quantizer, and report how many codes are in use."""
    vae, batch = spread(build()), Batch(torch.rand(3, 3, 16, 12))
    terms = elbo_terms(vae, batch)
    reconstruction, commitment = terms.reconstruction.mean(), terms.auxiliary_loss.mean()
    kl = 12 * math.log(16)
    torch.testing.assert_close(terms.kl_terms.sum(1).mean(), torch.tensor(kl))
    plain = {"objective": "latent-diffusion", "objective.perceptual": "none", "objective.weight": 0, "beta": 0.1}
    for options, weight in (({}, 1.0), (plain, 0.1)):
        objective = SPEC.objective(configure(SPEC.config, options), vae.data)
        output = objective(vae, batch, StepContext.initial())
        torch.testing.assert_close(output.losses["vae"], reconstruction + weight * kl + commitment)
        shares = torch.bincount(terms.z.flatten()) / terms.z.numel()
        perplexity = torch.exp(-(shares * shares.clamp(min=1e-9).log()).sum())
        torch.testing.assert_close(output.metrics["perplexity"], perplexity)


@torch.no_grad()
def test_training_starts_at_the_data():
    vae = build()
    x = torch.rand(50, 3, 16, 12) * torch.tensor([0.1, 0.5, 0.9]).view(3, 1, 1)
    vae.init_from_data(TensorSplit(x, None))
    torch.testing.assert_close(vae.decoder.conv_out.bias, torch.logit(x.mean((0, 2, 3))), rtol=1e-4, atol=1e-4)
    rows = vae.encode(x).features.permute(0, 2, 3, 1).reshape(-1, 8)
    assert float(torch.cdist(vae.codebook.vectors, rows).amin(1).max()) < 0.01 * float(rows.std())
    assert len(vae.encode(x).z.unique()) > 4


def test_encoder_group_holds_quant_conv():
    vae = build()
    ours = {id(parameter) for parameter in vae.inference_parameters()}
    names = {name.partition(".")[0] for name, parameter in vae.named_parameters() if id(parameter) in ours}
    assert names == {"encoder", "quant_conv"}


@pytest.mark.slow
@pytest.mark.parametrize("quantizer", ["vq", pytest.param("residual", marks=pytest.mark.matrix)])
def test_exported_sizes_are_free(quantizer):
    vae = spread(build(options={**SMALL, "quantizer": quantizer}))
    graphs = export_graphs(vae)
    rows, _ = check_parity(vae, graphs)
    (x,), (z,) = graphs["encoder"].signature["inputs"], graphs["decoder"].signature["inputs"]
    assert x["shape"] == ["batch", 3, "height", "width"] and x["multiples"] == {"height": 4, "width": 4}
    assert z["dtype"] == "int64" and all(isinstance(n, str) for n in z["shape"][-2:]) and "multiples" not in z
    assert {row.graph for row in rows} == {"encoder", "decoder", "prior", "round trip"}


@pytest.mark.slow
@torch.no_grad()
def test_runtime_takes_other_sizes_and_tiles():
    options = {"channels": "4,8", "norm_groups": 2, "codebook_size": 16, "mid_attention": False}
    vae = spread(build(options=options)).requires_grad_(False)
    model, x = open_runtime(vae), torch.rand(2, 3, 20, 30)
    z = model.encode(x.numpy())["z"]
    assert np.array_equal(z, vae.encode(x).z.numpy())
    np.testing.assert_allclose(model.decode(z), vae.likelihood.mean(vae.decode(torch.from_numpy(z))), atol=1e-5)
    assert model.factors == (2, 2) and model.sample(3).shape == (3, 3, 16, 12)
    uneven = x.numpy()[:, :, :19]
    assert model.reconstruct(uneven, pad="edge").shape == uneven.shape
    np.testing.assert_allclose(
        model.reconstruct(x.numpy(), tile=64, overlap=16), model.reconstruct(x.numpy()), atol=1e-5
    )
    tiled = model.encode(x.numpy(), tile=16, overlap=8)["z"]
    assert tiled.dtype == np.int64 and tiled.shape == z.shape and 0 <= tiled.min() <= tiled.max() < 16


@pytest.mark.slow
def test_fitted_prior_keeps_the_sizes_free(digits, tmp_path):
    """The prior knows one size of the grid. Encoder and decoder take others as before."""
    config = TrainConfig(steps=2, batch_size=20)
    run = vaezoo.train("vq-autoencoder", digits, options=SMALL, config=config, out=tmp_path / "a")
    options = {"hidden": 16, "layers": 1}
    new = vaezoo.fit_prior(run, "autoregressive", options=options, steps=2, data=digits, out=tmp_path / "b")
    result = new.export(tmp_path / "onnx")
    assert vaezoo.verify_onnx(result.path).parity and result.manifest["prior"] == "autoregressive"
    model = vaezoo.runtime.load(result.path)
    assert model.sample(2).shape == (2, 1, 28, 28)
    assert model.reconstruct(np.zeros((1, 1, 12, 40), np.float32)).shape == (1, 1, 12, 40)


def test_codes_have_no_scale():
    vae = build(options={**SMALL, "scaling_factor": 0.5})
    with pytest.raises(VaezooError, match="cannot be folded into a Codes") as e:
        FoldedVAE(vae, scaling_of_latents(vae)).encode(torch.rand(1, 3, 16, 12))
    assert e.value.hint == "leave out --fold-scaling"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"channels": ""}, "'channels' is empty"),
        ({"channels": "4,6", "norm_groups": 4}, "cannot be divided"),
        ({"latent_channels": 0}, "'latent_channels' is 0"),
        ({"scaling_factor": 0}, "'scaling_factor' is 0"),
        ({"codebook_size": 0}, "codebook_size"),
        ({"quantizer": "round"}, "no quantizer named 'round'"),
        ({"objective": "elbo"}, "vq-autoencoder cannot have objective=elbo"),
    ],
)
def test_invalid_options_are_refused(options, match):
    with pytest.raises(VaezooError, match=match) as e:
        configure(SPEC.config, options)
    assert e.value.hint


@pytest.mark.parametrize("model", ["mlp-vae", "hvae"])
def test_objective_of_codes_is_for_codes(model):
    with pytest.raises(VaezooError, match="objective=vq needs latents that are codes") as e:
        create_model(model, DataSpec(name="x", shape=(1, 8, 8)), {"objective": "vq"})
        vaezoo.registry.find_model(model).build({"objective": "vq"}, DataSpec(name="x", shape=(1, 8, 8)))
    assert e.value.hint

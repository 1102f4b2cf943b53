"""The tiny autoencoder: its arithmetic by hand, its sizes, its data and its options."""

import pytest
import torch
import torch.nn.functional as F

from vaezoo import DataSpec, TensorSplit, VaezooError
from vaezoo.core.options import configure
from vaezoo.data.base import Batch
from vaezoo.export.graphs import export_graphs
from vaezoo.export.parity import check_parity
from vaezoo.models.tiny_autoencoder import SPEC
from vaezoo.objectives.base import StepContext
from vaezoo.registry import create_model

SMALL = {"channels": 4, "blocks": "1,2,1", "latent_norm": True}


def build(shape=(3, 16, 12), options=SMALL, **data):
    torch.manual_seed(0)
    return SPEC.build(configure(SPEC.config, options), DataSpec(name="x", shape=shape, **data))


def spread(vae):
    """Makes all parameters random, the normalisations' too, so that each of them matters."""
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return vae.eval()


class Reference:
    """The program of TAESD as formulas over a state_dict."""

    def __init__(self, state):
        self.state = state

    def conv(self, name, x, **options):
        return F.conv2d(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"), **options)

    def block(self, name, x):
        if f"{name}.pool.0.weight" in self.state:
            h = self.conv(f"{name}.pool.0", x)
            groups = h.reshape(len(h), 4, -1)
            mean, variance = groups.mean(2, keepdim=True), groups.var(2, unbiased=False, keepdim=True)
            h = ((groups - mean) / (variance + 1e-5).sqrt()).view_as(h)
            weight, bias = (self.state[f"{name}.pool.1.{part}"].view(-1, 1, 1) for part in ("weight", "bias"))
            h = h * weight + bias
            x = x + self.conv(f"{name}.pool.3", h.clamp(min=0))
        h = self.conv(f"{name}.conv.0", x, padding=1).clamp(min=0)
        h = self.conv(f"{name}.conv.2", h, padding=1).clamp(min=0)
        return (x + self.conv(f"{name}.conv.4", h, padding=1)).clamp(min=0)

    def encode(self, x):  # of the blocks 1, 2, 1
        x = self.block("encoder.layers.1", self.conv("encoder.layers.0", x, padding=1))
        x = self.conv("encoder.layers.2", x, padding=1, stride=2)
        x = self.block("encoder.layers.4", self.block("encoder.layers.3", x))
        x = self.block("encoder.layers.6", self.conv("encoder.layers.5", x, padding=1, stride=2))
        return self.conv("encoder.layers.7", x, padding=1)

    def decode(self, z):
        x = self.conv("decoder.layers.0", 3 * torch.tanh(z / 3), padding=1).clamp(min=0)
        x = self.block("decoder.layers.2", x).repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = self.conv("decoder.layers.4", x, padding=1)
        x = self.block("decoder.layers.6", self.block("decoder.layers.5", x))
        x = self.conv("decoder.layers.8", x.repeat_interleave(2, 2).repeat_interleave(2, 3), padding=1)
        return self.conv("decoder.layers.10", self.block("decoder.layers.9", x), padding=1)


@torch.no_grad()
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("size", [(16, 12), (8, 20)])
def test_networks_equal_reference(size, norm):
    vae = spread(build(options={**SMALL, "latent_norm": norm}))
    pooled = {name.partition(".pool")[0] for name in vae.state_dict() if ".pool." in name}
    assert pooled == ({"encoder.layers.6", "decoder.layers.2"} if norm else set())
    reference, x = Reference(vae.state_dict()), torch.rand(2, 3, *size)
    z = vae.encode(x).mode()
    assert z.shape == (2, 4, size[0] // 4, size[1] // 4)
    torch.testing.assert_close(z, reference.encode(x), rtol=1e-4, atol=1e-4)
    z = 4 * torch.randn_like(z)  # beyond the bound of the decoder's input
    torch.testing.assert_close(vae.decode(z), reference.decode(z), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "blocks", "latents"),
    [
        ((3, 32, 32), (1, 3, 3, 3), (4, 4, 4)),
        ((1, 28, 28), (1, 3, 3), (4, 7, 7)),
        ((3, 6, 16), (1, 3), (4, 3, 8)),
        ((3, 5, 7), (1,), (4, 5, 7)),
    ],
)
def test_sides_that_cannot_be_halved_have_fewer_resolutions(shape, blocks, latents):
    data = DataSpec(name="x", shape=shape)
    assert SPEC.data_defaults(data) == {"blocks": blocks}
    vae = create_model("tiny-autoencoder", data, {"channels": 4})
    assert vae.latent_shape == latents == vae.prior.noise_shape
    x = torch.rand(2, *shape)
    assert vae.reconstruct(x).shape == vae.sample(2).shape == x.shape


def test_loss_is_the_reconstruction():
    vae, batch = build(options={**SMALL, "channels": 16}), Batch(torch.rand(3, 3, 16, 12))
    objective = SPEC.objective(configure(SPEC.config, SMALL), vae.data)
    output = objective(vae, batch, StepContext.initial())
    expected = F.binary_cross_entropy_with_logits(vae.decode(vae.encode(batch.x).z), batch.x, reduction="sum") / 3
    assert output.losses["vae"].item() == pytest.approx(expected.item(), rel=1e-5) and output.metrics["kl"] == 0
    gradients = torch.autograd.grad(output.losses["vae"], list(vae.parameters()))
    assert all(gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian-identity"])
def test_decoder_starts_at_mean(likelihood):
    vae = build(likelihood=likelihood)
    x = torch.rand(50, 3, 16, 12) * torch.tensor([0.1, 0.5, 0.9]).view(3, 1, 1)
    vae.init_from_data(TensorSplit(x, None))
    bias = vae.decoder.layers[-1].bias.detach()
    actual = torch.sigmoid(bias) if likelihood == "bernoulli" else bias
    torch.testing.assert_close(actual, x.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_exported_sizes_are_free():
    vae = build().eval()
    graphs = export_graphs(vae)
    rows, _ = check_parity(vae, graphs)
    assert sum("size 20x8" in row.inputs for row in rows) == 2  # z, x_mean
    (x,), (z,) = graphs["encoder"].signature["inputs"], graphs["decoder"].signature["inputs"]
    assert x["shape"] == ["batch", 3, "height", "width"] and x["multiples"] == {"height": 4, "width": 4}
    assert z["shape"] == ["batch", 4, "z_height", "z_width"]


@pytest.mark.parametrize(
    "options",
    [{"channels": 0}, {"blocks": ""}, {"blocks": "1,0"}, {"latent_channels": 0}, {"scaling_factor": 0}],
)
def test_invalid_options_are_refused(options):
    with pytest.raises(VaezooError) as e:
        configure(SPEC.config, options)
    assert e.value.hint

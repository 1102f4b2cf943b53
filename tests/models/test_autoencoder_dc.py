"""The deep compression autoencoder: its arithmetic against formulas, free height and width, and its options.

tests/interop compares the whole networks, and their names, with diffusers.
"""

import pytest
import torch
import torch.nn.functional as F

from vaezoo import DataSpec, VaezooError, create_model
from vaezoo.core.options import configure
from vaezoo.data.base import Batch, TensorSplit
from vaezoo.export.graphs import export_graphs
from vaezoo.export.parity import check_parity
from vaezoo.models.autoencoder_dc import SPEC
from vaezoo.nn.efficient_vit import Down, EfficientViTBlock, GatedConv, RMSNorm, Up, linear_attention
from vaezoo.objectives.base import StepContext

SMALL = {"channels": "8,16,16", "head_dim": 4, "latent_channels": 4}


def build(shape=(3, 16, 12), options=SMALL, **data):
    torch.manual_seed(0)
    return SPEC.build(configure(SPEC.config, options), DataSpec(name="x", shape=shape, **data)).eval()


def spread(vae):
    """Makes all parameters random, the normalisations' too, so that each of them matters."""
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return vae


@pytest.mark.parametrize("pixels", [3, 50])
def test_attention_is_a_weighted_mean(pixels):
    """By the weights of all pairs of pixels, which linear attention never computes."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 5, 4, pixels).unbind()
    query[0, 0, :, 1] = -1  # a pixel that resembles none
    weights = torch.einsum("bhdi,bhdj->bhij", query.relu(), key.relu())
    total = weights.sum(3, keepdim=True)
    expected = torch.einsum("bhij,bhdj->bhdi", weights / total.clamp(min=1e-30), value)
    found = linear_attention(query, key, value)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not found[0, 0, :, 1].any()


def test_attention_is_float32_under_autocast():
    torch.manual_seed(0)
    block = EfficientViTBlock(8, 4, (3,), "rms")
    x = torch.randn(2, 8, 5, 6)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        torch.testing.assert_close(block(x).float(), block.float()(x).float(), rtol=0.1, atol=0.1)


def test_root_mean_square():
    norm = RMSNorm(6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 6, 3, 4)
    expected = F.rms_norm(x.movedim(1, -1), (6,), norm.weight, 1e-5) + norm.bias
    torch.testing.assert_close(norm(x), expected.movedim(-1, 1))


def test_gate():
    block = GatedConv(2)
    spread(block)
    x = torch.randn(1, 2, 4, 4)
    wide = F.conv2d(x, block.conv_inverted.weight, block.conv_inverted.bias)
    wide = wide * torch.sigmoid(wide)
    wide = torch.cat([block.conv_depth(wide)], 1)
    h, gate = wide[:, :8], wide[:, 8:]
    torch.testing.assert_close(block(x), x + block.norm(block.conv_point(h * gate * torch.sigmoid(gate))))


@torch.no_grad()
@pytest.mark.parametrize(("inputs", "outputs"), [(4, 8), (4, 16), (8, 4), (6, 12)])
def test_shortcuts(inputs, outputs):
    """What remains of both changes of the resolution without their convolutions, pixel by pixel."""
    down, up = Down(inputs, outputs, True, shortcut=True), Up(outputs, inputs, True, shortcut=True)
    for layer in (down, up):
        layer.conv.weight.zero_()
        layer.conv.bias.zero_()
    x = torch.randn(2, inputs, 6, 4)
    squares = torch.stack([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], 2).flatten(1, 2)  # (B, 4 inputs, 3, 2)
    halved = torch.stack(squares.chunk(outputs, 1), 1).mean(2)
    torch.testing.assert_close(down(x), halved)
    doubled = up(halved)
    repeated = halved.repeat_interleave(4 * inputs // outputs, 1).view(2, inputs, 4, 3, 2)
    for place, (i, j) in enumerate((i, j) for i in (0, 1) for j in (0, 1)):
        torch.testing.assert_close(doubled[:, :, i::2, j::2], repeated[:, :, place])


@torch.no_grad()
@pytest.mark.parametrize(
    ("shape", "options", "latents"),
    [
        ((1, 28, 28), {"channels": "8,16,16", "head_dim": 4}, (8, 7, 7)),
        ((4, 8, 12), SMALL, (4, 2, 3)),
        ((3, 5, 7), {"channels": "8", "blocks": "efficient-vit", "head_dim": 8}, (8, 5, 7)),
        ((3, 8, 8), {**SMALL, "layers": "0,1,2", "decoder_layers": "0,2,1"}, (4, 2, 2)),
        ((3, 8, 8), {**SMALL, "downsample": "conv", "upsample": "interpolate"}, (4, 2, 2)),
        ((3, 8, 8), {**SMALL, "decoder_channels": "4,8,16", "decoder_norms": "batch,rms,rms"}, (4, 2, 2)),
        ((3, 8, 8), {**SMALL, "latent_channels": 3, "encoder_shortcut": False, "decoder_shortcut": False}, (3, 2, 2)),
        ((3, 8, 8), {**SMALL, "scales": "none,3+5", "decoder_activations": "relu,gelu,mish"}, (4, 2, 2)),
    ],
)
def test_latents_are_spatial(shape, options, latents):
    vae = build(shape, options)
    x = torch.rand(2, *shape)
    assert vae.latent_shape == latents and vae.encode(x).mode().shape == (2, *latents)
    assert vae.reconstruct(x).shape == vae.sample(2).shape == x.shape
    wide = torch.rand(1, shape[0], 4 * shape[1], 8 * shape[2])
    assert vae.encode(wide).mode().shape == (1, latents[0], 4 * latents[1], 8 * latents[2])
    assert vae.reconstruct(wide).shape == wide.shape


@torch.no_grad()
def test_pixels_are_signed_inside():
    unit, real = build(), build(kind="real", likelihood="gaussian")
    x = torch.rand(2, 3, 16, 12)
    torch.testing.assert_close(unit.encode(x).z, real.encode(2 * x - 1).z)
    images = build(likelihood="gaussian-identity")
    z = images.encode(x).mode()
    torch.testing.assert_close(images.decode(z), (unit.decode(z) + 1) / 2)  # the same weights


@pytest.mark.parametrize("layers", ["1", "0,1,1"])
def test_training_starts_at_the_data(layers):
    vae = build(options={**SMALL, "layers": layers})
    before = {name: parameter.detach().clone() for name, parameter in vae.named_parameters()}
    x = torch.rand(50, 3, 16, 12) * torch.tensor([0.1, 0.5, 0.9]).view(3, 1, 1)
    vae.init_from_data(TensorSplit(x, None))
    changed = [name for name, parameter in vae.named_parameters() if not torch.equal(parameter, before[name])]
    assert changed == (["decoder.conv_out.bias"] if layers == "1" else [])
    if changed:
        expected = torch.logit(x.mean((0, 2, 3)))
        torch.testing.assert_close(vae.decoder.conv_out.bias.detach(), expected, rtol=1e-4, atol=1e-4)


def test_gradient_reaches_every_parameter():
    vae = spread(build())
    objective = SPEC.objective(SPEC.config, vae.data)
    output = objective(vae, Batch(torch.rand(3, 3, 16, 12)), StepContext.initial())
    gradients = torch.autograd.grad(output.losses["vae"], list(vae.parameters()))
    for (name, _), gradient in zip(vae.named_parameters(), gradients, strict=True):
        assert gradient.abs().max() > 0, name
    terms = output.metrics
    torch.testing.assert_close(output.losses["vae"].detach(), terms["reconstruction"])
    assert terms["kl"] == 0


@pytest.mark.slow
def test_exported_sizes_are_free():
    vae = spread(build(options={**SMALL, "layers": "0,1,1", "decoder_layers": "1", "scales": "3+5"}))
    graphs = export_graphs(vae)
    check_parity(vae, graphs)
    (x,), (z,) = graphs["encoder"].signature["inputs"], graphs["decoder"].signature["inputs"]
    assert x["shape"] == ["batch", 3, "height", "width"] and x["multiples"] == {"height": 4, "width": 4}
    assert z["shape"] == ["batch", 4, "z_height", "z_width"] and "multiples" not in z


def test_defaults_fit_the_data():
    for sides, factor in (((28, 28), 4), ((64, 32), 8), ((9, 9), 1)):
        vae = create_model("autoencoder-dc", DataSpec(name="x", shape=(1, *sides)))
        assert vae.factor == factor


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"channels": ""}, "'channels' is empty"),
        ({"channels": "8,0"}, "'channels' is 0"),
        ({"decoder_channels": "8,8"}, "'decoder_channels' has 2 values"),
        ({"layers": "1,1,1,1,1"}, "'layers' has 5 values"),
        ({"layers": ""}, "'layers' has 0 values"),
        ({"layers": "1,0,1,1"}, "'layers' has 0 blocks at resolution 2"),
        ({"decoder_layers": "-1,1,1,1"}, "'decoder_layers' has -1 blocks at resolution 1"),
        ({"blocks": "dense"}, "'blocks' takes"),
        ({"scales": "4"}, "'scales' is '4'"),
        ({"scales": "5+"}, "'scales' is '5\\+'"),
        ({"decoder_norms": "layer"}, "'decoder_norms' takes"),
        ({"channels": "32,48"}, "leads from 128 channels of rearranged pixels to 48"),
        ({"channels": "8,2", "blocks": "residual", "latent_channels": 2}, "cannot make 2"),
        ({"latent_channels": 7}, "divides 128 channels into 7 groups"),
        ({"head_dim": 200}, "attention at 128 channels has no head of 200"),
        ({"scaling_factor": 0}, "'scaling_factor' is 0"),
        ({"objective": "iwae"}, "autoencoder-dc cannot have objective=iwae"),
    ],
)
def test_invalid_options_are_refused(options, match):
    with pytest.raises(VaezooError, match=match) as e:
        configure(SPEC.config, options)
    assert e.value.hint

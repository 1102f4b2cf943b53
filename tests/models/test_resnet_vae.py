"""The residual networks: sizes from 8x8 to 256x256, odd sides, labels, and the arithmetic of their blocks."""

import pytest
import torch
import torch.nn.functional as F

from vaezoo import DataSpec, UnsupportedDataError, VaezooError
from vaezoo.core.options import configure
from vaezoo.data.base import Batch, TensorSplit
from vaezoo.export.graphs import export_graphs
from vaezoo.export.parity import check_parity
from vaezoo.models.resnet_vae import SPEC
from vaezoo.nn.resnet import Downsample, ResNetBlock, Upsample
from vaezoo.objectives.elbo import elbo_terms

SMALL = {"channels": "4,8", "norm_groups": 2, "latent_dim": 3}


def build(shape, options=SMALL, **data):
    torch.manual_seed(0)
    return SPEC.build(configure(SPEC.config, options), DataSpec(name="x", shape=shape, **data))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (9, 31), (64, 48)])
def test_images_keep_their_shape(channels, size):
    vae = build((channels, *size)).eval()
    x = torch.rand(2, channels, *size)
    with torch.no_grad():
        assert vae.encode(x).mu.shape == (2, 3)
        assert vae.reconstruct(x).shape == x.shape == vae.sample(2).shape


@pytest.mark.parametrize(("side", "channels"), [(8, [16]), (28, [16, 32]), (256, [16, 32, 64, 128, 128, 128])])
def test_depth_follows_image_size(side, channels):
    with torch.device("meta"):
        vae = build((3, side, side), {})
    halvings = [layer.conv.out_channels for layer in vae.modules() if isinstance(layer, Downsample)]
    doublings = [layer.conv.out_channels for layer in vae.modules() if isinstance(layer, Upsample)]
    assert halvings == channels
    assert doublings == [*reversed([*channels[1:], channels[-1]])]
    assert vae.decode(torch.zeros(2, 16, device="meta")).shape == (2, 3, side, side)


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("condition", ["none", "labels"])
def test_gradient_reaches_every_parameter(condition, blocks):
    options = {**SMALL, "condition": condition, "blocks": blocks}
    vae = build((2, 9, 12), options, kind="real", likelihood="gaussian", classes=(3, 2))
    batch = Batch(torch.randn(4, 2, 9, 12), torch.tensor([[0, 0], [1, 1], [2, 0], [0, 1]]))
    terms = elbo_terms(vae, batch)
    gradients = torch.autograd.grad((terms.reconstruction + terms.kl_terms.sum(1)).mean(), list(vae.parameters()))
    for (name, _), gradient in zip(vae.named_parameters(), gradients, strict=True):
        assert gradient.abs().max() > 0, name


def test_labels_change_both_networks():
    vae = build((1, 8, 8), {**SMALL, "condition": "labels"}, classes=(10,)).eval()
    x, z = torch.rand(2, 1, 8, 8), torch.randn(2, 3)
    y, other = torch.tensor([3, 4]), torch.tensor([3, 5])
    for a, b in ((vae.encode(x, y).mu, vae.encode(x, other).mu), (vae.decode(z, y), vae.decode(z, other))):
        torch.testing.assert_close(a[0], b[0])
        assert (a[1] - b[1]).abs().max() > 1e-4


def test_examples_are_independent():
    vae = build((3, 9, 12)).eval()
    x = torch.rand(5, 3, 9, 12)
    with torch.no_grad():
        single = torch.cat([vae.reconstruct(row) for row in x.split(1)])
        torch.testing.assert_close(vae.reconstruct(x), single, rtol=0, atol=1e-6)


@pytest.mark.parametrize("out_channels", [6, 8])
def test_block_equals_formula(out_channels):
    torch.manual_seed(0)
    block = ResNetBlock(6, out_channels, 2)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    weights = dict(block.named_parameters())

    def layer(h, i):
        groups = h.reshape(3, 2, -1)  # a group holds half the channels, over all pixels
        mean, variance = groups.mean(2, keepdim=True), groups.var(2, unbiased=False, keepdim=True)
        h = ((groups - mean) / (variance + 1e-6).sqrt()).view_as(h)
        h = h * weights[f"norm{i}.weight"].view(-1, 1, 1) + weights[f"norm{i}.bias"].view(-1, 1, 1)
        return F.conv2d(h * torch.sigmoid(h), weights[f"conv{i}.weight"], weights[f"conv{i}.bias"], padding=1)

    x = torch.randn(3, 6, 5, 4)
    shortcut = x
    if out_channels != 6:
        matrix, bias = weights["conv_shortcut.weight"].flatten(1), weights["conv_shortcut.bias"]
        shortcut = torch.einsum("oc,bchw->bohw", matrix, x) + bias.view(-1, 1, 1)
    torch.testing.assert_close(block(x), shortcut + layer(layer(x, 1), 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 7)])
def test_resampling_pads_and_repeats(height, width):
    down, up = Downsample(2), Upsample(2, (height, width))
    x = torch.randn(3, 2, height, width)
    padded = torch.zeros(3, 2, height + 1, width + 1)
    padded[:, :, :height, :width] = x
    torch.testing.assert_close(down(x), F.conv2d(padded, down.conv.weight, down.conv.bias, stride=2))
    assert down(x).shape == (3, 2, height // 2, width // 2)

    coarse = torch.randn(3, 2, height // 2, width // 2)
    rows, columns = torch.arange(height) * (height // 2) // height, torch.arange(width) * (width // 2) // width
    torch.testing.assert_close(up(coarse), up.conv(coarse[:, :, rows][:, :, :, columns]))
    if height % 2 == 0:
        free = Upsample(2)
        free.load_state_dict(up.state_dict())
        torch.testing.assert_close(up(coarse), free(coarse))


def test_decoder_starts_at_mean():
    vae = build((2, 8, 8))
    x = torch.rand(50, 2, 8, 8) * torch.tensor([0.1, 0.9]).view(2, 1, 1)
    vae.init_from_data(TensorSplit(x, None))
    expected = torch.logit(x.mean((0, 2, 3)))
    torch.testing.assert_close(vae.decoder[-1].bias.detach(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_export_equals_model():
    vae = build((3, 9, 12), {**SMALL, "condition": "labels"}, classes=(3,)).eval()
    rows, _ = check_parity(vae, export_graphs(vae))
    assert {row.graph for row in rows} == {"encoder", "decoder", "round trip"}


@pytest.mark.parametrize(
    "data", [{"shape": (1, 7, 7)}, {"shape": (1, 28, 7)}, {"shape": (1, 257, 257)}, {"shape": (9,)}]
)
def test_unsupported_data_are_refused(data):
    with pytest.raises(UnsupportedDataError, match="8x8 to 256x256"):
        build(**data)


@pytest.mark.parametrize(
    "options",
    [
        {"latent_dim": 0},
        {"blocks": 0},
        {"norm_groups": 0},
        {"norm_groups": 3},
        {"channels": "0", "norm_groups": 1},
        {"channels": "4,6", "norm_groups": 4},
        {"channels": "8,8,8,8"},
    ],
)
def test_invalid_options_are_refused(options):
    with pytest.raises(VaezooError) as e:
        build((1, 8, 8), options)
    assert e.value.hint

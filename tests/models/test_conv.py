"""The convolutional networks: sizes from 8x8 to 256x256, odd sides, any channels."""

import pytest
import torch
import torch.nn.functional as F

from vaezoo import DataSpec, UnsupportedDataError, VaezooError, create_model
from vaezoo.errors import PluginError
from vaezoo.nn.conv import conv_channels
from vaezoo.nn.strided import Upsample2x


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 33, 45), (2, 9, 31), (3, 64, 48), (3, 256, 256)]
)
@pytest.mark.parametrize("name", ["conv-vae", "beta-vae", "vae-gan"])
def test_images_keep_their_shape(name, shape):
    vae = create_model(name, DataSpec(name="x", shape=shape), {"latent_dim": 3}).eval()
    x = torch.rand(2, *shape)
    with torch.no_grad():
        assert vae.encode(x).mu.shape == (2, 3)
        assert vae.reconstruct(x).shape == x.shape == vae.sample(2).shape


@pytest.mark.parametrize(
    ("side", "channels"),
    [(8, (32,)), (28, (32, 64)), (32, (32, 64, 128)), (64, (32, 64, 128, 256)), (256, (32, 64, 128, 256, 256, 256))],
)
def test_depth_follows_image_size(side, channels):
    assert conv_channels(DataSpec(name="x", shape=(1, side, side)), ()) == channels


# The numbers are older than the options strides, kernel_size and dense. A seed must still give the same network.
@pytest.mark.parametrize(
    ("name", "shape", "options", "weights", "images"),
    [
        ("conv-vae", (1, 28, 28), {}, 9128.790812, 1167.090184),
        ("vae-gan", (1, 28, 28), {}, 9128.790812, 1167.090184),
        ("beta-vae", (3, 33, 45), {"latent_dim": 5}, 9475.550947, 6583.717556),
        ("conv-vae", (1, 64, 64), {"channels": "8,16,24"}, 4481.727710, 6800.468871),
    ],
)
def test_default_networks_never_change(name, shape, options, weights, images):
    torch.manual_seed(3)
    vae = create_model(name, DataSpec(name="x", shape=shape), options).eval()
    state = vae.state_dict()
    depth = len(options.get("channels", "32,64,128" if shape[0] == 3 else "32,64").split(","))
    encoder = [2 * i for i in range(depth)] + [2 * depth + 1]
    decoder = [0] + [3 + 2 * i for i in range(depth)]
    numbers = [("encoder", i) for i in encoder] + [("decoder", i) for i in decoder]
    assert list(state) == [f"{network}.{i}.{kind}" for network, i in numbers for kind in ("weight", "bias")]
    with torch.no_grad():
        y = vae.reconstruct(torch.rand(3, *shape, generator=torch.Generator().manual_seed(1)))
    assert sum(float(v.double().abs().sum()) for v in state.values()) == pytest.approx(weights, rel=1e-8)
    assert float(y.double().sum()) == pytest.approx(images, rel=1e-5)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 33, 45), (2, 9, 31)])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},
        {"kernel_size": 3, "channels": "4,6,8,8", "strides": "1,2,1,1", "dense": "10"},
        {"channels": "4,6", "dense": "12,10"},
        {"kernel_size": 3, "channels": "4,6", "strides": "2,1"},
        {"kernel_size": 3, "channels": "4,6,8", "strides": "1,2,2", "dense": "10", "activation": "gated"},
        {"activation": "tanh"},
    ],
)
def test_other_options_keep_shape(options, shape):
    vae = create_model("conv-vae", DataSpec(name="x", shape=shape), options)
    x = torch.rand(2, *shape)
    for training in (True, False):
        assert vae.train(training).reconstruct(x).shape == x.shape


def test_decoder_mirrors_encoder():
    options = {"channels": "32,64,64,64", "strides": "1,2,1,1", "kernel_size": 3, "dense": "32,8", "latent_dim": 2}
    vae = create_model("conv-vae", DataSpec(name="x", shape=(1, 28, 28)), options)
    layers = [m for m in vae.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.Linear)]
    assert [m.weight.shape[1 - m.transposed] if hasattr(m, "transposed") else m.in_features for m in layers] == [
        *(1, 32, 64, 64, 64 * 14 * 14, 32, 8),
        *(2, 8, 32, 64, 64, 64, 32),
    ]
    assert [m.stride for m in layers if hasattr(m, "stride")] == [(s, s) for s in (1, 2, 1, 1, 1, 1, 2, 1)]


def test_gated_convolution_multiplies_by_sigmoid():
    vae = create_model("conv-vae", DataSpec(name="x", shape=(1, 28, 28)), {"channels": "4,6", "activation": "gated"})
    x = torch.randn(2, 1, 28, 28)
    first, gate = vae.encoder[0], vae.encoder[1]
    (w, v), (b, c) = first.weight.chunk(2), first.bias.chunk(2)
    expected = F.conv2d(x, w, b, 2, 1) * torch.sigmoid(F.conv2d(x, v, c, 2, 1))
    torch.testing.assert_close(gate(first(x)), expected)
    assert [m.out_channels for m in vae.decoder if isinstance(m, Upsample2x)] == [8, 1]
    assert sum(isinstance(m, torch.nn.GLU) for m in vae.modules()) == 4  # two in the encoder, two in the decoder


@pytest.mark.parametrize("network", ["encoder", "decoder"])
@pytest.mark.parametrize(("activation", "layer"), [("silu", torch.nn.SiLU), ("softplus", torch.nn.Softplus)])
def test_activation_follows_hidden_layers(network, activation, layer):
    options = {"channels": "4,6", "dense": "5", "activation": activation}
    layers = getattr(create_model("beta-vae", DataSpec(name="x", shape=(1, 28, 28)), options), network)
    assert sum(isinstance(m, layer) for m in layers) == 3
    assert not any(isinstance(m, torch.nn.ReLU) for m in layers)


def test_channels_option():
    vae = create_model("conv-vae", DataSpec(name="x", shape=(1, 28, 28)), {"channels": "8,16,24"})
    convolutions = [m.out_channels for m in vae.encoder.modules() if isinstance(m, torch.nn.Conv2d)]
    assert convolutions == [8, 16, 24]


@pytest.mark.parametrize("shape", [(1, 7, 7), (1, 28, 7), (1, 257, 257), (784,)])
def test_unsupported_data_are_refused(shape):
    with pytest.raises(UnsupportedDataError) as e:
        create_model("conv-vae", DataSpec(name="x", shape=shape))
    assert "8x8 to 256x256" in e.value.message and "mlp-vae" in e.value.hint


@pytest.mark.parametrize(
    "options",
    [
        {"channels": "8,8,8,8,8"},
        {"channels": "0"},
        {"latent_dim": 0},
        {"latent_dim": "-1"},
        {"strides": "2"},
        {"channels": "8,8", "strides": "2,3"},
        {"channels": "8,8", "strides": "2,1"},
        {"kernel_size": 5},
        {"dense": 0},
    ],
)
def test_invalid_options_are_refused(options):
    with pytest.raises(VaezooError) as e:
        create_model("conv-vae", DataSpec(name="x", shape=(1, 28, 28)), options)
    assert not isinstance(e.value, PluginError)  # which would mean that the error was not expected


@pytest.mark.parametrize("out_channels", [1, 3])
@pytest.mark.parametrize("output_padding", [(0, 0), (1, 0), (1, 1)])
@pytest.mark.parametrize("kernel_size", [3, 4])
def test_upsample_equals_transposed_convolution(out_channels, output_padding, kernel_size):
    torch.manual_seed(0)
    layer = Upsample2x(5, out_channels, output_padding, kernel_size)
    x = torch.randn(3, 5, 4, 6, requires_grad=True)
    results = []
    for training in (True, False):
        y = layer.train(training)(x)
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])])
    assert results[0][0].shape == (
        *(3, out_channels),
        *(4 + kernel_size + output_padding[0], 8 + kernel_size + output_padding[1]),
    )
    for trained, evaluated in zip(*results, strict=True):
        torch.testing.assert_close(trained, evaluated, rtol=1e-4, atol=1e-4)

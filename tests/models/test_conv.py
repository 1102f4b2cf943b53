"""The convolutional networks: any size from 8x8 to 256x256, any channels, odd sides too."""

import pytest
import torch

from vaezoo import DataSpec, UnsupportedDataError, VaezooError, create
from vaezoo.nn import Doubling, picture_channels


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 33, 45), (2, 9, 31), (3, 64, 48), (3, 256, 256)]
)
@pytest.mark.parametrize("name", ["conv-vae", "beta-vae", "vae-gan"])
def test_pictures_keep_their_shape(name, shape):
    vae = create(name, DataSpec(name="x", shape=shape), {"latent_dim": 3}).eval()
    x = torch.rand(2, *shape)
    with torch.no_grad():
        assert vae.encode(x).mu.shape == (2, 3)
        assert vae.reconstruct(x).shape == x.shape == vae.sample(2).shape


@pytest.mark.parametrize(
    ("side", "channels"),
    [(8, (32,)), (28, (32, 64)), (32, (32, 64, 128)), (64, (32, 64, 128, 256)), (256, (32, 64, 128, 256, 256, 256))],
)
def test_the_depth_follows_from_the_size(side, channels):
    assert picture_channels(DataSpec(name="x", shape=(1, side, side)), ()) == channels


def test_channels_can_be_given():
    vae = create("conv-vae", DataSpec(name="x", shape=(1, 28, 28)), {"channels": "8,16,24"})
    convolutions = [m.out_channels for m in vae.encoder.modules() if isinstance(m, torch.nn.Conv2d)]
    assert convolutions == [8, 16, 24]


@pytest.mark.parametrize("shape", [(1, 7, 7), (1, 28, 7), (1, 257, 257), (784,)])
def test_other_data_are_refused_with_a_way_out(shape):
    with pytest.raises(UnsupportedDataError) as e:
        create("conv-vae", DataSpec(name="x", shape=shape))
    assert "8x8 to 256x256" in e.value.message and "mlp-vae" in e.value.hint


@pytest.mark.parametrize(
    "options", [{"channels": "8,8,8,8,8"}, {"channels": "0"}, {"latent_dim": 0}, {"latent_dim": "-1"}]
)
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(VaezooError):
        create("conv-vae", DataSpec(name="x", shape=(1, 28, 28)), options)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("odd", [(0, 0), (1, 0), (1, 1)])
def test_doubling_is_a_transposed_convolution_in_training_as_in_evaluation(outputs, odd):
    torch.manual_seed(0)
    layer = Doubling(5, outputs, odd)
    x = torch.randn(3, 5, 4, 6, requires_grad=True)
    results = []
    for training in (True, False):
        y = layer.train(training)(x)
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])])
    assert results[0][0].shape == (3, outputs, 8 + odd[0], 12 + odd[1])
    for trained, evaluated in zip(*results, strict=True):
        torch.testing.assert_close(trained, evaluated, rtol=1e-4, atol=1e-4)

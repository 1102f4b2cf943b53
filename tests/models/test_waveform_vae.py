"""waveform-vae: its depth, and what it refuses."""

import pytest
import torch
from torch import nn

from vaezoo import DataSpec, UnsupportedDataError, create_model
from vaezoo.nn.activations import Snake


def build(shape, likelihood="gaussian"):
    return create_model("waveform-vae", DataSpec(name="x", shape=shape, kind="real", likelihood=likelihood))


@pytest.mark.parametrize(
    ("length", "channels"), [(16, [16]), (64, [16, 32]), (256, [16, 32, 64]), (8_192, [16, 32, 64, 128])]
)
def test_depth_follows_length(length, channels):
    with torch.device("meta"):
        vae = build((1, length))
    convolutions = [m for m in vae.modules() if isinstance(m, nn.Conv1d)]
    assert [m.out_channels for m in convolutions] == channels and {m.stride for m in convolutions} == {(4,)}
    assert sum(isinstance(m, Snake) for m in vae.modules()) == 2 * len(channels)


@pytest.mark.parametrize("likelihood", ["gaussian", "multi-stft"])
def test_waveforms_keep_their_shape(likelihood):
    vae, x = build((1, 1_000), likelihood).eval(), torch.randn(2, 1, 1_000)
    with torch.no_grad():
        assert vae.reconstruct(x).shape == x.shape == vae.sample(2).shape


def test_images_are_refused():
    with pytest.raises(UnsupportedDataError, match="need series"):
        build((1, 8, 8))

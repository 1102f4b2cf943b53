"""The convolutional networks of series: lengths that strides do not divide, any channels, all parts."""

import numpy as np
import pytest
import torch
from torch import nn

from vaezoo import DataSpec, UnsupportedDataError, VaezooError, create_model
from vaezoo.data.base import Batch, TensorSplit
from vaezoo.errors import PluginError
from vaezoo.export.graphs import export_graphs
from vaezoo.export.parity import check_parity
from vaezoo.objectives.elbo import elbo_terms

SMALL = {"channels": "4,6", "latent_dim": 3}


def build(shape, options=SMALL, **data):
    torch.manual_seed(0)
    return create_model(
        "conv1d-vae", DataSpec(name="x", shape=shape, kind="real", likelihood="gaussian", **data), options
    )


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("length", [8, 9, 13, 32, 100, 257])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel_size": 3},
        {"kernel_size": 5, "channels": "4,6", "strides": "3,1"},
        {"kernel_size": 13, "channels": "4", "strides": "7", "dense": "12,10"},
        {"kernel_size": 6, "channels": "4,4", "strides": "1,2", "activation": "gated"},
    ],
)
def test_series_keep_their_shape(channels, length, options):
    vae = build((channels, length), {"latent_dim": 3, **options}).eval()
    x = torch.randn(2, channels, length)
    with torch.no_grad():
        assert vae.encode(x).mu.shape == (2, 3)
        assert vae.reconstruct(x).shape == x.shape == vae.sample(2).shape


@pytest.mark.parametrize(
    ("length", "channels"),
    [(8, [32]), (15, [32]), (16, [32, 64]), (32, [32, 64, 128]), (1000, [32, 64, 128, *[256] * 4])],
)
def test_depth_follows_length(length, channels):
    with torch.device("meta"):
        vae = build((2, length), {})
    assert [m.out_channels for m in vae.modules() if isinstance(m, nn.Conv1d)] == channels
    decoder = [m.out_channels for m in vae.modules() if isinstance(m, nn.ConvTranspose1d)]
    assert decoder == [*channels[-2::-1], 2]


@pytest.mark.parametrize("length", range(24, 36))
@pytest.mark.parametrize("kernel_size", [5, 6])
def test_every_step_reaches_the_code(kernel_size, length):
    """No step is left out, also where the strides do not divide the length."""
    options = {**SMALL, "strides": "3,2", "kernel_size": kernel_size, "activation": "tanh"}
    vae = build((1, length), options).eval()
    x = torch.randn(1, 1, length, requires_grad=True)
    (gradient,) = torch.autograd.grad(vae.encode(x).mu.sum(), x)
    assert (gradient != 0).all()
    assert (vae.decode(torch.randn(2, 3)).diff(dim=0) != 0).all()


@pytest.mark.parametrize("condition", ["none", "labels", "inferred"])
def test_gradient_reaches_every_parameter(condition):
    options = {**SMALL, "condition": condition, **({"objective": "m2"} if condition == "inferred" else {})}
    vae = build((2, 21), options, classes=(3,))
    terms = elbo_terms(vae, Batch(torch.randn(6, 2, 21), torch.tensor([0, 1, 2, 0, 1, 2])))
    gradients = torch.autograd.grad((terms.reconstruction + terms.kl_terms.sum(1)).mean(), list(vae.parameters()))
    for (name, _), gradient in zip(vae.named_parameters(), gradients, strict=True):
        assert gradient.abs().max() > 0, name


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"posterior": "iaf", "prior": "realnvp"},
        {"prior": "vamp", "prior.components": 5},
        {"posterior": "full", "objective": "iwae", "objective.k": 3},
        {"posterior": "delta", "prior": "zero-kl"},
        {"condition": "labels", "prior": "conditional"},
        {"kernel_size": 7, "strides": "3,4", "dense": "7", "activation": "gated"},
    ],
)
def test_exports_are_equal(options):
    vae = build((2, 37), {**SMALL, **options}, classes=(3,)).eval()
    rows, _ = check_parity(vae, export_graphs(vae))
    assert {"encoder", "decoder"} <= {row.graph for row in rows}


def test_output_bias_starts_at_the_mean():
    vae = build((2, 11))
    x = torch.randn(20, 2, 11) + torch.tensor([3.0, -5.0]).view(1, 2, 1)
    vae.init_from_data(TensorSplit(x, None))
    np.testing.assert_allclose(vae.decoder[-1].bias.detach(), x.mean((0, 2)), rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 7), (28,), (1, 28, 28)])
def test_other_data_are_refused(shape):
    with pytest.raises(UnsupportedDataError, match="at least 8 steps") as e:
        build(shape)
    assert "mlp-vae" in e.value.hint


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": "8,8,8,8,8"}, "too short for 5 convolutions"),
        ({"channels": ",".join("4" * 12), "strides": ",".join("1" * 12)}, "too short for 12 convolutions"),
        ({"channels": "0"}, "channels"),
        ({"latent_dim": 0}, "latent_dim"),
        ({"strides": "2"}, "'strides' has 1 values"),
        ({"channels": "8", "strides": "0"}, "strides"),
        ({"channels": "8", "strides": "3"}, "a stride of 3 leaves out steps"),
        ({"kernel_size": 2}, "a stride of 2 leaves out steps"),
        ({"dense": "0"}, "dense"),
    ],
)
def test_invalid_options_are_refused(options, words):
    with pytest.raises(VaezooError) as e:
        build((1, 12), options)
    assert words in e.value.message and e.value.hint and not isinstance(e.value, PluginError)

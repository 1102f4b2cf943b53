"""The dense networks."""

import pytest
import torch

from vaezoo import DataSpec, create_model
from vaezoo.nn.mlp import mlp_layers


def test_gated_layer_multiplies_by_sigmoid():
    first, gate, last = mlp_layers((5, 3, 2), "gated")
    x = torch.randn(4, 5)
    w, v = first.weight.chunk(2)
    b, c = first.bias.chunk(2)
    torch.testing.assert_close(gate(first(x)), (x @ w.T + b) * torch.sigmoid(x @ v.T + c))
    assert (last.in_features, last.out_features) == (3, 2)


@pytest.mark.parametrize("activation", ["relu", "gated"])
def test_decoder_mirrors_encoder(activation):
    vae = create_model("mlp-vae", DataSpec(name="x", shape=(1, 4, 5)), {"hidden": "7,6", "activation": activation})
    sizes = [m.in_features for m in vae.modules() if isinstance(m, torch.nn.Linear)]
    assert sizes == [20, 7, 6, 20, 6, 7]

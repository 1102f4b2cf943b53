"""Activations that are modules of their own: snake."""

import numpy as np
import pytest
import torch

from vaezoo import Batch, DataSpec, create_model
from vaezoo.nn.activations import Snake, make_activation


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 7), (5, 3, 4, 4)], ids=str)
def test_snake_by_hand(shape):
    torch.manual_seed(0)
    snake, x = make_activation("snake", 3).double(), 3 * torch.randn(shape, dtype=torch.float64)
    assert isinstance(snake, Snake)
    with torch.no_grad():
        snake.frequency.copy_(torch.tensor([0.5, 1.0, 3.0]))
    a = np.array([0.5, 1.0, 3.0]).reshape(-1, *[1] * (len(shape) - 2))
    expected = x.numpy() + np.sin(a * x.numpy()) ** 2 / a
    np.testing.assert_allclose(snake(x).detach().numpy(), expected, rtol=1e-7)
    with torch.no_grad():
        snake.frequency.zero_()
    assert torch.equal(snake(x), x)


@pytest.mark.parametrize(("model", "shape"), [("mlp-vae", (12,)), ("conv-vae", (1, 8, 8)), ("conv1d-vae", (2, 16))])
def test_frequencies_are_trained(model, shape):
    vae = create_model(model, DataSpec(name="x", shape=shape), {"activation": "snake"})
    x = torch.rand(3, *shape)
    output = vae(vae.infer(Batch(x)), Batch(x))
    (output.params.square().sum() + output.kl_terms.sum()).backward()
    frequencies = [p for name, p in vae.named_parameters() if name.endswith("frequency")]
    assert frequencies and all(p.grad is not None and p.grad.abs().sum() > 0 for p in frequencies)

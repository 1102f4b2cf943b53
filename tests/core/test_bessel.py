"""log_bessel against mpmath, in value and gradients."""

import mpmath
import pytest
import torch

from vaezoo.core.bessel import log_bessel

ORDERS = [0, 0.5, 1, 4.5, 11.5, 12, 31, 127.5]
XS = [1e-6, 1e-3, 0.1, 1, 5.5, 30, 400, 2e4, 1e6]


def exact(order, x):
    """log(I_v(x) exp(-x) / x^v), the ratio of the next order, and the derivative of this ratio."""
    with mpmath.workdps(60):
        v, x = mpmath.mpf(order), mpmath.mpf(x)
        value = mpmath.besseli(v, x)
        ratio = mpmath.besseli(v + 1, x) / value
        slope = 1 - ratio**2 - (2 * v + 1) / x * ratio
        return [float(t) for t in (mpmath.log(value) - x - v * mpmath.log(x), ratio, slope)]


@pytest.mark.parametrize("order", ORDERS)
def test_value_and_gradients(order):
    x = torch.tensor(XS, dtype=torch.float64, requires_grad=True)
    value, ratio = log_bessel(order, x)
    (gradient,) = torch.autograd.grad(value.sum(), x, retain_graph=True)
    (slope,) = torch.autograd.grad(ratio.sum(), x)
    expected = torch.tensor([exact(order, x) for x in XS], dtype=torch.float64)
    torch.testing.assert_close(value, expected[:, 0], rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(ratio, expected[:, 1], rtol=1e-7, atol=0)
    torch.testing.assert_close(gradient, expected[:, 1] - 1, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(slope, expected[:, 2], rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("order", ORDERS)
def test_float32(order):
    x = torch.tensor([0.0, *XS], requires_grad=True)
    value, ratio = log_bessel(order, x)
    exact_value, exact_ratio = log_bessel(order, x.double())
    torch.testing.assert_close(value, exact_value.float(), rtol=3e-7, atol=3e-5)
    torch.testing.assert_close(ratio, exact_ratio.float(), rtol=2e-6, atol=0)
    assert ratio[0] == 0
    assert torch.autograd.grad(value.sum() + ratio.sum(), x)[0].isfinite().all()

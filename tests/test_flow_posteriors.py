"""Planar and radial flows: their determinants against autograd's Jacobian, in float64."""

import pytest
import torch

from vaezoo.errors import VaezooError
from vaezoo.posteriors.planar import PlanarFlow, PlanarPart
from vaezoo.posteriors.radial import RadialFlow, RadialPart

SIZES = {PlanarFlow: lambda n, steps: steps * (2 * n + 1), RadialFlow: lambda n, steps: steps * (n + 2)}


def jacobians(flow, z, context):
    """Returns dz'/dz of each row, `(B, n, n)`."""
    columns = torch.func.vmap(torch.func.jacrev(lambda z, context: flow(z[None], context[None])[0][0]), in_dims=(0, 0))
    return columns(z, context)


@pytest.mark.parametrize("flow_type", [PlanarFlow, RadialFlow])
@pytest.mark.parametrize(("n", "steps"), [(1, 2), (2, 1), (5, 3)])
@pytest.mark.parametrize("scale", [0.3, 4.0])
def test_determinant(flow_type, n, steps, scale):
    """The flow is invertible at every parameter: the determinant is positive, also where the constraint acts."""
    generator = torch.Generator().manual_seed(0)
    context = scale * torch.randn(200, SIZES[flow_type](n, steps), generator=generator, dtype=torch.float64)
    z = torch.randn(200, n, generator=generator, dtype=torch.float64)
    flow = flow_type(n, steps)
    sign, expected = torch.linalg.slogdet(jacobians(flow, z, context))
    assert (sign == 1).all()
    torch.testing.assert_close(flow(z, context)[1], expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("flow_type", [PlanarFlow, RadialFlow])
def test_line_keeps_its_order(flow_type):
    """In one dimension an invertible flow is monotonic, whatever its parameters."""
    torch.manual_seed(0)
    line = torch.linspace(-8, 8, 2001, dtype=torch.float64)[:, None]
    flow = flow_type(1, 1)
    for _ in range(50):
        context = 5 * torch.randn(1, SIZES[flow_type](1, 1), dtype=torch.float64)
        mapped = flow(line, context.expand(len(line), -1))[0]
        assert (mapped.diff(dim=0) > 0).all()


def test_planar_is_bounded_at_small_w():
    """Without the shift of m, u would be -0.31 w / |w|^2."""
    n = 3
    u, w, b = torch.ones(1, n), torch.full((1, n), 1e-4), torch.ones(1, 1)
    z = torch.zeros(1, n)
    moved = PlanarFlow(n, 1)(z, torch.cat([u, w, b], 1))[0]
    assert 0 < moved.norm() < (torch.tanh(b) * u).norm()
    none = PlanarFlow(n, 1)(z, torch.cat([u, 0 * w, b], 1))
    assert none[0].isfinite().all() and none[1].abs().max() < 1e-6


@pytest.mark.parametrize("part", [PlanarPart(steps=3), RadialPart(steps=3)])
def test_parameters_come_from_the_encoder(part):
    """Each example has its own flow, and gradients reach the encoder."""
    head = part.head((4,))
    h = (0.3 * torch.randn(5, *head.inputs)).requires_grad_()
    assert not list(head.parameters())
    z, log_q = head(h).rsample_and_log_prob()
    (gradient,) = torch.autograd.grad((z.square().sum(1) + log_q).sum(), h)
    assert (gradient.abs() > 0).all()


@pytest.mark.parametrize("part", [PlanarPart, RadialPart])
def test_bad_options(part):
    with pytest.raises(VaezooError, match=r"posterior\.steps"):
        part(steps=0)
    with pytest.raises(VaezooError, match="needs a latent vector"):
        part().head((4, 2, 2))

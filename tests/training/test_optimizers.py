"""The optimizers against PyTorch's own, in float64, and the steps that they leave out."""

import pytest
import torch

from vaezoo import TrainConfig
from vaezoo.training import optimizers
from vaezoo.training.optimizers import FLUSH_EVERY, RULES, Optimizer, StepScalars

PYTORCH = {"adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop", "adamax": "Adamax"}
BAD, GOOD = torch.tensor(1.0), torch.tensor(0.0)


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(n, generator=generator, dtype=torch.float64)) for n in (7, 3)]


def gradients(step):
    generator = torch.Generator().manual_seed(100 + step)
    return [torch.randn(n, generator=generator, dtype=torch.float64) * 10.0**-step for n in (7, 3)]


def scalars(lr, number):
    return StepScalars(*torch.tensor(StepScalars.values(1.0, lr, number), dtype=torch.float64).unbind())


@pytest.fixture(params=["fused", "rule"])
def form(request, monkeypatch):
    """Both forms: the fused kernels, and the rules that are compiled."""
    if request.param == "rule":
        monkeypatch.setattr(optimizers, "FUSED", {})


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", RULES)
def test_optimizer_equals_pytorch(name, decay, form):
    actual, expected = parameters(), parameters()
    optimizer = Optimizer(actual, TrainConfig(optimizer=name, weight_decay=decay))
    reference = getattr(torch.optim, PYTORCH[name])(expected, lr=1.0, weight_decay=decay)
    for step in range(6):
        lr = 0.1 / (step + 1)
        optimizer.update(gradients(step), scalars(lr, step), GOOD)
        reference.param_groups[0]["lr"] = lr
        for p, g in zip(expected, gradients(step), strict=True):
            p.grad = g
        reference.step()
        for a, b in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", RULES)
def test_skipped_step_changes_nothing(name, form):
    params = parameters()
    optimizer = Optimizer(params, TrainConfig(optimizer=name))
    optimizer.update(gradients(0), scalars(0.1, 0), GOOD)
    before = [t.clone() for p, s in zip(params, optimizer.state, strict=True) for t in (p.detach(), *s.values())]
    optimizer.update([g * float("nan") for g in gradients(1)], scalars(0.1, 1), BAD)
    after = [t for p, s in zip(params, optimizer.state, strict=True) for t in (p.detach(), *s.values())]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", RULES)
def test_missing_gradient_changes_nothing(name, form):
    params = parameters()
    before = params[1].detach().clone()
    Optimizer(params, TrainConfig(optimizer=name, weight_decay=0.1)).update(
        [gradients(0)[0], None], scalars(0.1, 0), GOOD
    )
    assert torch.equal(params[1], before)
    assert not torch.equal(params[0], parameters()[0])


@pytest.mark.parametrize("name", RULES)
def test_state_is_flushed_to_zero(name, form):
    params = [torch.nn.Parameter(torch.ones(4))]
    optimizer = Optimizer(params, TrainConfig(optimizer=name))
    for step in range(2_000):
        if step % FLUSH_EVERY == 0:
            optimizer.flush_denormals()
        gradient = torch.full((4,), 1.0 if step < 5 else 0.0)
        optimizer.update([gradient], StepScalars(*torch.tensor(StepScalars.values(1.0, 1e-3, step)).unbind()), GOOD)
    for values in optimizer.state[0].values():
        assert (values[values != 0].abs() > 1.2e-38).all()
    assert params[0].isfinite().all()


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", RULES)
def test_gradient_memory_order_is_free(name, order, form):
    generator = torch.Generator().manual_seed(0)
    p, g = (torch.randn(4, 3, 2, 2, generator=generator) for _ in range(2))
    actual = torch.nn.Parameter(p.clone().contiguous(memory_format=order))
    Optimizer([actual], TrainConfig(optimizer=name)).update(
        [g.transpose(0, 3).contiguous().transpose(0, 3)], scalars(0.1, 0), GOOD
    )
    expected = torch.nn.Parameter(p.clone())
    expected.grad = g
    getattr(torch.optim, PYTORCH[name])([expected], lr=0.1, weight_decay=0).step()
    torch.testing.assert_close(actual, expected)

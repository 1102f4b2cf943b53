"""Checks of a training: parameter groups, losses, metrics, learning, precision, and the guard against NaN."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from vaezoo.data.base import Batch
from vaezoo.objectives.base import Objective
from vaezoo.objectives.elbo import elbo_terms
from vaezoo.testing.examples import TRAIN_SIZE, Spec, build_example, compute_losses
from vaezoo.training.config import TrainConfig
from vaezoo.training.train_step import TrainStep
from vaezoo.vae import VAE

TRAIN_STEPS = 40  # enough for every group to change, and short enough for a check of a second


def check_groups(spec: Spec) -> None:
    """The parameter groups are disjoint and together hold every parameter of model and objective."""
    vae, objective, _ = build_example(spec)
    names = {id(p): name for module in (vae, objective) for name, p in module.named_parameters()}
    grouped = [id(p) for group in objective.parameter_groups(vae).values() for p in group]
    repeated = {names.get(i, "a tensor of neither model nor objective") for i in grouped if grouped.count(i) > 1}
    missing = {name for i, name in names.items() if i not in grouped}
    advice = "List each parameter once in parameter_groups."
    assert not repeated, f"parameters in more than one group: {', '.join(sorted(repeated))}. {advice}"
    assert not missing, f"parameters in no group: {', '.join(sorted(missing))}. {advice}"


def check_losses(spec: Spec) -> None:
    """Each loss is a finite scalar, belongs to a parameter group, and depends on that group."""
    vae, objective, batch = build_example(spec)
    output = compute_losses(vae, objective, batch)
    groups = objective.parameter_groups(vae)
    assert output.losses, "the objective returns no loss. Return one for at least one parameter group."
    for name, loss in output.losses.items():
        assert name in groups, f"loss '{name}' has no parameter group. Name it after one of {', '.join(groups)}."
        is_finite_scalar = loss.shape == () and bool(loss.isfinite())
        assert is_finite_scalar, f"loss '{name}' is not a finite scalar. Average it over the batch. Avoid inf and NaN."
        gradients = torch.autograd.grad(loss, groups[name], retain_graph=True, allow_unused=True)
        depends = any(g is not None and bool(g.abs().sum() > 0) for g in gradients)
        assert depends, f"loss '{name}' does not depend on its group: the gradient is zero. Look for a detach()."


def check_metrics(spec: Spec) -> None:
    """The metrics elbo, reconstruction and kl are detached scalars with elbo = -(reconstruction + kl)."""
    vae, objective, batch = build_example(spec)
    metrics = compute_losses(vae, objective, batch).metrics
    for name in ("elbo", "reconstruction", "kl"):
        assert name in metrics, f"metric '{name}' is missing. Start from the metrics of elbo_terms."
    for name, value in metrics.items():
        is_detached_scalar = value.shape == () and not value.requires_grad
        assert is_detached_scalar, f"metric '{name}' is not a detached scalar. Average it and call detach()."
    elbo, total = metrics["elbo"], metrics["reconstruction"] + metrics["kl"]
    assert torch.allclose(-elbo, total, rtol=1e-4), f"elbo must be -(reconstruction + kl), {-total:g}, not {elbo:g}"


def check_learning(spec: Spec) -> None:
    """Training changes every group, keeps it finite, and lowers the loss if there is only one group."""
    vae, objective, batch = build_example(spec)
    groups = objective.parameter_groups(vae)
    before = {name: [p.detach().clone() for p in group] for name, group in groups.items()}
    optimizers = {name: torch.optim.Adam(group, lr=2e-3) for name, group in groups.items()}
    losses = []
    for step in range(TRAIN_STEPS):
        output = compute_losses(vae, objective, batch, step=step)
        losses.append({name: float(loss.detach()) for name, loss in output.losses.items()})
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        for name, loss in output.losses.items():
            loss.backward(inputs=groups[name], retain_graph=True)  # type: ignore[no-untyped-call]
        for name in output.losses:
            optimizers[name].step()
    training = f"in {TRAIN_STEPS} steps of Adam with learning rate 0.002"
    for name, group in groups.items():
        finite = all(bool(p.isfinite().all()) for p in group)
        assert finite, f"parameters of group '{name}' became inf or NaN {training}. Bound exponentials and logarithms."
        pairs = zip(before[name], group, strict=True)
        changed = any(not torch.equal(a, b) for a, b in pairs)
        assert changed, f"group '{name}' did not change {training}. Return a loss for it."
    if len(groups) == 1:
        ((name, first),) = losses[0].items()
        last = losses[-1][name]
        assert last < first, f"the loss must fall, but went from {first:g} to {last:g} {training}. Check its sign."


def check_precision(spec: Spec) -> None:
    """With networks in bfloat16, z and the terms of the ELBO are float32, and the losses are finite."""
    vae, objective, batch = build_example(spec)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        terms = elbo_terms(vae, batch)
    advice = "Call vaezoo.core.precision.to_float32 before densities and sums."
    for name in ("z", "params", "reconstruction", "kl_terms", "auxiliary_loss"):
        value = getattr(terms, name)
        wide = value is None or value.dtype not in (torch.bfloat16, torch.float16)
        assert wide, f"{name} is {value.dtype if value is not None else None} under bf16. {advice}"
    with torch.autocast("cpu", torch.bfloat16):
        losses = compute_losses(vae, objective, batch).losses
    infinite = [name for name, loss in losses.items() if not bool(loss.isfinite())]
    assert not infinite, f"loss '{', '.join(infinite)}' is not finite under bf16. {advice}"


def check_guard(spec: Spec) -> None:
    """A training step that meets NaN leaves every parameter and buffer as it was."""
    vae, objective, batch = build_example(spec)
    step = TrainStep(vae, objective, TrainConfig(steps=3, compile="off"), 3, TRAIN_SIZE)
    torch.manual_seed(0)
    step.run(*batch, step.prepare(0))
    good = float(step.found_inf) == 0
    assert good, "the first training step gives a loss, metric, gradient or buffer that is not finite"
    bad = poison(vae, batch)
    before = {name: tensor.clone() for name, tensor in saved(vae, objective)}
    step.run(*bad, step.prepare(1))
    for name, tensor in saved(vae, objective):
        same = torch.equal(tensor.nan_to_num(), before[name].nan_to_num())
        kept = same and torch.equal(tensor.isnan(), before[name].isnan())
        advice = "Change buffers in place, as with buffer.copy_(value): the trainer keeps the tensors to restore them."
        assert kept, f"'{name}' changed in a step that met NaN. {advice}"


def poison(vae: VAE, batch: Batch) -> Batch:
    """Returns a batch of NaN. Tokens and categories cannot be NaN. There a weight of the model becomes NaN instead."""
    if vae.data.kind not in ("tokens", "table"):
        return batch._replace(x=torch.full_like(batch.x, torch.nan))
    with torch.no_grad():
        next(vae.parameters()).fill_(torch.nan)
    return batch


def saved(vae: nn.Module, objective: Objective) -> Iterator[tuple[str, Tensor]]:
    """Yields the names and tensors that a checkpoint saves."""
    for prefix, module in (("", vae), ("objective.", objective)):
        for name, tensor in module.state_dict().items():
            yield prefix + name, tensor

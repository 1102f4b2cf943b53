"""The checks of the conformance suite.

Each check is a function of a ModelSpec. It raises AssertionError with what is wrong and what to change. Checks use the
first of a few small shapes that the model accepts.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vaezoo.core.options import config_json, configure
from vaezoo.data.base import Batch, DataSpec
from vaezoo.errors import UnsupportedDataError, format_error
from vaezoo.export.graphs import export_graphs
from vaezoo.export.parity import check_parity
from vaezoo.objectives.base import LossOutput, Objective, StepContext
from vaezoo.posteriors.base import Posterior
from vaezoo.posteriors.delta import Delta
from vaezoo.spec import ModelSpec
from vaezoo.vae import VAE

Spec = ModelSpec[Any]
Check = Callable[[Spec], None]

SHAPES = ((1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 64, 64), (3, 64, 64), (12,))
UNUSUAL_SHAPES = ((1, 1, 1), (2, 3, 5), (3, 17, 31), (1, 9, 200), (1, 300, 300), (1,), (5_000,))
BATCH_SIZE = 6
TRAIN_STEPS = 40  # enough for every group to change, and short enough for a check of a second


def example_data(spec: Spec) -> DataSpec:
    """Returns data of the first shape in SHAPES that the model accepts.

    Raises:
        AssertionError: If it accepts none of them.
    """
    for shape in SHAPES:
        data = DataSpec(name="example", shape=shape)
        try:
            with torch.device("meta"):
                spec.build(spec.config, data)
        except UnsupportedDataError:
            continue
        except Exception:  # other checks report what is wrong with this shape
            return data
        return data
    raise AssertionError(f"the model accepts none of the shapes {SHAPES}. Support at least one of them.")


def build_example(spec: Spec, seed: int = 0) -> tuple[VAE, Objective, Batch]:
    """Builds model and objective, and a batch of images, each noise around a random grey level."""
    data = example_data(spec)
    torch.manual_seed(seed)
    vae, objective = spec.build(spec.config, data), spec.objective(spec.config, data)
    x = torch.rand(BATCH_SIZE, *data.shape).lerp(torch.rand(BATCH_SIZE, *[1] * len(data.shape)), 0.8)
    return vae, objective, Batch(x, torch.arange(BATCH_SIZE))


def compute_losses(vae: VAE, objective: Objective, batch: Batch, seed: int = 0, step: int = 0) -> LossOutput:
    """Returns losses and metrics of step number `step`. All random numbers come from `seed`."""
    torch.manual_seed(seed)
    context = StepContext.initial()._replace(global_step=torch.tensor(float(step)))
    output: LossOutput = objective(vae, batch, context)
    return output


def log_density(posterior: Posterior, z: Tensor) -> Tensor:
    """Returns log q(z|x), or zeros for a delta distribution, which has no density."""
    return torch.zeros(BATCH_SIZE) if isinstance(posterior, Delta) else posterior.log_prob(z)


def check_shapes(spec: Spec) -> None:
    """The results of encode, decode, rsample, log_prob, mode and prior have the documented shapes."""
    vae, objective, (x, _) = build_example(spec)
    assert isinstance(vae, VAE), f"build must return a vaezoo.VAE, not a {type(vae).__name__}"
    kind = type(objective).__name__
    assert isinstance(objective, Objective), f"objective must return a vaezoo.Objective, not a {kind}"
    posterior = vae.encode(x)
    z = posterior.rsample()
    latents = (BATCH_SIZE, *vae.latent_shape)
    shapes = {
        "posterior.rsample()": (z, latents),
        "posterior.mode()": (posterior.mode(), latents),
        "prior.sample(n)": (vae.prior.sample(BATCH_SIZE), latents),
        "prior.log_prob(z)": (vae.prior.log_prob(z), (BATCH_SIZE,)),
        "prior.kl(posterior, z)": (vae.prior.kl(posterior, z), (BATCH_SIZE,)),
        "posterior.log_prob(z)": (log_density(posterior, z), (BATCH_SIZE,)),
        "decode(z)": (vae.decode(z), tuple(x.shape)),
        "reconstruct(x)": (vae.reconstruct(x), tuple(x.shape)),
    }
    for name, (tensor, shape) in shapes.items():
        assert tensor.shape == shape, f"{name} must have shape {shape}, not {tuple(tensor.shape)}"


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


def check_independence(spec: Spec) -> None:
    """In evaluation mode the reconstruction of an example does not depend on the rest of its batch."""
    vae, _, (x, _) = build_example(spec)
    vae.eval()
    with torch.no_grad():
        batched, single = vae.reconstruct(x), torch.cat([vae.reconstruct(x[i : i + 1]) for i in range(BATCH_SIZE)])
    difference = float((batched - single).abs().max())
    advice = "Use no statistics of the batch in evaluation mode."
    assert difference < 1e-4, f"a reconstruction changes by {difference:.2g} with the rest of its batch. {advice}"


def check_meta(spec: Spec) -> None:
    """The model can be built on the meta device, without allocating memory."""
    data = example_data(spec)
    with torch.device("meta"):
        modules: list[nn.Module] = [spec.build(spec.config, data), spec.objective(spec.config, data)]
    for module in modules:
        elsewhere = [name for name, p in module.named_parameters() if p.device.type != "meta"]
        advice = "Create parameters without a device argument."
        assert not elsewhere, f"parameters not on the meta device: {', '.join(elsewhere)}. {advice}"


def check_state(spec: Spec) -> None:
    """A model restored from its config in JSON and its state_dict gives the same outputs."""
    restored = configure(spec.config, json.loads(json.dumps(config_json(spec.config))))
    advice = "Give each option a default of its own type, a tuple for several values."
    assert restored == spec.config, f"the config changes on the way through JSON, to {restored}. {advice}"
    vae, _, (x, _) = build_example(spec)
    copy, _, _ = build_example(dataclasses.replace(spec, config=restored), seed=1)
    copy.load_state_dict(vae.state_dict())
    vae.eval(), copy.eval()
    with torch.no_grad():
        same = torch.equal(vae.reconstruct(x), copy.reconstruct(x))
    advice = "Hold its whole state in parameters and persistent buffers."
    assert same, f"a model that loads the state_dict of another gives other reconstructions. {advice}"


def check_seed(spec: Spec) -> None:
    """The same seed gives the same weights and losses."""

    def losses() -> list[float]:
        vae, objective, batch = build_example(spec, seed=3)
        return [float(loss.detach()) for loss in compute_losses(vae, objective, batch, seed=4).losses.values()]

    first, second = losses(), losses()
    advice = "Draw random numbers from PyTorch's global generator only."
    assert first == second, f"the same seed gives losses {first} and then {second}. {advice}"


def check_onnx(spec: Spec) -> None:
    """Encoder and decoder export to ONNX with a dynamic batch and equal the model at several batch sizes."""
    vae, _, _ = build_example(spec)
    check_parity(vae.eval(), export_graphs(vae))


def check_unsupported(spec: Spec) -> None:
    """Data that the model cannot take raise UnsupportedDataError, and all other data work."""
    advice = "Raise UnsupportedDataError in build for data of such a shape."
    for shape in (*SHAPES, *UNUSUAL_SHAPES):
        data, expected = DataSpec(name="example", shape=shape), (2, *shape)
        try:
            vae = spec.build(spec.config, data).eval()
            with torch.no_grad():
                result = tuple(vae.reconstruct(torch.rand(expected)).shape)
        except UnsupportedDataError:
            continue
        except Exception as e:
            raise AssertionError(f"data of shape {shape} raise {format_error(e)}. {advice}") from e
        assert result == expected, f"reconstruct(x) must have shape {expected}, not {result}. {advice}"


CHECKS: tuple[Check, ...] = (
    check_shapes,
    check_groups,
    check_losses,
    check_metrics,
    check_learning,
    check_independence,
    check_meta,
    check_state,
    check_seed,
    check_onnx,
    check_unsupported,
)

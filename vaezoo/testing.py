"""The conformance suite: what every model of the zoo can be relied on to do, built in or third-party.

In a plugin's test:

    from vaezoo.testing import parametrize_with_checks

    @parametrize_with_checks(["my-vae"])
    def test_conformance(spec, check):
        check(spec)

Each check is a function of a ModelSpec that raises AssertionError with the reason. Checks run on the smallest
data that the model takes.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vaezoo.data.base import Batch, DataSpec
from vaezoo.errors import UnsupportedDataError, VaezooError, format_error
from vaezoo.export.graphs import export_graphs
from vaezoo.export.parity import check_parity
from vaezoo.objectives.base import LossOutput, Objective, StepContext
from vaezoo.posteriors.base import Posterior
from vaezoo.posteriors.delta import Delta
from vaezoo.registry import get_model
from vaezoo.spec import ModelSpec, config_json, configure
from vaezoo.vae import VAE

if TYPE_CHECKING:
    from pytest import MarkDecorator

Spec = ModelSpec[Any]
Check = Callable[[Spec], None]

SHAPES = ((1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 64, 64), (3, 64, 64), (12,))
ODD_SHAPES = (*SHAPES, (1, 1, 1), (2, 3, 5), (3, 17, 31), (1, 9, 200), (1, 300, 300), (1,), (5_000,))
BATCH = 6
STEPS = 40  # enough for any group to move; a check takes a second


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How one check ended.

    Attributes:
        name: The check.
        demand: What it demands, in one line.
        failure: Why it failed, or None.
    """

    name: str
    demand: str
    failure: str | None


def example_data(spec: Spec) -> DataSpec:
    """Returns the first of a few shapes that the model takes.

    Raises:
        AssertionError: If it takes none of them.
    """
    for shape in SHAPES:
        data = DataSpec(name="example", shape=shape)
        try:
            with torch.device("meta"):
                spec.build(spec.config, data)
        except UnsupportedDataError:
            continue
        except Exception:  # other checks say what is wrong with this shape
            return data
        return data
    raise AssertionError(f"the model takes none of the shapes {SHAPES}")


def make(spec: Spec, seed: int = 0) -> tuple[VAE, Objective, Batch]:
    """Builds model and objective, with a batch of smooth random images for them."""
    data = example_data(spec)
    torch.manual_seed(seed)
    vae, objective = spec.build(spec.config, data), spec.objective(spec.config, data)
    x = torch.rand(BATCH, *data.shape).lerp(torch.rand(BATCH, *[1] * len(data.shape)), 0.8)
    return vae, objective, Batch(x, torch.arange(BATCH))


def run(vae: VAE, objective: Objective, batch: Batch, seed: int = 0, number: int = 0) -> LossOutput:
    """Computes losses and metrics of the step of that number, all chance from `seed`."""
    torch.manual_seed(seed)
    out: LossOutput = objective(vae, batch, StepContext.initial()._replace(number=torch.tensor(float(number))))
    return out


def check_shapes(spec: Spec) -> None:
    """encode, decode, rsample, log_prob, mode, prior and metrics have the shapes of the contract."""
    vae, objective, (x, _) = make(spec)
    assert isinstance(vae, VAE), f"build returns a {type(vae).__name__}, no VAE"
    assert isinstance(objective, Objective), f"objective returns a {type(objective).__name__}, no Objective"
    posterior = vae.encode(x)
    z = posterior.rsample()
    latent = (BATCH, *vae.latent_shape)
    shapes = {
        "posterior.rsample()": (z, latent),
        "posterior.mode()": (posterior.mode(), latent),
        "prior.sample(n)": (vae.prior.sample(BATCH), latent),
        "prior.log_prob(z)": (vae.prior.log_prob(z), (BATCH,)),
        "prior.kl(posterior, z)": (vae.prior.kl(posterior, z), (BATCH,)),
        "posterior.log_prob(z)": (density(posterior, z), (BATCH,)),
        "decode(z)": (vae.decode(z), tuple(x.shape)),
        "reconstruct(x)": (vae.reconstruct(x), tuple(x.shape)),
    }
    for name, (tensor, shape) in shapes.items():
        assert tensor.shape == shape, f"{name} has shape {tuple(tensor.shape)}, not {shape}"


def density(posterior: Posterior, z: torch.Tensor) -> torch.Tensor:
    """Returns log q(z|x), or zeros where a posterior is a point and says so."""
    return torch.zeros(BATCH) if isinstance(posterior, Delta) else posterior.log_prob(z)


def check_groups(spec: Spec) -> None:
    """The parameter groups are disjoint and together hold each parameter of model and objective."""
    vae, objective, _ = make(spec)
    names = {id(p): name for module in (vae, objective) for name, p in module.named_parameters()}
    grouped = [id(p) for group in objective.parameter_groups(vae).values() for p in group]
    twice = {names.get(i, "a foreign tensor") for i in grouped if grouped.count(i) > 1}
    missing = {name for i, name in names.items() if i not in grouped}
    assert not twice, f"in more than one group: {', '.join(sorted(twice))}"
    assert not missing, f"in no group: {', '.join(sorted(missing))}"


def check_losses(spec: Spec) -> None:
    """Each loss is a finite scalar, belongs to a group, and depends on it."""
    vae, objective, batch = make(spec)
    out = run(vae, objective, batch)
    groups = objective.parameter_groups(vae)
    assert out.losses, "there is no loss"
    for name, loss in out.losses.items():
        assert name in groups, f"loss '{name}' belongs to no group; there are {', '.join(groups)}"
        assert loss.shape == () and bool(loss.isfinite()), f"loss '{name}' is no finite scalar"
        gradients = torch.autograd.grad(loss, groups[name], retain_graph=True, allow_unused=True)
        reached = any(g is not None and bool(g.abs().sum() > 0) for g in gradients)
        assert reached, f"loss '{name}' does not depend on its group"


def check_metrics(spec: Spec) -> None:
    """elbo, reconstruction and kl are reported, detached scalars, with elbo = -(reconstruction + kl)."""
    vae, objective, batch = make(spec)
    metrics = run(vae, objective, batch).metrics
    for name in ("elbo", "reconstruction", "kl"):
        assert name in metrics, f"metric '{name}' is missing"
    for name, value in metrics.items():
        assert value.shape == () and not value.requires_grad, f"metric '{name}' is no detached scalar"
    total = metrics["reconstruction"] + metrics["kl"]
    assert torch.allclose(-metrics["elbo"], total, rtol=1e-4), f"elbo {metrics['elbo']:g} is not -(reconstruction + kl)"


def check_learning(spec: Spec) -> None:
    """Every group's weights move when it is trained, stay finite, and a lone loss falls."""
    vae, objective, batch = make(spec)
    groups = objective.parameter_groups(vae)
    before = {name: [p.detach().clone() for p in group] for name, group in groups.items()}
    optimizers = {name: torch.optim.Adam(group, lr=2e-3) for name, group in groups.items()}
    losses = []
    for number in range(STEPS):
        out = run(vae, objective, batch, number=number)
        losses.append({name: float(loss.detach()) for name, loss in out.losses.items()})
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        for name, loss in out.losses.items():
            loss.backward(inputs=groups[name], retain_graph=True)  # type: ignore[no-untyped-call]
        for name in out.losses:
            optimizers[name].step()
    for name, group in groups.items():
        assert all(bool(p.isfinite().all()) for p in group), f"group '{name}' is no longer finite after {STEPS} steps"
        pairs = zip(before[name], group, strict=True)
        assert any(not torch.equal(a, b) for a, b in pairs), f"group '{name}' does not move"
    if len(groups) == 1:
        ((name, first),) = losses[0].items()
        assert losses[-1][name] < first, f"the loss went from {first:g} to {losses[-1][name]:g} in {STEPS} steps"


def check_independence(spec: Spec) -> None:
    """In evaluation mode an example's code and reconstruction do not depend on the rest of its batch."""
    vae, _, (x, _) = make(spec)
    vae.eval()
    with torch.no_grad():
        together, alone = vae.reconstruct(x), torch.cat([vae.reconstruct(x[i : i + 1]) for i in range(BATCH)])
    difference = float((together - alone).abs().max())
    assert difference < 1e-4, f"a reconstruction changes by {difference:.2g} with the batch around it"


def check_meta(spec: Spec) -> None:
    """The model builds on the meta device: it can be described without being allocated."""
    data = example_data(spec)
    with torch.device("meta"):
        modules: list[nn.Module] = [spec.build(spec.config, data), spec.objective(spec.config, data)]
    for module in modules:
        placed = [name for name, p in module.named_parameters() if p.device.type != "meta"]
        assert not placed, f"allocated all the same: {', '.join(placed)}"


def check_state(spec: Spec) -> None:
    """Config and weights round-trip through JSON and state_dict to the same outputs."""
    saved = json.loads(json.dumps(config_json(spec.config)))
    restored = configure(spec.config, saved)
    assert restored == spec.config, f"the config comes back from JSON as {restored}"
    vae, _, (x, _) = make(spec)
    again, _, _ = make(dataclasses.replace(spec, config=restored), seed=1)
    again.load_state_dict(vae.state_dict())
    vae.eval(), again.eval()
    with torch.no_grad():
        same = torch.equal(vae.reconstruct(x), again.reconstruct(x))
    assert same, "a model with the weights of another reconstructs otherwise: something is missing in state_dict"


def check_seed(spec: Spec) -> None:
    """The same seed gives the same weights and losses."""

    def losses() -> list[float]:
        vae, objective, batch = make(spec, seed=3)
        return [float(loss.detach()) for loss in run(vae, objective, batch, seed=4).losses.values()]

    first, second = losses(), losses()
    assert first == second, f"losses {first} and {second} from the same seed"


def check_onnx(spec: Spec) -> None:
    """Encoder and decoder export to ONNX with a free batch and equal the model at several batch sizes."""
    vae, _, _ = make(spec)
    check_parity(vae.eval(), export_graphs(vae))


def check_unsupported(spec: Spec) -> None:
    """Data that the model cannot take are refused with UnsupportedDataError, all others work."""
    for shape in ODD_SHAPES:
        data = DataSpec(name="example", shape=shape)
        try:
            vae = spec.build(spec.config, data).eval()
            with torch.no_grad():
                got = tuple(vae.reconstruct(torch.rand(2, *shape)).shape)
        except UnsupportedDataError:
            continue
        except Exception as e:
            raise AssertionError(
                f"shape {shape} is not refused with UnsupportedDataError, but meets {format_error(e)}"
            ) from e
        assert got == (2, *shape), f"shape {shape} is accepted, but reconstructed as {got}"


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


def run_checks(spec: Spec) -> Iterator[CheckResult]:
    """Runs the suite on a model and yields each result as it is there. The global random state is left as it was."""
    for check in CHECKS:
        with torch.random.fork_rng([]):
            yield CheckResult(
                check.__name__.removeprefix("check_"), str(check.__doc__).splitlines()[0], failure(check, spec)
            )


def failure(check: Check, spec: Spec) -> str | None:
    """Runs one check and returns why it failed, or None."""
    try:
        check(spec)
    except AssertionError as e:
        return str(e) + place(e.__cause__, spec)
    except VaezooError as e:
        return e.message + place(e, spec)
    except Exception as e:  # the model's own code may raise anything
        return format_error(e) + place(e, spec)
    return None


def place(error: BaseException | None, spec: Spec) -> str:
    """Says where in the model's own file an error arose, ` (file.py:43 in decode)`; empty if it did not."""
    code = inspect.unwrap(spec.build)
    file = inspect.getsourcefile(code) if inspect.isclass(code) or inspect.isfunction(code) else None
    while error is not None:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        if frames:
            return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name})"
        error = error.__cause__
    return ""


def parametrize_with_checks(models: Sequence[str]) -> MarkDecorator:
    """Returns a pytest decorator that gives a test each pair of a named model's `spec` and a `check`."""
    import pytest

    specs = {name: get_model(name) for name in models}
    pairs = [pytest.param(specs[n], c, id=f"{n}-{c.__name__}") for n in models for c in CHECKS]
    return pytest.mark.parametrize(("spec", "check"), pairs)

"""The compiled step computes what the eager one does, keeps its guard, and gives way where it cannot be made."""

import json

import pytest
import torch
from image_models import FAST, image_models

from vaezoo import ELBO, LossOutput, TrainConfig, Trainer, get_model, train
from vaezoo.core.compile import Compiled
from vaezoo.errors import DivergedError, VaezooError, VaezooWarning
from vaezoo.objectives.base import Objective
from vaezoo.training.config import LONG

pytestmark = pytest.mark.filterwarnings("error::vaezoo.errors.VaezooWarning")  # where none is expected

MODELS = image_models()


def build(name, digits):
    spec = get_model(name)
    torch.manual_seed(0)
    return spec.build(spec.config, digits.spec), spec.objective(spec.config, digits.spec)


def weights(*modules):
    return torch.cat([p.detach().flatten() for module in modules for p in module.parameters()])


def fit(digits, vae, objective, **settings):
    """Trains and returns the reports."""
    reports = []
    settings = {"batch_size": 50, "steps": 5, "compile": "on"} | settings
    Trainer(vae, objective, digits, TrainConfig(**settings), on_report=reports.append).fit()
    return reports


# test_members.py traces the step of every model. inductor takes a minute for each, so here it has some of them.
COMPILED = {"mlp-vae": (), "conv-vae": pytest.mark.slow}


@pytest.mark.parametrize("name", [pytest.param(m, marks=COMPILED.get(m, pytest.mark.matrix)) for m in FAST])
def test_compiled_and_eager_steps_agree(name, digits):
    """Within 5e-4 of each metric over five steps. The rate is low: Adam's first steps amplify each rounding."""
    metrics, trained = [], []
    for how in ("off", "on"):
        vae, objective = build(name, digits)
        metrics.append(fit(digits, vae, objective, compile=how, kl_warmup=3, lr=1e-4)[0].metrics)
        trained.append(weights(vae, objective))
    assert metrics[0] == pytest.approx(metrics[1], rel=5e-4)
    assert float((trained[0] - trained[1]).norm() / trained[0].norm()) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"grad_accum_steps": 2, "optimizer": "adamax"}, marks=pytest.mark.matrix),
        {"precision": "bf16", "clip_grad": 1.0},
    ],
)
def test_all_options_work_together(settings, digits):
    together = {"binarize": "dynamic", "free_bits": 0.01, "schedule": "cosine", "lr_warmup": 2, **settings}
    metrics = [fit(digits, *build("mlp-vae", digits), compile=how, **together)[0].metrics for how in ("off", "on")]
    assert metrics[0] == pytest.approx(metrics[1], rel=5e-3 if "precision" in settings else 2e-4)


class Poisoned(Objective):
    """The ELBO with a loss that is not finite at one step; `read` makes it ask the device for the step's number."""

    def __init__(self, at, read):
        super().__init__()
        self.inner, self.at, self.read = ELBO(), at, read

    def parameter_groups(self, vae):
        return self.inner.parameter_groups(vae)

    def forward(self, vae, batch, step):
        out = self.inner(vae, batch, step)
        here = (step.global_step == self.at) & self.training
        if self.read:
            here = torch.tensor(True) if here.item() else torch.tensor(False)
        return LossOutput({"vae": out.losses["vae"] * torch.where(here, float("nan"), 1.0)}, out.metrics)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [pytest.param("adam", marks=pytest.mark.matrix), "rmsprop"])
def test_compiled_guard_keeps_weights(optimizer, digits):
    vae, _ = build("mlp-vae", digits)
    fit(digits, vae, Poisoned(at=99, read=False), steps=3, optimizer=optimizer)
    before = weights(vae)
    vae, _ = build("mlp-vae", digits)
    with pytest.raises(DivergedError, match="at step 4"):
        fit(digits, vae, Poisoned(at=3, read=False), steps=8, optimizer=optimizer)
    assert torch.equal(weights(vae), before)


def test_uncompilable_model_trains_eagerly(digits):
    vae, _ = build("mlp-vae", digits)
    with pytest.warns(VaezooWarning, match="cannot be compiled, so the plain step runs: "):
        fit(digits, vae, Poisoned(at=99, read=True))
    plain, _ = build("mlp-vae", digits)
    fit(digits, plain, Poisoned(at=99, read=True), compile="off")
    assert torch.equal(weights(vae), weights(plain))


@pytest.mark.slow
def test_missing_compiler_warns(digits, monkeypatch):
    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", lambda *a, **k: "/no/such/compiler")
    uncached = torch.compiler.config.patch(force_disable_caches=True)
    with uncached, pytest.warns(VaezooWarning, match=r"cannot be compiled, .*/no/such/compiler"):
        reports = fit(digits, *build("mlp-vae", digits))
    assert reports[-1].step == 5


def test_errors_of_function_pass_through(monkeypatch):
    def function(x):
        raise VaezooError("mine", "fix it")

    monkeypatch.setattr("torch.compile", lambda function, **settings: function)
    with pytest.raises(VaezooError, match="mine"):
        Compiled(function)(torch.zeros(()))


@pytest.mark.slow
def test_many_functions_compile(monkeypatch):
    def double(x):
        return x * len(functions)

    functions = []
    while len(functions) < 12:
        functions.append(Compiled(double))
        assert functions[-1](torch.ones(())) == len(functions)


def test_auto_compile_depends_on_length(digits, tmp_path):
    n = len(digits.train)
    config = TrainConfig(batch_size=50, epochs=2)
    assert config.resolved(n).compile == "off"
    assert TrainConfig(batch_size=50, steps=LONG).resolved(n).compile == "on"
    assert TrainConfig(batch_size=50, steps=LONG, compile="off").resolved(n).compile == "off"
    run = train("mlp-vae", digits, config=config, out=tmp_path / "run")
    assert json.loads((run.path / "run.json").read_text())["training"]["compile"] == "off"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", MODELS)
def test_captured_step_agrees_with_eager(name, digits):
    metrics = [
        fit(digits, *build(name, digits), compile=how, steps=12, device="cuda")[0].metrics for how in ("off", "on")
    ]
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-3)

"""A NaN or an infinity anywhere in a training step: the training ends, and no weight or buffer changes.

Extreme but valid data and settings train, or raise a VaezooError.
"""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_models import FAST, image_models
from injector import ALL_FAULTS
from members import MEMBERS
from processes import ENVIRONMENT, HANG_SECONDS
from safetensors.torch import load_file
from torch import Tensor, nn

import vaezoo
from vaezoo import Batch, DiagonalGaussian, Run, TrainConfig, Trainer
from vaezoo.errors import DivergedError, VaezooError
from vaezoo.training.checkpoint import list_checkpoints

CheckCases = Callable[[str, int, Sequence[object]], None]
Site = Callable[[Trainer, Batch, float], Batch]  # puts a value somewhere into the next step
MODELS = image_models()
DENSE, CONVOLUTIONS = {"latent_dim": 2, "hidden": [5]}, {"latent_dim": 2, "channels": [2]}
OPTIONS: dict[str, Mapping[str, object]] = {
    **dict.fromkeys(("mlp-vae", "autoencoder", "cvae", "iwae", "iaf-vae"), DENSE),
    **dict.fromkeys(("conv-vae", "beta-vae", "vae-gan"), CONVOLUTIONS),
    "vamp-vae": {**DENSE, "prior.components": 5},
    "exemplar-vae": {**DENSE, "prior.exemplars": 5},
    "hvae": {"latents": [2, 2], "hidden": [5]},
    "top-down-vae": {"channels": 4, "latent_channels": 1, "layers": 1},
    "factor-vae": {**CONVOLUTIONS, "objective.hidden": 8},
    **dict.fromkeys(("beta-tc-vae", "dip-vae", "info-vae", "wae", "swae"), CONVOLUTIONS),
    "aae": {**DENSE, "objective.hidden": 8},
}
IMAGES = np.random.default_rng(0).random((44, 8, 8), np.float32)
SAVED, BAD, STEPS = 3, 5, 9  # steps counted from 1: the newest checkpoint, the poisoned step, and the last
PROGRAM = Path(__file__).parents[1] / "training" / "two_processes.py"


class BadGradient(torch.autograd.Function):
    """The identity, with a gradient that is not finite."""

    @staticmethod
    def forward(ctx, x, value):  # type: ignore[no-untyped-def]
        ctx.value = value
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        return gradient * ctx.value, None


def change_next_output(module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Changes the output of the next call of a module."""
    handle = module.register_forward_hook(lambda module, inputs, output: (handle.remove(), change(output))[1])


def equal(a: Tensor, b: Tensor) -> bool:
    """Tells whether two tensors are equal. NaN equals NaN."""
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())


def in_batch(trainer: Trainer, batch: Batch, value: float) -> Batch:
    x = batch.x.clone()
    x[0].view(-1)[0] = value
    return Batch(x, batch.y)


def in_weights(trainer: Trainer, batch: Batch, value: float) -> Batch:
    with torch.no_grad():
        next(trainer.vae.parameters()).view(-1)[0] = value
    return batch


def in_decoder(trainer: Trainer, batch: Batch, value: float) -> Batch:
    def change(params: Tensor) -> Tensor:
        mask = torch.zeros_like(params)
        mask.view(-1)[0] = value
        return params + mask

    change_next_output(trainer.vae.get_submodule("decoder"), change)
    return batch


def in_kl(trainer: Trainer, batch: Batch, value: float) -> Batch:
    encode = trainer.vae.encode

    def encode_once(*inputs: Tensor) -> DiagonalGaussian:
        trainer.vae.encode = encode  # type: ignore[method-assign]
        mu, logvar = encode(*inputs)  # type: ignore[misc]
        return DiagonalGaussian(mu, logvar + 1e4)

    trainer.vae.encode = encode_once  # type: ignore[method-assign]
    return batch


def in_gradients(trainer: Trainer, batch: Batch, value: float) -> Batch:
    change_next_output(trainer.vae.get_submodule("encoder"), lambda out: BadGradient.apply(out, value))
    return batch


SITES = {site.__name__[3:]: site for site in (in_batch, in_weights, in_decoder, in_kl, in_gradients)}
GAUSSIAN = [model for model in FAST if model != "autoencoder"]  # models with variances and a KL
CASES = [(model, site) for model in FAST for site in SITES if model in GAUSSIAN or site != "kl"]
CASES += [(model, site) for model in MODELS if model not in FAST for site in ("batch", "weights")]
slow = pytest.mark.slow


class Poisoned:
    """A training with a value that is not finite in one step, and its state just before that step."""

    def __init__(
        self, model: str, site: Site, value: float, folder: Path, likelihood: str = "bernoulli", **settings: object
    ) -> None:
        self.site, self.value, self.run = site, value, folder / "run"
        options = OPTIONS[model] if model in OPTIONS else MEMBERS[model].options
        config = TrainConfig(steps=STEPS, eval_every=SAVED, batch_size=10, device="cpu", **settings)  # type: ignore[arg-type]
        data = vaezoo.from_arrays(IMAGES, np.arange(len(IMAGES)) % 2, likelihood=likelihood)
        self.error: DivergedError | None = None
        try:
            vaezoo.train(model, data, options=options, config=config, out=self.run, on_start=self.start)
        except DivergedError as e:
            self.error = e

    def start(self, trainer: Trainer, path: Path) -> None:
        self.trainer = trainer
        run = trainer.train_step.run

        def poisoned_run(x: Tensor, y: Tensor | None, scalars: Tensor) -> None:
            if trainer.global_step + 1 == BAD:
                x, y = self.site(trainer, Batch(x, y), self.value)
                self.state_before = {name: t.detach().clone() for name, t in self.state().items()}
                self.files_before = self.files()
            run(x, y, scalars)

        trainer.train_step.run = poisoned_run  # type: ignore[method-assign]

    def state(self) -> dict[str, Tensor]:
        """Returns all weights, buffers, averages and optimizer states."""
        step = self.trainer.train_step
        modules = self.trainer.vae.state_dict() | self.trainer.objective.state_dict(prefix="objective.")
        averages = {f"average {i}": value for i, value in enumerate(step.ema.values)}
        states = {
            f"optimizer {group} {i} {name}": value
            for group, optimizer in step.optimizers.items()
            for i, state in enumerate(optimizer.state)
            for name, value in state.items()
        }
        return {**modules, **averages, **states}

    def files(self) -> dict[str, str]:
        """Returns the SHA-256 of each file of the checkpoints."""
        paths = (f for f in (self.run / "checkpoints").rglob("*") if f.is_file())
        return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in paths}

    def is_finite_on_disk(self) -> bool:
        tensors = [t for f in self.files() if f.endswith(".safetensors") for t in load_file(f).values()]
        return all(bool(t.isfinite().all()) for t in tensors)

    def failures(self) -> list[str]:
        """Returns the names of the checks that fail at the end."""
        error, (complete, damaged) = self.error, list_checkpoints(self.run / "checkpoints")
        if error is None:
            return ["it continues"]
        before, after = self.state_before, self.state()
        checks = {
            "exit code": error.exit_code == 4,
            "step": f"at step {BAD}:" in error.message and f"those of step {BAD - 1}" in error.message,
            "terms": all(f"{term} " in error.message for term in ("elbo", "reconstruction", "kl")),
            "hint": f"the last checkpoint in {self.run} is that of step {SAVED}" in error.hint,
            "disk": self.is_finite_on_disk(),
            "checkpoints": [c.step for c in complete] == [0, SAVED] and not damaged,
            "files": self.files() == self.files_before,
            "memory": before.keys() == after.keys() and all(equal(before[name], after[name]) for name in before),
            "load": vaezoo.load(self.run).checkpoint.step in (0, SAVED),
        }
        return [name for name, passed in checks.items() if not passed]


@pytest.mark.parametrize(
    ("model", "site", "value"),
    [
        pytest.param(
            model, site, value, marks=[] if value is math.nan and (model == "mlp-vae" or site == "batch") else slow
        )
        for model, site in CASES
        for value in ((math.nan, math.inf, -math.inf) if model in FAST else (math.nan,))
    ],
)
def test_training_ends(model: str, site: str, value: float, tmp_path: Path, check_cases: CheckCases) -> None:
    poisoned = Poisoned(model, SITES[site], value, tmp_path)
    failures, expected = poisoned.failures(), []
    if (site, value) == ("weights", -math.inf):  # a ReLU makes it 0, so loss and gradients are finite
        assert poisoned.error and "holds values that are not finite" in poisoned.error.message
        expected = ["step", "terms", "memory"]  # it is detected at the next save
    check_cases("N1", 1, [f"{model}, {site}: {failure}" for failure in failures if failure not in expected])
    assert poisoned.is_finite_on_disk()


@pytest.mark.parametrize(
    ("model", "site"),
    [pytest.param(*case, marks=[] if case == ("mlp-vae", "gradients") else slow) for case in CASES],
)
def test_bf16_training_ends(model: str, site: str, tmp_path: Path, check_cases: CheckCases) -> None:
    poisoned = Poisoned(model, SITES[site], math.nan, tmp_path, precision="bf16")
    check_cases("N1", 1, [f"{model}, {site}: {failure}" for failure in poisoned.failures()])


@pytest.mark.parametrize(
    "changes", [{"ema_decay": 0.9}, {"grad_accum_steps": 2}, {"clip_grad": 1.0}, {"optimizer": "rmsprop"}]
)
def test_settings_keep_the_guard(changes: dict[str, object], tmp_path: Path, check_cases: CheckCases) -> None:
    poisoned = Poisoned("mlp-vae", in_batch, math.nan, tmp_path, **changes)
    check_cases("N1", 1, [f"{changes}: {failure}" for failure in poisoned.failures()])


@pytest.mark.parametrize(
    "changes", [{}, {"ema_decay": 0.9}, {"grad_accum_steps": 2}, pytest.param({"compile": "on"}, marks=slow)]
)
def test_buffers_are_restored(changes: dict[str, object], tmp_path: Path, check_cases: CheckCases) -> None:
    poisoned = Poisoned("mlp-vae", in_batch, math.nan, tmp_path, "gaussian:optimal", **changes)
    check_cases("N1", 1, [f"{changes}: {failure}" for failure in poisoned.failures()])
    (name,) = (name for name in poisoned.state_before if name.endswith("log_sigma"))
    before, after = poisoned.state_before[name], poisoned.state()[name]
    assert before != 0 and bool(after.isfinite()) and torch.equal(before, after)


@slow
def test_compiled_training_ends(tmp_path: Path, check_cases: CheckCases) -> None:
    check_cases("N1", 1, Poisoned("mlp-vae", in_batch, math.nan, tmp_path, compile="on").failures())


@pytest.mark.parametrize("raw", [1e4, -1e4, 1e30, -1e30])
@pytest.mark.parametrize("model", [pytest.param(m, marks=[] if m == "mlp-vae" else slow) for m in GAUSSIAN])
def test_extreme_log_variances_train(model: str, raw: float, tmp_path: Path, check_cases: CheckCases) -> None:
    """The network's log-variances are bounded, so the training continues."""

    def on_start(trainer: Trainer, path: Path) -> None:
        shift = torch.tensor([0.0, 0.0, raw, raw])  # two means, then two raw log-variances
        trainer.vae.get_submodule("encoder").register_forward_hook(lambda module, inputs, output: output + shift)

    config = TrainConfig(steps=3, batch_size=10, device="cpu")
    data = vaezoo.from_arrays(IMAGES, np.arange(len(IMAGES)) % 2)
    run = vaezoo.train(model, data, options=OPTIONS[model], config=config, out=tmp_path / "run", on_start=on_start)
    check_cases("N1", 1, [name for name, p in run.vae.named_parameters() if not bool(p.isfinite().all())])


@slow
def test_all_processes_end(tmp_path: Path, check_cases: CheckCases) -> None:
    """Only one of two processes has a NaN."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*torchrun, str(PROGRAM), "nan", str(tmp_path / "run")],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    complete, damaged = list_checkpoints(tmp_path / "run" / "checkpoints")
    passed = (
        result.stderr.count("training diverged at step 5: a loss, metric, gradient or buffer is not finite") == 2
        and result.stderr.count("is that of step 4") == 2
        and [c.step for c in complete] == [0, 4]
        and not damaged
    )
    check_cases("N1", 1, [] if passed else [result.stderr[-2000:]])


@st.composite
def extremes(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, object]]:
    """Draws data that are constant or at the limits of the valid range, and settings likewise."""
    n = draw(st.sampled_from([2, 3, 4, 20]))
    shape = (n, *draw(st.sampled_from([(1,), (5,), (2, 3)])))
    kind = draw(st.sampled_from(["zeros", "ones", "constant", "bits", "near the limits", "bytes", "one pixel"]))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    limits = np.array([0, 1e-45, 1e-38, 1e-7, 1 - 2**-24, 1], np.float32)
    x = {
        "zeros": np.zeros(shape, np.float32),
        "ones": np.ones(shape, np.float32),
        "constant": np.full(shape, 1 / 3, np.float32),
        "bits": rng.integers(0, 2, shape, np.uint8),
        "near the limits": rng.choice(limits, shape),
        "bytes": rng.integers(0, 256, shape, np.uint8),
        "one pixel": np.zeros(shape, np.float32),
    }[kind]
    if kind == "one pixel":
        x.flat[-1] = 1
    config = {
        "batch_size": draw(st.integers(1, n - 1)),
        "lr": draw(st.sampled_from([1e-30, 1e-3, 1.0, 10.0, 1e10, 1e30, 3e38])),
        "optimizer": draw(st.sampled_from(["adam", "adamw", "rmsprop", "adamax"])),
        "binarize": draw(st.sampled_from(["none", "dynamic"])),
        "ema_decay": draw(st.sampled_from([None, 1e-9, 1 - 1e-9])),
        "free_bits": draw(st.sampled_from([0.0, 1e30])),
        "clip_grad": draw(st.sampled_from([None, 1e-30, 1e30])),
        "weight_decay": draw(st.sampled_from([0.0, 1e30])),
        "precision": draw(st.sampled_from(["fp32", "bf16"])),
    }
    likelihoods = ["bernoulli", "continuous-bernoulli", "gaussian:optimal", "gaussian:learned", "gaussian:1e-3"]
    return x, {"likelihood": draw(st.sampled_from(likelihoods)), **config}


def test_extreme_settings_train_or_fail(tmp_path: Path, check_cases: CheckCases) -> None:
    count = 0

    @settings(
        max_examples=1000 if ALL_FAULTS else 12,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(extremes())
    def check(case: tuple[np.ndarray, dict[str, object]]) -> None:
        nonlocal count
        count += 1
        x, choices = case
        run: Run | None = None
        try:
            data = vaezoo.from_arrays(x, likelihood=str(choices.pop("likelihood")))
            config = TrainConfig(steps=3, eval_every=2, device="cpu", **choices)  # type: ignore[arg-type]
            options = {"hidden": [3], "latent_dim": 2}
            run = vaezoo.train("mlp-vae", data, options=options, config=config, out=tmp_path / str(count))
        except VaezooError as e:
            assert e.message and e.hint
        if run:
            assert all(bool(p.isfinite().all()) for p in run.vae.parameters())

    check()
    check_cases("N2", count, [])

"""A NaN or an infinity anywhere in a step of any model: the training ends, and no weight, in memory or on disk, has it.

And what is extreme but legal: it trains, or an error of ours says why not.
"""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from injector import ALL
from safetensors.torch import load_file
from torch import Tensor, nn

import vaezoo
from vaezoo import Batch, DiagonalGaussian, Run, TrainConfig, Trainer, list_models
from vaezoo.errors import DivergedError, VaezooError
from vaezoo.training.checkpoint import list_checkpoints

Tell = Callable[[str, int, Sequence[object]], None]
Site = Callable[[Trainer, Batch, float], Batch]
MODELS = [r.name for r in list_models() if r.distribution == "vaezoo"]
OPTIONS: dict[str, dict[str, object]] = {"mlp-vae": {"hidden": [5]}, "autoencoder": {"hidden": [5]}}
PICTURES = np.random.default_rng(0).random((44, 8, 8), np.float32)
SAVED, BAD, STEPS = 3, 5, 9  # the newest checkpoint, the step that is poisoned, counted from 1, and all there are
PROGRAM = Path(__file__).parents[1] / "training" / "two_processes.py"


class BadGradient(torch.autograd.Function):
    """Gives what it takes, and a gradient that is not finite."""

    @staticmethod
    def forward(ctx, x, value):  # type: ignore[no-untyped-def]
        ctx.value = value
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        return gradient * ctx.value, None


def once(module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Changes what a module gives the next time that it is called."""
    handle = module.register_forward_hook(lambda module, inputs, output: (handle.remove(), change(output))[1])


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal, NaN where NaN is."""
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

    once(trainer.vae.get_submodule("decoder"), change)
    return batch


def in_kl(trainer: Trainer, batch: Batch, value: float) -> Batch:
    encode = trainer.vae.encode

    def far(x: Tensor) -> DiagonalGaussian:
        trainer.vae.encode = encode  # type: ignore[method-assign]
        mu, logvar = encode(x)  # type: ignore[misc]
        return DiagonalGaussian(mu, logvar + 1e4)

    trainer.vae.encode = far  # type: ignore[method-assign]
    return batch


def in_gradients(trainer: Trainer, batch: Batch, value: float) -> Batch:
    once(trainer.vae.get_submodule("encoder"), lambda out: BadGradient.apply(out, value))
    return batch


SITES = {site.__name__[3:]: site for site in (in_batch, in_weights, in_decoder, in_kl, in_gradients)}
GAUSSIAN = [model for model in MODELS if model != "autoencoder"]  # which has neither variances nor a KL
CELLS = [(model, site) for model in MODELS for site in SITES if model in GAUSSIAN or site != "kl"]


class Poisoned:
    """A training that meets something not finite in one step, and what there was just before."""

    def __init__(self, model: str, site: Site, value: float, folder: Path, **config: object) -> None:
        self.site, self.value, self.run = site, value, folder / "run"
        options = {"latent_dim": 2, **OPTIONS.get(model, {"channels": [2]})}
        told = TrainConfig(steps=STEPS, eval_every=SAVED, batch_size=10, device="cpu", **config)  # type: ignore[arg-type]
        data = vaezoo.from_arrays(PICTURES)
        self.error: DivergedError | None = None
        try:
            vaezoo.train(model, data, options=options, config=told, out=self.run, on_start=self.start)
        except DivergedError as e:
            self.error = e

    def start(self, trainer: Trainer, path: Path) -> None:
        outer, self.trainer = self, trainer

        class Step(type(trainer.step)):  # type: ignore[misc]
            def __call__(self, index: int, batch: Batch) -> None:
                if index + 1 == BAD:
                    batch = outer.site(trainer, batch, outer.value)
                    outer.before = [t.detach().clone() for t in outer.tensors()]
                    outer.files = outer.on_disk()
                super().__call__(index, batch)

        trainer.step.__class__ = Step

    def tensors(self) -> list[Tensor]:
        """All weights, averages and moments."""
        step = self.trainer.step
        moments = [t for optimizer in step.optimizers.values() for state in optimizer.state for t in state.values()]
        weights = [p for module in (self.trainer.vae, self.trainer.objective) for p in module.parameters()]
        return [*weights, *step.average.values, *moments]

    def on_disk(self) -> dict[str, str]:
        files = (f for f in (self.run / "checkpoints").rglob("*") if f.is_file())
        return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    def finite_on_disk(self) -> bool:
        tensors = [t for f in self.on_disk() if f.endswith(".safetensors") for t in load_file(f).values()]
        return all(bool(t.isfinite().all()) for t in tensors)

    def bad(self) -> list[str]:
        """What is wrong about how it ended."""
        told, (there, damaged) = self.error, list_checkpoints(self.run / "checkpoints")
        after = self.tensors()
        if told is None:
            return ["it goes on"]
        checks = {
            "exit code": told.exit_code == 4,
            "step": f"at step {BAD}:" in told.message and f"those of step {BAD - 1}" in told.message,
            "terms": all(f"{term} " in told.message for term in ("elbo", "reconstruction", "kl")),
            "hint": f"the last checkpoint in {self.run} is that of step {SAVED}" in told.hint,
            "disk": self.finite_on_disk(),
            "checkpoints": [c.step for c in there] == [0, SAVED] and not damaged and self.on_disk() == self.files,
            "memory": all(map(same, self.before, after)),
            "load": vaezoo.load(self.run).checkpoint.step in (0, SAVED),
        }
        return [name for name, fine in checks.items() if not fine]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("model", "site"), CELLS)
def test_what_is_not_finite_ends_the_training(model: str, site: str, value: float, tmp_path: Path, tell: Tell) -> None:
    poisoned = Poisoned(model, SITES[site], value, tmp_path)
    bad, hidden = poisoned.bad(), []
    if (site, value) == ("weights", -math.inf):  # which a ReLU makes 0: loss and gradients are finite
        assert poisoned.error and "holds values that are not finite" in poisoned.error.message
        hidden = ["step", "terms", "memory"]  # it is found when the weights are to be saved
    tell("N1", 1, [f"{model}, {site}: {what}" for what in bad if what not in hidden])
    assert poisoned.finite_on_disk()


@pytest.mark.parametrize(("model", "site"), CELLS)
def test_so_it_does_in_bf16(model: str, site: str, tmp_path: Path, tell: Tell) -> None:
    poisoned = Poisoned(model, SITES[site], math.nan, tmp_path, precision="bf16")
    tell("N1", 1, [f"{model}, {site}: {what}" for what in poisoned.bad()])


@pytest.mark.parametrize(
    "how", [{"ema_decay": 0.9}, {"grad_accum_steps": 2}, {"clip_grad": 1.0}, {"optimizer": "rmsprop"}]
)
def test_so_it_does_however_the_step_is_taken(how: dict[str, object], tmp_path: Path, tell: Tell) -> None:
    poisoned = Poisoned("mlp-vae", in_batch, math.nan, tmp_path, **how)
    tell("N1", 1, [f"{how}: {what}" for what in poisoned.bad()])


def test_so_it_does_compiled(tmp_path: Path, tell: Tell) -> None:
    tell("N1", 1, Poisoned("mlp-vae", in_batch, math.nan, tmp_path, compile="on").bad())


@pytest.mark.parametrize("raw", [1e4, -1e4, 1e30, -1e30])
@pytest.mark.parametrize("model", GAUSSIAN)
def test_log_variances_however_far_out_are_finite(model: str, raw: float, tmp_path: Path, tell: Tell) -> None:
    """The networks' own: they are bounded, and the training goes on."""

    def start(trainer: Trainer, path: Path) -> None:
        far = torch.tensor([0.0, 0.0, raw, raw])  # means, then raw log-variances
        trainer.vae.get_submodule("encoder").register_forward_hook(lambda module, inputs, output: output + far)

    options = {"latent_dim": 2, **OPTIONS.get(model, {"channels": [2]})}
    config = TrainConfig(steps=3, batch_size=10, device="cpu")
    run = vaezoo.train(
        model, vaezoo.from_arrays(PICTURES), options=options, config=config, out=tmp_path / "run", on_start=start
    )
    tell("N1", 1, [name for name, p in run.vae.named_parameters() if not bool(p.isfinite().all())])


def test_on_one_rank_alone_it_ends_the_training_on_both(tmp_path: Path, tell: Tell) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, str(PROGRAM), "nan", str(tmp_path / "run")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = "DivergedError: training diverged at step 5: a loss or gradient is not finite"
    there, damaged = list_checkpoints(tmp_path / "run" / "checkpoints")
    fine = done.stderr.count(said) == 2 and done.stderr.count("is that of step 4") == 2 and not damaged
    tell("N1", 1, [] if fine and [c.step for c in there] == [0, 4] else [done.stderr[-2000:]])


@st.composite
def extremes(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, object]]:
    """Draws data that are constant or at the ends of what is legal, and settings likewise."""
    n = draw(st.sampled_from([2, 3, 4, 20]))
    shape = (n, *draw(st.sampled_from([(1,), (5,), (2, 3)])))
    kind = draw(st.sampled_from(["zeros", "ones", "constant", "bits", "near the ends", "bytes", "one pixel"]))
    random = np.random.default_rng(draw(st.integers(0, 9)))
    ends = np.array([0, 1e-45, 1e-38, 1e-7, 1 - 2**-24, 1], np.float32)
    x = {
        "zeros": np.zeros(shape, np.float32),
        "ones": np.ones(shape, np.float32),
        "constant": np.full(shape, 1 / 3, np.float32),
        "bits": random.integers(0, 2, shape, np.uint8),
        "near the ends": random.choice(ends, shape),
        "bytes": random.integers(0, 256, shape, np.uint8),
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


def test_what_is_extreme_but_legal_trains_or_is_an_error_of_ours(tmp_path: Path, tell: Tell) -> None:
    count = 0

    @settings(
        max_examples=1000 if ALL else 50,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(extremes())
    def check(drawn: tuple[np.ndarray, dict[str, object]]) -> None:
        nonlocal count
        count += 1
        x, told = drawn
        run: Run | None = None
        try:
            data = vaezoo.from_arrays(x, likelihood=str(told.pop("likelihood")))
            config = TrainConfig(steps=3, eval_every=2, device="cpu", **told)  # type: ignore[arg-type]
            options = {"hidden": [3], "latent_dim": 2}
            run = vaezoo.train("mlp-vae", data, options=options, config=config, out=tmp_path / str(count))
        except VaezooError as e:
            assert e.message and e.hint
        if run:
            assert all(bool(p.isfinite().all()) for p in run.vae.parameters())

    check()
    tell("N2", count, [])

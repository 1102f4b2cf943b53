"""The trainer: what it computes, that it repeats itself, and that nothing infinite reaches the weights."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from image_models import image_models

import vaezoo
from vaezoo import ELBO, LossOutput, TrainConfig, Trainer, create_model, get_model
from vaezoo.core.device import resolve_device
from vaezoo.core.options import configure
from vaezoo.core.seed import derive_seed, epoch_permutation
from vaezoo.errors import DivergedError, UnsupportedDataError, VaezooError, VaezooWarning
from vaezoo.objectives.base import Objective, StepContext
from vaezoo.training import trainer
from vaezoo.training.train_step import binarize
from vaezoo.training.trainer import evaluate

MODELS = image_models()


def build(name, digits, **options):
    spec = get_model(name)
    config = configure(spec.config, {**spec.data_defaults(digits.spec), **options})
    torch.manual_seed(0)
    return spec.build(config, digits.spec), spec.objective(config, digits.spec)


def fit(digits, vae, objective=None, **settings):
    """Trains and returns the reports."""
    reports = []
    settings = {"batch_size": 50, "steps": 12} | settings
    Trainer(vae, objective or ELBO(), digits, TrainConfig(**settings), on_report=reports.append).fit()
    return reports


def weights(*modules):
    return torch.cat([p.detach().flatten() for module in modules for p in module.parameters()])


@pytest.mark.parametrize(
    "name", [m if m in ("mlp-vae", "vae-gan") else pytest.param(m, marks=pytest.mark.matrix) for m in MODELS]
)
def test_training_repeats_exactly(name, digits):
    results = []
    for noise in (1, 2):
        vae, objective = build(name, digits)
        torch.manual_seed(noise)  # the caller's random state has no part in it
        reports = fit(digits, vae, objective, eval_every=6)
        results.append((weights(vae, objective), [r.metrics for r in reports]))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert not torch.equal(results[0][0], weights(*build(name, digits)))


def test_training_raises_elbo(digits):
    vae, _ = build("mlp-vae", digits)
    reports = [r for r in fit(digits, vae, steps=120) if r.split == "valid"]
    assert reports[-1].metrics["elbo"] > reports[0].metrics["elbo"] + 50


def test_posterior_collapse_warns_once(digits, monkeypatch):
    monkeypatch.setattr(trainer, "COLLAPSE_STEPS", 40)
    vae, _ = build("mlp-vae", digits)
    with pytest.warns(VaezooWarning, match="the posterior has collapsed by step 80") as warned:
        fit(digits, vae, ELBO(beta=1e4), lr=0.01, steps=160, eval_every=40)
    assert len(warned) == 1 and "--likelihood gaussian:optimal" in str(warned[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(digits, build("mlp-vae", digits)[0], steps=160, eval_every=40)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sines", "penguins", "names", "scaled"])
def test_posterior_collapse_of_any_data_is_told_at_the_end(name):
    """A table has few steps in all, so no evaluation may come after COLLAPSE_STEPS."""
    table = np.random.default_rng(0).normal(size=(300, 4))
    data = vaezoo.from_arrays(table, scale="minmax") if name == "scaled" else vaezoo.load_data(name)
    vae, _ = build("sentence-vae" if name == "names" else "mlp-vae", data)
    with pytest.warns(VaezooWarning, match="the posterior has collapsed by step 40") as warned:
        fit(data, vae, ELBO(beta=1e5), lr=0.01, steps=40, eval_every=10, batch_size=100)
    assert len(warned) == 1
    # Another likelihood helps where it is gaussian:learned, as of the sines. It is gaussian:optimal of the scaled data.
    assert ("--likelihood gaussian:optimal" in str(warned[0].message)) == (name == "sines")


def test_a_trial_of_a_few_steps_is_no_collapse(digits, recwarn):
    fit(digits, build("mlp-vae", digits)[0], ELBO(beta=1e5), lr=0.01, steps=trainer.TRIAL_STEPS - 1)
    assert not [w for w in recwarn if "collapsed" in str(w.message)]


def test_seed_changes_weights(digits):
    a, b = (build("mlp-vae", digits)[0] for _ in range(2))
    fit(digits, a, seed=1)
    fit(digits, b, seed=2)
    assert not torch.equal(weights(a), weights(b))


def test_caller_rng_is_unchanged(digits):
    vae, _ = build("mlp-vae", digits)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(digits, vae)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", ["mlp-vae", "conv-vae"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop", "adamax"])
def test_step_equals_manual_pytorch(optimizer, name, digits):
    config = TrainConfig(
        optimizer=optimizer, lr=2e-3, weight_decay=0.01, clip_grad=5.0, batch_size=50, steps=3, schedule="cosine"
    )
    vae, objective = build(name, digits)
    Trainer(vae, objective, digits, config).fit()
    actual = [p.detach().clone() for p in vae.parameters()]

    vae, objective = build(name, digits)
    before = [p.detach().clone() for p in vae.parameters()]
    kinds = {"adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop", "adamax": "Adamax"}
    by_hand = getattr(torch.optim, kinds[optimizer])(vae.parameters(), lr=2e-3, weight_decay=0.01, foreach=False)
    order = epoch_permutation(0, 0, len(digits.train))
    for step in range(3):
        for group in by_hand.param_groups:
            group["lr"] = 2e-3 * config.lr_factor(step, 3)
        torch.manual_seed(derive_seed(0, "noise", step))
        batch = digits.train.batch(order[50 * step : 50 * (step + 1)])
        by_hand.zero_grad()
        objective(vae, batch, StepContext.initial()).losses["vae"].backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 5.0)
        by_hand.step()
    # Where a gradient is a sum that cancels, a rounding turns the sign of an update: so each layer, not each weight.
    for a, b, start in zip(actual, vae.parameters(), before, strict=True):
        assert float((a - b.detach()).norm()) <= 0.03 * float((b.detach() - start).norm())


class Poisoned(Objective):
    """The ELBO, with a loss or a gradient that is not finite at one step."""

    def __init__(self, at, kind):
        super().__init__()
        self.inner, self.at, self.kind = ELBO(), at, kind

    def parameter_groups(self, vae):
        return self.inner.parameter_groups(vae)

    def forward(self, vae, batch, step):
        out = self.inner(vae, batch, step)
        if int(step.global_step) != self.at or not self.training:
            return out
        loss = out.losses["vae"]
        zero = 0 * next(vae.parameters()).sum()
        poison = {"nan": loss * float("nan"), "inf": loss * float("inf"), "gradient": loss + zero.abs().sqrt()}
        return LossOutput({"vae": poison[self.kind]}, out.metrics)


@pytest.mark.parametrize("kind", ["nan", "inf", "gradient"])
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "adamax"])
def test_non_finite_never_reaches_weights(kind, optimizer, digits):
    vae, _ = build("mlp-vae", digits)
    fit(digits, vae, steps=4, optimizer=optimizer)
    before = weights(vae)
    vae, _ = build("mlp-vae", digits)
    with pytest.raises(DivergedError) as e:
        fit(digits, vae, Poisoned(at=4, kind=kind), steps=9, optimizer=optimizer)
    assert "at step 5" in e.value.message and "those of step 4" in e.value.message
    assert torch.equal(weights(vae), before)


def test_paused_group_keeps_weights(digits):
    vae, objective = build("vae-gan", digits, equilibrium=5.0, margin=0.1)  # the discriminator is always "ahead"
    before = weights(vae), weights(objective)
    fit(digits, vae, objective, steps=3)
    assert torch.equal(weights(objective), before[1])
    assert not torch.equal(weights(vae), before[0])


def test_epochs_are_permutations(digits):
    n = len(digits.train)
    first, second = epoch_permutation(0, 0, n), epoch_permutation(0, 1, n)
    assert sorted(first.tolist()) == list(range(n)) == sorted(second.tolist())
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_are_permuted_once(workers, digits, monkeypatch):
    """A permutation of the data takes longer than a small network's step, so it is drawn once per epoch."""
    drawn = []

    def counted(seed, epoch, n):
        drawn.append(epoch)
        return epoch_permutation(seed, epoch, n)

    monkeypatch.setattr(trainer, "epoch_permutation", counted)
    fit(digits, build("mlp-vae", digits)[0], steps=30, workers=workers)  # 12 steps per epoch
    assert drawn == [0, 1, 2]


def test_dynamic_binarization_samples_bits(digits):
    config = TrainConfig(binarize="dynamic")
    index = torch.arange(100)
    torch.manual_seed(0)
    grey = digits.train.batch(index).x
    draws = torch.stack([binarize(grey, config) for _ in range(200)])
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert float((draws.mean(0) - grey).abs().max()) < 0.25


def test_evaluation_is_deterministic_and_unbiased(digits):
    vae, objective = build("mlp-vae", digits)
    vae.train()
    results = [evaluate(vae, objective, digits.valid, TrainConfig(batch_size=size)) for size in (64, 64, 7)]
    assert results[0] == results[1]
    assert results[0]["kl"] == pytest.approx(results[2]["kl"], rel=1e-4)  # exact, whatever the batches
    assert results[0]["reconstruction"] != results[2]["reconstruction"]  # z is drawn anew, not its mean taken
    assert vae.training
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    evaluate(vae, objective, digits.valid, TrainConfig())
    assert torch.equal(torch.rand(2), expected)


def test_reports_show_progress(digits):
    vae, _ = build("mlp-vae", digits)
    reports = fit(digits, vae, steps=24, eval_every=10)
    assert [(r.split, r.step) for r in reports] == [
        (split, step) for step in (10, 20, 24) for split in ("train", "valid")
    ]
    last = reports[-1]
    assert last.epoch == last.epochs == 2 and last.seconds_left == 0 and last.images_per_second > 0


def test_kl_warmup_changes_training(digits):
    a, b = (build("mlp-vae", digits)[0] for _ in range(2))
    fit(digits, a)
    fit(digits, b, kl_warmup=100)
    assert not torch.equal(weights(a), weights(b))


def test_mismatched_setup_is_refused(digits):
    vae, objective = build("mlp-vae", digits)
    with pytest.raises(VaezooError, match="batch size 601 is larger"):
        Trainer(vae, objective, digits, TrainConfig(batch_size=601))
    other = create_model("mlp-vae", dataclasses.replace(digits.spec, shape=(9,)))
    with pytest.raises(UnsupportedDataError):
        Trainer(other, objective, digits, TrainConfig())


def test_indivisible_batch_is_refused(digits):
    vae, objective = build("mlp-vae", digits)
    with pytest.raises(VaezooError, match="batch size 50 cannot be divided into 4 equal parts"):
        Trainer(vae, objective, digits, TrainConfig(batch_size=50, grad_accum_steps=4))


def test_grad_accumulation_matches_full_batch(digits):
    whole, parts = (build("mlp-vae", digits)[0] for _ in range(2))
    fit(digits, whole, lr=1e-4)
    reports = fit(digits, parts, grad_accum_steps=5, lr=1e-4)
    difference = float((weights(whole) - weights(parts)).norm() / weights(whole).norm())
    assert 0 < difference < 1e-2  # other noise, the same images
    assert reports[-1].metrics["elbo"] < 0


def test_early_stopping_waits_for_improvement(digits):
    vae, _ = build("mlp-vae", digits)
    bounds = [
        r.metrics["elbo"]
        for r in fit(digits, vae, steps=400, eval_every=4, lr=0.05, early_stopping=2)
        if r.split == "valid"
    ]
    assert len(bounds) < 100
    best = bounds.index(max(bounds))
    assert len(bounds) == best + 3


def test_early_stopping_needs_a_monitor(digits):
    with pytest.raises(VaezooError, match="no metric that tells its best"):
        Trainer(*build("vae-gan", digits), digits, TrainConfig(early_stopping=2))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_bf16_covers_networks_only(name, digits):
    vae, objective = build(name, digits)
    seen = {"layers": set(), "terms": set()}
    for module in [*vae.modules(), *objective.modules()]:
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            module.register_forward_hook(lambda m, inputs, output: seen["layers"].add((m.training, output.dtype)))
    log_prob, kl_terms = vae.likelihood.log_prob, vae.prior.kl_terms

    def watch(function):
        def watched(*tensors):
            out = function(*tensors)
            flat = [t for value in (*tensors, out) for t in (value if isinstance(value, tuple) else (value,))]
            seen["terms"] |= {t.dtype for t in flat if isinstance(t, torch.Tensor) and t.is_floating_point()}
            return out

        return watched

    vae.likelihood.log_prob, vae.prior.kl_terms = watch(log_prob), watch(kl_terms)
    reports = fit(digits, vae, objective, steps=2, precision="bf16")
    # Some densities have layers: a flow, the encoder of pseudo-inputs, the levels of a hierarchy, and the decoder along
    # whose gradient the Hamiltonian posterior moves.
    with_layers = ("iaf-vae", "vamp-vae", "ladder-vae", "hvae", "hamiltonian-vae")
    in_densities = {(True, torch.float32)} if name in with_layers else set()
    assert seen["layers"] - in_densities == {(True, torch.bfloat16), (False, torch.float32)}  # evaluation is float32
    assert seen["terms"] == {torch.float32}
    assert {p.dtype for p in vae.parameters()} == {torch.float32}
    assert reports[0].metrics["elbo"] < 0


@pytest.mark.slow
def test_bf16_matches_fp32_elbo(digits):
    bounds = []
    for precision in ("fp32", "bf16"):
        vae, _ = build("conv-vae", digits)
        bounds.append(fit(digits, vae, steps=60, precision=precision)[-1].metrics["elbo"])
    assert bounds[1] == pytest.approx(bounds[0], rel=0.02)


def test_tf32_needs_cuda(digits):
    with pytest.raises(VaezooError, match="precision tf32 needs CUDA"):
        Trainer(*build("mlp-vae", digits), digits, TrainConfig(precision="tf32", device="cpu"))


class Greedy(ELBO):
    """An objective that asks for a petabyte."""

    def forward(self, vae, batch, step):
        return super().forward(vae, batch, step)._replace(metrics={"elbo": torch.empty(2**50)})


def test_out_of_memory_names_batch(digits):
    vae, _ = build("mlp-vae", digits)
    with pytest.raises(VaezooError, match="a batch of 50 does not fit in the memory") as e:
        fit(digits, vae, Greedy())
    assert "--grad-accum-steps 2" in e.value.hint and "--batch-size" in e.value.hint


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "mps:3", "xpu", ""])
def test_missing_device_is_refused(name):
    with pytest.raises(VaezooError) as e:
        resolve_device(name)
    assert "auto" in e.value.hint


def test_auto_device_exists():
    assert torch.zeros(1, device=resolve_device("auto")).sum() == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", MODELS)
def test_cuda_training_follows_cpu(name, digits):
    metrics = {}
    for device in ("cpu", "cuda"):
        vae, objective = build(name, digits)
        metrics[device] = evaluate(
            vae.to(device), objective.to(device), digits.valid.to(torch.device(device)), TrainConfig()
        )
        fit(digits, vae, objective, device=device)
    assert metrics["cuda"]["kl"] == pytest.approx(metrics["cpu"]["kl"], rel=1e-3)

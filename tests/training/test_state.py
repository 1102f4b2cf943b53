"""The state of a training covers buffers: the guard, the average, the exchange between processes, and resume."""

import dataclasses

import pytest
import torch
from torch import nn

import vaezoo
from vaezoo import ELBO, GaussianVAE, LossOutput, TrainConfig, Trainer, create_model
from vaezoo.core import distributed
from vaezoo.errors import DivergedError
from vaezoo.objectives.base import Objective
from vaezoo.training import train_step
from vaezoo.training.train_step import StepGrads, average_over_processes, saved_buffers


def batch_norm_vae(digits):
    """A model whose batch normalisation has buffers in floating point and an integer counter."""
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    decoder = nn.Sequential(nn.Linear(2, 784), nn.Unflatten(1, (1, 28, 28)))
    return GaussianVAE(digits.spec, 2, encoder, decoder)


def optimal_sigma_vae(digits):
    return create_model("mlp-vae", dataclasses.replace(digits.spec, likelihood="gaussian:optimal"), {"hidden": "8"})


MODELS = {"batch norm": batch_norm_vae, "optimal sigma": optimal_sigma_vae}


class NaNInput(Objective):
    """The ELBO of a batch that is NaN at one step, so that the forward pass spoils the buffers."""

    def __init__(self, at):
        super().__init__()
        self.elbo, self.at = ELBO(), at

    def parameter_groups(self, vae):
        return self.elbo.parameter_groups(vae)

    def forward(self, vae, batch, step):
        spoiled = (step.global_step == self.at) & self.training
        return self.elbo(vae, batch._replace(x=batch.x * torch.where(spoiled, float("nan"), 1.0)), step)


class SpoiledBuffer(ELBO):
    """The ELBO, beside a buffer that becomes NaN although no loss does."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, vae, batch, step):
        if self.training:
            self.count.add_(torch.where(step.global_step == 3, float("nan"), 1.0))
        return super().forward(vae, batch, step)


def fit(digits, build, objective=None, **settings):
    """Trains and returns the model and the trainer, also if the training diverges."""
    torch.manual_seed(0)
    vae = build(digits)
    data = dataclasses.replace(digits, spec=vae.data)
    config = TrainConfig(**{"batch_size": 50, "steps": 3, "device": "cpu", "compile": "off"} | settings)
    trainer = Trainer(vae, objective or ELBO(), data, config)
    try:
        trainer.fit()
    except DivergedError as e:
        trainer.error = e
    return vae, trainer


def assert_same_state(actual, expected):
    for name, value in expected.state_dict().items():
        assert torch.equal(actual.state_dict()[name], value), name


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"grad_accum_steps": 2},
        {"ema_decay": 0.9},
        {"optimizer": "rmsprop"},
        pytest.param({"compile": "on"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", MODELS)
def test_guard_restores_buffers(name, settings, digits):
    expected, _ = fit(digits, MODELS[name], **settings)
    vae, trainer = fit(digits, MODELS[name], NaNInput(at=3), **settings | {"steps": 8})
    assert "at step 4" in trainer.error.message and "those of step 3" in trainer.error.message
    assert_same_state(vae, expected)


def test_non_finite_buffer_is_reported(digits):
    objective = SpoiledBuffer()
    _, trainer = fit(digits, optimal_sigma_vae, objective, steps=8)
    assert "at step 4" in trainer.error.message and "buffer" in trainer.error.message
    assert objective.count == 3


def test_stop_after_divergence_saves_nothing(digits):
    _, trainer = fit(digits, batch_norm_vae, NaNInput(at=0))
    with pytest.raises(DivergedError):
        trainer.train_step.raise_if_diverged()


def test_ema_covers_buffers(digits):
    """The average follows its formula for a buffer, and integers are those of the newest step."""
    history = []
    build = batch_norm_vae

    class Recording(ELBO):
        def forward(self, vae, batch, step):
            out = super().forward(vae, batch, step)
            if self.training:
                history.append(vae.encoder[2].running_mean.clone())
            return out

    vae, trainer = fit(digits, build, Recording(), ema_decay=0.5, steps=6)
    expected = torch.zeros(8)
    for n, value in enumerate(history):
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    with trainer.train_step.ema.applied():
        torch.testing.assert_close(vae.encoder[2].running_mean, expected)
        assert vae.encoder[2].num_batches_tracked == 6
    torch.testing.assert_close(vae.encoder[2].running_mean, history[-1])


def test_checkpoint_holds_averaged_buffers(digits, tmp_path):
    """What is evaluated and saved is the average, and a resumed training continues from the newest buffers."""
    data = dataclasses.replace(digits, spec=dataclasses.replace(digits.spec, likelihood="gaussian:optimal"))
    config = TrainConfig(steps=6, eval_every=3, batch_size=50, ema_decay=0.9, device="cpu")
    run = vaezoo.train("mlp-vae", data, options={"hidden": "8"}, config=config, out=tmp_path / "run")
    plain = dataclasses.replace(config, ema_decay=None)
    other = vaezoo.train("mlp-vae", data, options={"hidden": "8"}, config=plain, out=tmp_path / "plain")
    averaged, newest = run.vae.likelihood.log_sigma, other.vae.likelihood.log_sigma
    assert newest < averaged < 0  # both began at 0


def test_processes_average_buffers(monkeypatch):
    """Gradients, losses and floating-point buffers take part; integers do not."""
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    other = {"stop": 1.0, "buffer": 3.0, "loss": 5.0, "metric": 7.0, "gradient": 9.0}
    monkeypatch.setattr(distributed, "dist_mean_", lambda t: t.add_(torch.tensor(list(other.values()))).div_(2))
    buffers, stop = [torch.tensor([1.0]), torch.tensor(4)], torch.zeros(())
    grads = StepGrads({"vae": torch.tensor(1.0)}, {"elbo": torch.tensor(1.0)}, {"vae": [torch.tensor([1.0]), None]})
    result = average_over_processes(grads, buffers, stop)
    assert (stop, buffers[0], buffers[1]) == (0.5, 2, 4)
    assert (result.losses["vae"], result.metrics["elbo"], result.gradients["vae"]) == (3, 4, [5, None])


def test_constants_are_not_guarded(digits):
    """A prior's shape or a fixed sigma is not saved, so it costs nothing."""
    data = dataclasses.replace(digits.spec, likelihood="gaussian:0.5")
    assert saved_buffers(create_model("mlp-vae", data)) == []
    assert len(saved_buffers(batch_norm_vae(digits))) == 3


def test_path_of_a_batch_is_short(digits, monkeypatch):
    """At most three functions stand between the training loop and the objective."""
    import traceback

    depths = []

    class Watching(ELBO):
        def forward(self, vae, batch, step):
            if self.training:
                names = [f.name for f in traceback.extract_stack()]
                own = [f.filename == train_step.__file__ for f in traceback.extract_stack()]
                loop = len(names) - 1 - names[::-1].index("_train")
                depths.append(sum(own[loop + 1 :]))
            return LossOutput(*super().forward(vae, batch, step))

    fit(digits, optimal_sigma_vae, Watching())
    assert depths and max(depths) <= 3

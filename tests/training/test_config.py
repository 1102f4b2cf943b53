"""Settings and their schedules."""

from dataclasses import fields

import pytest

from vaezoo import TrainConfig
from vaezoo.errors import VaezooError


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 0},
        {"steps": 0},
        {"batch_size": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"clip_grad": 0.0},
        {"free_bits": -1.0},
        {"kl_warmup": -1},
        {"seed": -1},
        {"schedule": "multistep"},
        {"milestones": (5,)},
        {"schedule": "cos"},
        {"optimizer": "sgd"},
        {"binarize": "yes"},
        {"epochs": 1.5},
        {"epochs": "3"},
        {"epochs": True},
        {"lr": "a"},
        {"device": None},
    ],
)
def test_bad_values_are_refused(bad):
    with pytest.raises(VaezooError) as e:
        TrainConfig(**bad)
    assert next(iter(bad)) in e.value.message


@pytest.mark.parametrize("name", [f.name for f in fields(TrainConfig) if "float" in str(f.type)])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400, True], ids=range(5))
def test_floats_must_be_finite(name, value):
    with pytest.raises(VaezooError, match=name):
        TrainConfig(**{name: value})


@pytest.mark.parametrize("name", [f.name for f in fields(TrainConfig) if "int" in str(f.type)])
@pytest.mark.parametrize("value", [2**63, 10**5000, True, 1.5, float("nan")], ids=range(5))
def test_integers_have_64_bits(name, value):
    with pytest.raises(VaezooError, match=name) as e:
        TrainConfig(**{name: (value,) if name == "milestones" else value})
    assert len(e.value.message) < 200


def test_constant_schedule_with_warmup():
    config = TrainConfig(lr_warmup=4)
    assert [config.lr_factor(step, 100) for step in (0, 1, 3, 4, 99)] == [0.25, 0.5, 1, 1, 1]


def test_cosine_schedule_ends_at_zero():
    config = TrainConfig(schedule="cosine")
    assert config.lr_factor(0, 100) == 1
    assert config.lr_factor(50, 100) == pytest.approx(0.5)
    assert 0 < config.lr_factor(99, 100) < 1e-3


def test_multistep_schedule_uses_milestones():
    config = TrainConfig(schedule="multistep", milestones=(10, 20), lr_gamma=0.5)
    assert [config.lr_factor(step, 100) for step in (9, 10, 19, 20)] == [1, 0.5, 0.5, 0.25]


def test_kl_warmup_counts_steps():
    config = TrainConfig(kl_warmup=10)
    assert [config.kl_weight(step) for step in (0, 5, 10, 11)] == [0, 0.5, 1, 1]
    assert TrainConfig().kl_weight(0) == 1

"""A run that gets longer, whose data have moved, or that starts from another run; and which checkpoint is the best."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from test_resume import contents

import vaezoo
from vaezoo import TrainConfig
from vaezoo.errors import InputError, VaezooError, VaezooWarning
from vaezoo.training.checkpoint import list_checkpoints

SMALL = {"hidden": "8", "latent_dim": 2}


@pytest.fixture(scope="module")
def data():
    x = np.random.default_rng(0).random((120, 6), np.float32)
    return vaezoo.from_arrays(x, name="small", likelihood="bernoulli")  # no sigma that changes at any learning rate


@pytest.fixture
def train(data, tmp_path):
    def train(name, dataset=data, options=SMALL, model="mlp-vae", **settings):
        length = {} if "steps" in settings else {"epochs": 2}
        config = TrainConfig(**({"batch_size": 20} | length | settings))
        return vaezoo.train(model, dataset, options=options, config=config, out=tmp_path / name)

    return train


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"kl_warmup": 8, "ema_decay": 0.9},
        {"schedule": "multistep", "milestones": (8,), "lr_warmup": 3},
        {"early_stopping": 50},
    ],
    ids=lambda s: " ".join(s) or "plain",
)
def test_longer_run_has_the_same_bytes(settings, data, train, tmp_path):
    whole = train("whole", epochs=4, **settings)
    train("parts", epochs=2, **settings)
    run = vaezoo.resume(tmp_path / "parts", data, epochs=4)
    assert contents(run.path) == contents(whole.path)
    assert run.training.epochs == 4 and vaezoo.resume(run.path, data).result == whole.result


def test_length_in_steps_may_follow_epochs(data, train, tmp_path):
    whole, _ = train("whole", steps=13), train("parts")
    run = vaezoo.resume(tmp_path / "parts", data, steps=13)
    assert contents(run.path) == contents(whole.path) | {"run.json": contents(run.path)["run.json"]}
    assert run.training.steps == 13
    run = vaezoo.resume(run.path, data, epochs=4)  # the end at step 13 lies between two evaluations
    ends = [list_checkpoints(path / "checkpoints")[0][-1] for path in (run.path, train("other", epochs=4).path)]
    assert ends[0].step == 20 and ends[0].model_sha256 == ends[1].model_sha256


def test_unfinished_run_may_get_shorter(data, train, tmp_path):
    train("parts", epochs=4)
    (tmp_path / "parts" / "result.json").unlink()
    for step in (15, 20):
        shutil.rmtree(tmp_path / "parts" / "checkpoints" / f"step-{step:08d}")
    assert vaezoo.resume(tmp_path / "parts", data, epochs=3).checkpoint.step <= 15
    with pytest.raises(VaezooError, match="has 15 steps already, more than 10"):
        vaezoo.resume(tmp_path / "parts", data, epochs=2)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"schedule": "cosine"}, "its cosine schedule ends at step 10"),
        ({"epochs": 40, "early_stopping": 1, "lr": 1e-9}, "stopped early at step"),
    ],
)
def test_lengths_that_would_mislead_are_refused(settings, error, data, train, tmp_path):
    before = contents(train("run", **settings).path)
    with pytest.raises(VaezooError, match=error) as e:
        vaezoo.resume(tmp_path / "run", data, epochs=90)
    assert "--init-from" in e.value.hint and contents(tmp_path / "run") == before
    with pytest.raises(VaezooError, match="both set the length"):
        vaezoo.resume(tmp_path / "run", data, epochs=3, steps=5)


def test_change_of_length_survives_a_kill(data, train, tmp_path, monkeypatch):
    """A kill between the two writes leaves an unfinished run of the old length."""
    before = contents(train("run").path)

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("vaezoo.training.resume.write_json", fail)
        vaezoo.resume(tmp_path / "run", data, epochs=4)
    assert not vaezoo.load(tmp_path / "run").result
    vaezoo.resume(tmp_path / "run", data)
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize("finished", [True, False])
def test_moved_data_are_found(finished, train, tmp_path):
    x = np.random.default_rng(1).random((120, 6), np.float32)
    np.save(tmp_path / "old.npy", x)
    whole = train("run", vaezoo.load_data(tmp_path / "old.npy"))
    before = contents(whole.path)
    if not finished:
        (whole.path / "result.json").unlink()
        shutil.rmtree(whole.path / "checkpoints" / "step-00000010")
    (tmp_path / "old.npy").rename(tmp_path / "new.npy")
    if not finished:
        with pytest.raises(InputError, match="are no longer at") as e:
            vaezoo.resume(whole.path)
        assert "--data" in e.value.hint
    run = vaezoo.resume(whole.path, tmp_path / "new.npy")
    after = contents(run.path)
    assert {k for k in after if after[k] != before.get(k)} == {"run.json"} and after.keys() == before.keys()
    assert run.load_data().spec.shape == (6,)  # the run knows the new place
    np.save(tmp_path / "new.npy", x * np.float32(0.99))
    with pytest.raises(InputError, match="the data are not those"):
        vaezoo.resume(run.path, tmp_path / "new.npy", epochs=3)
    assert contents(run.path) == after


def test_arrays_of_a_program_may_be_a_file(data, train, tmp_path):
    train("run")
    x = torch.cat([data.train.x, data.valid.x])
    order = np.argsort([*(i for i in range(120) if i % 10), *range(0, 120, 10)], kind="stable")
    np.save(tmp_path / "x.npy", x.numpy()[order])
    run = vaezoo.resume(tmp_path / "run", tmp_path / "x.npy", epochs=3)
    assert run.training.epochs == 3 and len(run.load_data().train) == 108


def test_warm_start_has_the_weights(data, train, tmp_path):
    first = train("first")
    config = TrainConfig(batch_size=20, epochs=1, lr=1e-12)
    run = vaezoo.train("mlp-vae", data, options=SMALL, config=config, out=tmp_path / "second", init_from=first)
    old, new = first.vae.state_dict(), run.vae.state_dict()
    assert all(torch.allclose(old[name], new[name], atol=1e-9) for name in old)
    assert json.loads((run.path / "run.json").read_text())["init_from"] == {
        "model": "vaezoo/mlp-vae",
        "step": first.checkpoint.step,
        "sha256": first.checkpoint.model_sha256,
    }
    before = contents(run.path)
    (run.path / "result.json").unlink()
    shutil.rmtree(run.path / "checkpoints" / "step-00000005")
    vaezoo.resume(run.path, data)
    assert contents(run.path) == before
    (run.path / "result.json").unlink()
    shutil.rmtree(run.path / "checkpoints")
    with pytest.raises(InputError, match="before its first checkpoint"):
        vaezoo.resume(run.path, data)


def test_misfit_of_a_warm_start_is_listed(data, train, tmp_path):
    first = train("first")
    with pytest.raises(InputError, match=r"encoder\S* has shape \(\d+, \d+\), not|do not fit mlp-vae") as e:
        vaezoo.train("mlp-vae", data, options={"hidden": "9"}, out=tmp_path / "second", init_from=first.path)
    assert "has shape" in e.value.message and e.value.hint == "give the options of that run: latent_dim=2, hidden=8"
    with pytest.raises(InputError, match="do not fit autoencoder") as e:
        vaezoo.train("autoencoder", data, options={"hidden": "9"}, out=tmp_path / "second", init_from=first.path)
    assert e.value.hint.startswith("train mlp-vae")
    assert not (tmp_path / "second").exists()
    options = SMALL | {"objective": "factor"}
    config = TrainConfig(batch_size=20, steps=1)
    with pytest.warns(VaezooWarning, match="the weights of the objective start anew"):
        vaezoo.train("mlp-vae", data, options=options, config=config, out=tmp_path / "third", init_from=first)


@pytest.mark.parametrize(
    ("options", "monitor"),
    [
        ({}, "elbo"),
        ({"objective.beta": 8}, "weighted_elbo"),
        ({"objective.capacity": 3}, "weighted_elbo"),
        ({"objective": "iwae"}, "iwae"),
    ],
    ids=lambda v: str(v),
)
def test_best_follows_the_objective(options, monitor, data, train):
    run = train("run", options=SMALL | options, epochs=3)
    assert json.loads((run.path / "run.json").read_text())["monitor"] == monitor
    kept, _ = list_checkpoints(run.path / "checkpoints")
    assert run.checkpoint.metrics[monitor] == max(c.metrics[monitor] for c in kept)
    m = run.checkpoint.metrics
    weighted = {
        "objective.beta": m["reconstruction"] + 8 * m["kl"],
        "objective.capacity": m["reconstruction"] + abs(m["kl"] - 3),
    }
    for name in options.keys() & weighted.keys():
        assert m["weighted_elbo"] == pytest.approx(-weighted[name], rel=1e-5)


def test_early_stopping_follows_the_weighted_loss(data, tmp_path):
    """With a large beta the ELBO gets worse while the loss gets better, so the ELBO would choose an early step."""
    images = dataclasses.replace(data, spec=dataclasses.replace(data.spec, likelihood="gaussian:0.05"))
    config = TrainConfig(batch_size=20, epochs=12, early_stopping=2, lr=3e-3)
    options = {"hidden": "16", "objective.beta": 100, "latent_dim": 2}
    run = vaezoo.train("mlp-vae", images, options=options, config=config, out=tmp_path / "run")
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    values = {line["step"]: line["weighted_elbo"] for line in lines if line["split"] == "valid"}
    elbos = {line["step"]: line["elbo"] for line in lines if line["split"] == "valid"}
    best = max(values, key=values.get)
    assert run.checkpoint.step == best != max(elbos, key=elbos.get)
    assert max(values) == min(60, best + 2 * 5)  # an epoch has five steps

"""Run folders and checkpoints: what is written comes back, what is damaged is refused."""

import dataclasses
import json
import os
import shutil

import pytest
import torch
from image_models import image_models
from members import MEMBERS

import vaezoo
from vaezoo import TrainConfig, get_model
from vaezoo.core.options import config_json, configure
from vaezoo.errors import InputError, StorageError, VaezooError
from vaezoo.training import run as run_module
from vaezoo.training.checkpoint import find_checkpoint, list_checkpoints, prune, save_checkpoint
from vaezoo.training.run import newest_run

MODELS = image_models()


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the trained run, to damage."""
    return shutil.copytree(trained.path, tmp_path / "copy")


@pytest.mark.parametrize("name", MODELS)
def test_run_reloads_the_model(name, digits, tmp_path):
    options = MEMBERS[name].options or {"latent_dim": 4}
    run = vaezoo.train(name, digits, options=options, config=TrainConfig(steps=3), out=tmp_path / "run")
    again = vaezoo.load(tmp_path / "run")
    batch = digits.test.batch(slice(0, 8))
    assert torch.equal(run.vae.reconstruct(*batch), again.vae.reconstruct(*batch))
    assert again.model == name and again.data == digits.spec
    assert again.options == run.options == run.options | config_json(configure(get_model(name).config, options))
    assert again.objective.state_dict().keys() == run.objective.state_dict().keys()
    assert not again.vae.training


@pytest.mark.slow
def test_run_can_be_repeated(trained, digits, tmp_path):
    repeated = vaezoo.train(
        trained.model, digits, options=trained.options, config=trained.training, out=tmp_path / "again"
    )
    for file in ("metrics.jsonl", "result.json"):
        assert (repeated.path / file).read_bytes() == (trained.path / file).read_bytes()
    assert repeated.checkpoint.model_sha256 == trained.checkpoint.model_sha256
    assert trained.load_data().spec == digits.spec


def test_result_is_of_best_checkpoint(trained):
    assert trained.result["split"] == "test"
    metrics = trained.result["metrics"]
    assert metrics["elbo"] == pytest.approx(-(metrics["reconstruction"] + metrics["kl"]), rel=1e-5)
    kept, _ = list_checkpoints(trained.path / "checkpoints")
    assert trained.checkpoint.metrics["elbo"] == max(c.metrics["elbo"] for c in kept)


def test_prune_keeps_best_and_newest(trained, tmp_path):
    for step, bound in enumerate([-9.0, -3.0, -5.0, -4.0, -6.0, None]):
        metrics = {} if bound is None else {"elbo": bound}  # the last: of a training that was stopped
        save_checkpoint(tmp_path, {"model": trained.vae.state_dict()}, step, metrics, {})
    prune(tmp_path, "elbo")
    assert [c.step for c in list_checkpoints(tmp_path)[0]] == [1, 3, 4, 5]
    assert find_checkpoint(tmp_path, "best", "elbo").step == 1
    assert find_checkpoint(tmp_path, "last", "elbo").step == 5
    assert find_checkpoint(tmp_path, "3", "elbo").step == 3


def test_checkpoints_without_the_monitored_metric_rank_by_elbo(trained, tmp_path):
    """As those of an objective that inherits a monitor and reports other metrics."""
    for step, bound in enumerate([-9.0, -3.0, -5.0, -4.0]):
        save_checkpoint(tmp_path, {"model": trained.vae.state_dict()}, step, {"elbo": bound}, {})
    prune(tmp_path, "weighted_elbo")
    assert [c.step for c in list_checkpoints(tmp_path)[0]] == [1, 2, 3]
    assert find_checkpoint(tmp_path, "best", "weighted_elbo").step == 1


def test_training_keeps_its_checkpoints(digits, tmp_path):
    run = vaezoo.train("mlp-vae", digits, config=TrainConfig(steps=40, eval_every=10), out=tmp_path / "run")
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    bounds = {line["step"]: line["elbo"] for line in lines if line["split"] == "valid"}
    assert sorted(bounds) == [10, 20, 30, 40]
    assert run.checkpoint.step == max(bounds, key=bounds.get)
    assert vaezoo.load(run.path, "30").checkpoint.metrics["elbo"] == bounds[30]


@pytest.mark.slow
def test_newest_is_best_without_monitor(digits, tmp_path):
    run = vaezoo.train("vae-gan", digits, config=TrainConfig(steps=6, eval_every=2), out=tmp_path / "run")
    assert run.checkpoint.step == 6


def test_run_files_hold_no_paths(trained):
    assert (trained.path / "run.json").exists()
    for file in trained.path.rglob("*.json*"):
        assert str(trained.path) not in file.read_text()


@pytest.mark.parametrize("part", ["model.safetensors", "state.json", "manifest.json"])
def test_damaged_checkpoint_is_refused(copy, part):
    for file in copy.glob(f"checkpoints/*/{part}"):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    with pytest.raises(InputError):
        vaezoo.load(copy)


def test_truncated_file_is_refused(copy):
    for file in copy.glob("checkpoints/*/model.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match="SHA-256"):
        vaezoo.load(copy)
    for file in copy.glob("checkpoints/*/model.safetensors"):
        file.unlink()
    with pytest.raises(InputError):
        vaezoo.load(copy)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 99},
        {"model": "vaezoo/no-such-vae"},
        {"options": {"latent_dim": 3}},
        {"options": {"nothing": 3}},
        {"options": 5},
        {"data": {"name": "x", "shape": [0]}},
        {"data": {}},
        {"training": {"epochs": "many"}},
        {"training": {"lr": 10**400}},
    ],
)
def test_mismatched_record_is_refused(copy, change):
    described = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(described | change))
    with pytest.raises(VaezooError):
        vaezoo.load(copy)


USED = ["model", "options", "data", "source", "training"]
NESTED = [
    "options.latent_dim",
    "data.name",
    "data.shape",
    "data.likelihood",
    "source.data",
    "source.image_size",
    "training.lr",
]


@pytest.mark.parametrize("field", [*USED, *NESTED])
@pytest.mark.parametrize("value", [[], {}, True, -1.5, [[[]]], "\x1b", 10**4000], ids=lambda v: str(v)[:9])
def test_wrong_type_is_refused(copy, field, value):
    described = json.loads((copy / "run.json").read_text())
    *path, name = field.split(".")
    inner = described[path[0]] if path else described
    if type(inner[name]) is type(value):
        pytest.skip("it fits")
    inner[name] = value
    (copy / "run.json").write_text(json.dumps(described))
    with pytest.raises(VaezooError) as e:
        vaezoo.load(copy)
    assert len(e.value.message) < 1000


def test_misspelt_field_gets_hint(copy):
    described = json.loads((copy / "run.json").read_text())
    described["training"]["bach_size"] = described["training"].pop("batch_size")
    (copy / "run.json").write_text(json.dumps(described))
    with pytest.raises(InputError) as e:
        vaezoo.load(copy)
    assert "run.json is damaged: no option named 'bach_size'" in e.value.message
    assert e.value.hint == "did you mean 'batch_size'?"


@pytest.mark.parametrize("text", ["", "{", "[]", "nan", '{"schema": NaN}', "[" * 100_000, "x" * 2_000_000])
def test_damaged_record_is_refused(copy, text):
    (copy / "run.json").write_text(text)
    with pytest.raises(InputError):
        vaezoo.load(copy)


def test_other_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a run folder"):
        vaezoo.load(tmp_path)
    with pytest.raises(InputError, match="is not a run folder"):
        vaezoo.load(tmp_path / "missing")


def test_missing_checkpoint_lists_others(trained):
    with pytest.raises(InputError) as e:
        find_checkpoint(trained.path / "checkpoints", "7", "elbo")
    assert str(trained.checkpoint.step) in e.value.hint


def test_occupied_folder_is_unchanged(digits, tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(StorageError, match="exists and is not empty"):
        vaezoo.train("mlp-vae", digits, config=TrainConfig(steps=1), out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    "bad",
    [
        {"options": {"nothing": 1}},
        {"config": TrainConfig(batch_size=9999)},
        {"config": TrainConfig(device="nothing")},
        {"model": "nothing"},
    ],
)
def test_bad_input_writes_nothing(digits, tmp_path, bad):
    with pytest.raises(VaezooError):
        vaezoo.train(**({"model": "mlp-vae", "data": digits, "out": tmp_path / "run"} | bad))
    assert list(tmp_path.iterdir()) == []


def test_newest_run_is_found(digits, inside):
    config = TrainConfig(steps=1)
    paths = [vaezoo.train(name, digits, config=config).path for name in ("mlp-vae", "mlp-vae", "conv-vae")]
    assert [p.name for p in paths] == ["mlp-vae-digits-1", "mlp-vae-digits-2", "conv-vae-digits-1"]
    for i, path in enumerate(paths):
        os.utime(path / "run.json", ns=(i, i))
    assert newest_run() == paths[2] and newest_run("mlp-vae") == paths[1]
    with pytest.raises(InputError, match="no run of beta-vae"):
        newest_run("beta-vae")


def test_checkpoint_that_is_replaced_while_it_is_read(copy, monkeypatch):
    find = run_module.find_checkpoint
    gone = dataclasses.replace(find(copy / "checkpoints", "best", "elbo"), path=copy / "checkpoints" / "step-00000003")
    answers = iter([gone, gone])
    monkeypatch.setattr(run_module, "find_checkpoint", lambda *args: next(answers, None) or find(*args))
    assert vaezoo.load(copy).checkpoint.path.exists()
    monkeypatch.setattr(run_module, "find_checkpoint", lambda *args: gone)
    with pytest.raises(InputError, match="are replaced while they are read"):
        vaezoo.load(copy)

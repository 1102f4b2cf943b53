"""The packaged pretrained models: their cards, weights, licences, and the script that makes them."""

import json
import math
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from scripts.make_pretrained import make_pretrained
from vaezoo import VaezooError, evaluate, export_onnx, list_pretrained, load, load_data, pretrained, runtime
from vaezoo.errors import InputError

CARDS = list_pretrained()
NAMES = [card.name for card in CARDS]
MNIST = Path(__file__).parents[2] / "shared" / "data" / "mnist"
MAX_BYTES = 10_000_000  # of all weights
GROUPS = {"elbo": "-ELBO", "reconstructions": "PSNR", "probe": "k-NN accuracy", "fid": "Frechet distance"}


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the packaged folders, which replaces them."""
    shutil.copytree(pretrained.FOLDER, tmp_path / "copy", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "copy")
    return tmp_path / "copy"


def load_card(card):
    return load(card.model, pretrained=card.data)


def test_models_and_size():
    assert {card.model for card in CARDS} >= {"mlp-vae", "conv-vae", "beta-vae", "vae-gan"}
    assert sum(file.stat().st_size for file in pretrained.FOLDER.rglob("*.safetensors")) < MAX_BYTES


def evaluations():
    """The evaluations of all cards, except the NLL: with thousands of samples it takes minutes."""
    for card in CARDS:
        for record in card.evaluations:
            if "-ELBO" in values(record):
                # The packaged digits are few. The other sets take a minute for each card.
                mark = pytest.mark.slow if record["data"] == "digits" else pytest.mark.matrix
                yield pytest.param(card, record, id=f"{card.name} on {record['data']}", marks=mark)


def values(record):
    return {metric["name"]: metric["value"] for metric in record["metrics"]}


def without_version(protocol):
    return re.sub(r"(scikit-learn|torchmetrics) \S+", r"\1", protocol)


@pytest.mark.parametrize(("card", "record"), [*evaluations()])
def test_metrics_equal_card(card, record):
    if record["data"] == "mnist" and not MNIST.exists():
        pytest.skip("MNIST is not on this machine")
    data = load_data(record["data"], data_dir=MNIST)
    expected = values(record)
    groups = [group for group, name in GROUPS.items() if any(metric.startswith(name) for metric in expected)]
    result = evaluate(load_card(card), data, metrics=groups, limit=record["examples"], seed=record["config"]["seed"])
    assert (result.examples, result.config.binarize) == (record["examples"], record["config"]["binarize"])
    assert [metric.name for metric in result.metrics] == [*expected]
    protocols = [metric["protocol"] for metric in record["metrics"]]
    assert [*map(without_version, (m.protocol for m in result.metrics))] == [*map(without_version, protocols)]
    for metric in result.metrics:  # processors differ in the seventh digit of float32, which may change neighbours
        tolerance = 1e-3 if metric.name.endswith("accuracy") else 1e-4
        assert metric.value == pytest.approx(expected[metric.name], rel=1e-5, abs=tolerance), metric.name


@pytest.mark.parametrize("card", CARDS, ids=NAMES)
def test_elbo_is_near_card(card):
    """A cheap form of the test above: 50 packaged examples, within four standard errors of the value on the card."""
    record = next(r for r in card.evaluations if r["data"] != "mnist")
    expected = record["metrics"][0]
    (loss, *_) = evaluate(load_card(card), load_data(record["data"]), elbo_samples=1, limit=50).metrics
    error = expected["error"] * math.sqrt(record["examples"] / 50)
    assert loss.name == expected["name"] == "-ELBO"
    assert loss.value == pytest.approx(expected["value"], abs=4 * error)


@pytest.mark.parametrize("card", CARDS, ids=NAMES)
def test_card_describes_weights(card):
    run = load_card(card)
    assert run.checkpoint.model_sha256 == card.sha256 and card.sha256 in (card.path / "README.md").read_text()
    assert sum(p.numel() for p in run.vae.parameters()) == card.parameters
    assert all(p.dtype == torch.float32 for p in run.vae.parameters())
    assert abs(card.rounding) < 0.05
    assert 'data_dir": null' in (card.path / "run.json").read_text()  # no path of the training machine


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export_onnx(load("conv-vae", pretrained="mnist"), tmp_path_factory.mktemp("exported") / "mine")


def test_export_states_licence(exported):
    card = next(c for c in CARDS if c.name == "conv-vae-mnist")
    assert exported.manifest["checkpoint"]["sha256"] == card.sha256
    assert load_card(card).weights_license == card.license
    assert exported.manifest["weights_license"] == card.license in (exported.path / "README.md").read_text()


def test_export_is_evaluated_on_bits(exported):
    digits = load_data("digits")
    expected = evaluate(load("conv-vae", pretrained="mnist"), digits, limit=50, elbo_samples=1)
    actual = evaluate(runtime.load(exported.path), digits, limit=50, elbo_samples=1)
    assert actual.config == expected.config and actual.config.binarize == "fixed"
    assert actual.metrics[0].value == pytest.approx(expected.metrics[0].value, abs=0.1)


def test_name_with_distribution():
    assert load("vaezoo/mlp-vae", pretrained="mnist").model == "mlp-vae"


def test_unknown_name_is_refused():
    with pytest.raises(VaezooError, match="no pretrained model named 'mlp-vae-mnits'") as e:
        load("mlp-vae", pretrained="mnits")
    assert "mlp-vae-mnist" in e.value.hint
    with pytest.raises(VaezooError, match="there is no run 'mlp-vae-mnits'") as e:
        load("mlp-vae-mnits")
    assert e.value.hint == "did you mean 'mlp-vae-mnist'?"
    with pytest.raises(VaezooError, match="one checkpoint"):
        load("mlp-vae", "500", pretrained="mnist")


def change_weights(folder):
    file = next(folder.glob("checkpoints/*/model.safetensors"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def change_card(folder):
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"sha256": "0" * 64}))


def cut_card(folder):
    (folder / "card.json").write_text("{}")


def lose_field(folder):
    card = json.loads((folder / "card.json").read_text())
    del card["license"]
    (folder / "card.json").write_text(json.dumps(card))


@pytest.mark.parametrize("damage", [change_weights, change_card, cut_card, lose_field])
def test_damage_is_refused(damage, copied):
    damage(copied / "mlp-vae-mnist")
    with pytest.raises(InputError) as e:
        load("mlp-vae", pretrained="mnist")
    assert e.value.hint == "reinstall vaezoo"


def test_make_pretrained(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    monkeypatch.setattr("scripts.make_pretrained.evaluate", partial(evaluate, limit=50))
    make_pretrained(trained, tmp_path / "conv-vae-digits", "mlp-784-400-20", None, ["elbo"])
    (card,) = list_pretrained()
    run = load("conv-vae", pretrained="digits")
    for actual, original in zip(run.vae.parameters(), trained.vae.parameters(), strict=True):
        assert torch.equal(actual, original.half().float())
    (checkpoint,) = (card.path / "checkpoints").iterdir()
    assert sorted(f.name for f in checkpoint.iterdir()) == ["manifest.json", "model.safetensors", "state.json"]
    assert run.result == trained.result
    assert all(torch.equal(a, b) for a, b in zip(run.examples, trained.examples, strict=True))
    assert card.evaluations[0]["metrics"][0]["name"] == "-ELBO"
    assert run.weights_license == card.license and trained.weights_license is None

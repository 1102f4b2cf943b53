"""The pretrained models that come with vaezoo: what their cards say is what one gets."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from scripts.make_pretrained import make
from vaezoo import VaezooError, evaluate, export_onnx, list_pretrained, load, load_data, pretrained, runtime
from vaezoo.errors import InputError

CARDS = list_pretrained()
NAMES = [card.name for card in CARDS]
MNIST = Path(__file__).parents[2] / "shared" / "data" / "mnist"
MOST = 10_000_000  # bytes of all of them together
GROUPS = {"elbo": "-ELBO", "reconstructions": "PSNR", "probe": "k-NN accuracy", "fid": "Frechet distance"}


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the packaged folders, and none but these are found."""
    shutil.copytree(pretrained.FOLDER, tmp_path / "there", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "there")
    return tmp_path / "there"


def open_by_card(card):
    return load(card.model, pretrained=card.data)


def test_there_is_one_of_each_model_and_they_are_small():
    assert {card.model for card in CARDS} >= {"mlp-vae", "conv-vae", "beta-vae", "vae-gan"}
    assert sum(file.stat().st_size for file in pretrained.FOLDER.rglob("*.safetensors")) < MOST


def evaluations():
    """Those of all cards that take seconds to repeat: a likelihood of thousands of samples takes minutes."""
    for card in CARDS:
        for told in card.evaluations:
            if "-ELBO" in {figure["name"] for figure in told["metrics"]}:
                yield pytest.param(card, told, id=f"{card.name} on {told['data']}")


@pytest.mark.parametrize(("card", "told"), [*evaluations()])
def test_the_figures_are_those_on_the_card(card, told):
    if told["data"] == "mnist" and not MNIST.exists():
        pytest.skip("MNIST is not on this machine")
    data = load_data(told["data"], data_dir=MNIST)
    expected = {figure["name"]: figure["value"] for figure in told["metrics"]}
    groups = [group for group, name in GROUPS.items() if any(figure.startswith(name) for figure in expected)]
    found = evaluate(open_by_card(card), data, metrics=groups, limit=told["examples"], seed=told["config"]["seed"])
    assert (found.examples, found.config.binarize) == (told["examples"], told["config"]["binarize"])
    assert [figure.name for figure in found.metrics] == [*expected]
    for figure in found.metrics:  # float32 differs between processors in the seventh digit, which may move neighbours
        near = 1e-3 if figure.name.endswith("accuracy") else 1e-4
        assert figure.value == pytest.approx(expected[figure.name], rel=1e-5, abs=near), figure.name


@pytest.mark.parametrize("card", CARDS, ids=NAMES)
def test_the_card_tells_which_weights_and_what_float16_costs(card):
    run = open_by_card(card)
    assert run.checkpoint.model_sha256 == card.sha256 and card.sha256 in (card.path / "README.md").read_text()
    assert sum(p.numel() for p in run.vae.parameters()) == card.parameters
    assert all(p.dtype == torch.float32 for p in run.vae.parameters())
    assert abs(card.rounding) < 0.05
    assert 'data_dir": null' in (card.path / "run.json").read_text()  # no path of the machine that trained it


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export_onnx(load("conv-vae", pretrained="mnist"), tmp_path_factory.mktemp("exported") / "mine")


def test_a_pretrained_model_is_exported_as_a_run_is(exported):
    card = next(c for c in CARDS if c.name == "conv-vae-mnist")
    assert exported.manifest["checkpoint"]["sha256"] == card.sha256
    assert exported.manifest["weights_license"] == card.license in (exported.path / "README.md").read_text()


def test_the_export_of_a_model_that_was_trained_on_bits_is_evaluated_on_bits(exported):
    digits = load_data("digits")
    ours = evaluate(load("conv-vae", pretrained="mnist"), digits, limit=50, elbo_samples=1)
    theirs = evaluate(runtime.load(exported.path), digits, limit=50, elbo_samples=1)
    assert theirs.config == ours.config and theirs.config.binarize == "fixed"
    assert theirs.metrics[0].value == pytest.approx(ours.metrics[0].value, abs=0.1)


def test_the_model_may_be_named_with_its_distribution():
    assert load("vaezoo/mlp-vae", pretrained="mnist").model == "mlp-vae"


def test_a_name_that_is_not_there_is_an_error_with_a_hint():
    with pytest.raises(VaezooError, match="no pretrained model named 'mlp-vae-mnits'") as e:
        load("mlp-vae", pretrained="mnits")
    assert "mlp-vae-mnist" in e.value.hint
    with pytest.raises(VaezooError, match="pretrained model, no run folder") as e:
        load("mlp-vae-mnist")
    assert e.value.hint == 'give "mlp-vae", pretrained="mnist"'
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
def test_damage_is_an_error_that_says_to_install_again(damage, copied):
    damage(copied / "mlp-vae-mnist")
    with pytest.raises(InputError) as e:
        load("mlp-vae", pretrained="mnist")
    assert e.value.hint == "install vaezoo again"


def test_a_run_becomes_a_pretrained_model(trained, tmp_path, monkeypatch):
    """`make` keeps what loading needs, and no more: rounded weights, no optimizer, no path."""
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    monkeypatch.setattr("scripts.make_pretrained.evaluate", partial(evaluate, limit=50))
    make(trained, tmp_path / "conv-vae-digits", "mlp-784-400-20", None, ["elbo"])
    (card,) = list_pretrained()
    run = load("conv-vae", pretrained="digits")
    for ours, theirs in zip(run.vae.parameters(), trained.vae.parameters(), strict=True):
        assert torch.equal(ours, theirs.half().float())
    (checkpoint,) = (card.path / "checkpoints").iterdir()
    assert sorted(f.name for f in checkpoint.iterdir()) == ["manifest.json", "model.safetensors", "state.json"]
    assert run.result == trained.result and torch.equal(run.examples, trained.examples)
    assert card.evaluations[0]["metrics"][0]["name"] == "-ELBO"

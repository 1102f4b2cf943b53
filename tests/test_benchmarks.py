"""The parts of benchmarks/ that compute: statistics, tables and operations. No test here takes a time."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import vaezoo

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of benchmarks/ by its name."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def test_ratios_are_taken_within_a_round(script: Any) -> None:
    tables = script("tables")
    # The second round was slow for both, and in the third only one ran.
    assert tables.ratios({0: 200.0, 1: 20.0, 2: 300.0}, {0: 100.0, 1: 10.0}) == [2.0, 2.0]
    assert tables.ratios({0: 1.0}, {1: 1.0}) == []


def test_quartiles_are_those_of_all_values(script: Any) -> None:
    quartiles = script("tables").quartiles
    assert quartiles([4.0, 1.0, 2.0, 3.0, 5.0]) == {"p25": 2.0, "p50": 3.0, "p75": 4.0, "n": 5}
    assert quartiles([]) == {"n": 0}


def test_the_peak_is_the_larger_median(script: Any) -> None:
    rounds = [{"fp32 1": 1.0, "fp32 2": 3.0, "bf16 1": 9.0, "bf16 2": 4.0} for _ in range(2)]
    rounds.append({"fp32 1": 50.0, "fp32 2": 3.0, "bf16 1": 9.0, "bf16 2": 4.0})
    assert script("train_results").peaks(rounds) == {"fp32": 3.0, "bf16": 9.0}
    assert script("train_results").peaks([]) == {}


def test_rows_hold_ratios_and_the_share_of_the_peak(script: Any) -> None:
    rates = {"plain": {0: 100.0, 1: 50.0}, "vaezoo compiled bf16": {0: 300.0, 1: 150.0}, "jax": {}}
    facts = {name: {"parameters": 5, "loss": 100.0} for name in rates}
    plain, ours, jax = script("train_results").rows_of(rates, 10, {"fp32": 1000.0, "bf16": 5000.0}, facts)
    assert ours["over"]["plain"]["p50"] == 3.0
    assert ours["over"]["jax"] == {"n": 0}
    assert ours["of_peak"] == pytest.approx(225 * 10 / 5000)
    assert plain["of_peak"] == pytest.approx(75 * 10 / 1000)
    assert "plain" not in plain["over"]
    assert "of_peak" not in jax


def test_a_loss_unlike_the_others_is_told(script: Any) -> None:
    losses = {"a": 100.0, "b": 101.0, "c": 130.0, "d": float("nan"), "e": 100.5}
    rows = [{"contestant": name, "precision": "fp32", "loss": loss} for name, loss in losses.items()]
    lines = script("train_results").check_losses([*rows, {"contestant": "x", "precision": "bf16", "loss": 0.0}])
    assert [line.partition(":")[0] for line in lines] == ["c", "d"]


def test_the_mlp_has_the_operations_of_the_closed_form(script: Any) -> None:
    subject = script("reference_model")
    forward = 2 * (784 * 512 + 512 * 40 + 20 * 512 + 512 * 784)
    first = 2 * 784 * 512  # the image needs no gradient
    assert subject.flops_per_image("mlp") == 3 * forward - first


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_the_plain_networks_are_those_of_the_zoo(script: Any, network: str) -> None:
    subject = script("reference_model")
    name, options = subject.MODELS[network]
    vae = vaezoo.create_model(name, vaezoo.DataSpec(name="digits", shape=(1, 28, 28)), options)
    theirs = [tuple(p.shape) for p in subject.PlainVAE(network).parameters()]
    assert [tuple(p.shape) for p in vae.parameters()] == theirs


def test_new_cases_replace_old_ones_of_the_same_versions(script: Any) -> None:
    def case(network: str, batch: int, version: str, mark: int) -> dict[str, Any]:
        return {"network": network, "batch": batch, "environment": {"versions": {"torch": version}}, "mark": mark}

    merge = script("train_results").merge
    old = merge(None, [case("conv", 512, "2", 1), case("mlp", 128, "2", 2)])
    assert [c["mark"] for c in old["cases"]] == [2, 1]
    assert [c["mark"] for c in merge(old, [case("mlp", 128, "2", 3)])["cases"]] == [3, 1]
    assert [c["mark"] for c in merge(old, [case("mlp", 128, "3", 3)])["cases"]] == [3]


def test_tables_go_between_their_marks(script: Any, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- a: written by b.py -->\nold\n<!-- /a -->\nafter\n")
    for _ in range(2):
        script("tables").put_tables("a", "b.py", ["| x |"], readme)
    assert readme.read_text() == "before\n<!-- a: written by b.py -->\n\n| x |\n\n<!-- /a -->\nafter\n"


def test_turns_answer_at_the_end_of_the_warm_up_and_of_a_turn(script: Any) -> None:
    import io

    workers, subject = script("train_workers"), script("reference_model")
    job = subject.Job(
        contestant="plain",
        network="mlp",
        batch=2,
        device="cpu",
        threads=1,
        data="digits",
        data_dir=None,
        warm_up=100,
        seconds=1.0,
    )
    out = io.StringIO()
    turns = workers.WorkerChannel(job, io.StringIO('{"seconds": 1.0}\n'), out)
    turns.facts["parameters"] = 7
    turns.window(50, 100, 0.6, 3.0)
    assert not out.getvalue()
    turns.window(50, 100, 0.6, 2.0)
    turns.window(50, 100, 0.6, 1.5)
    with pytest.raises(SystemExit):  # no further command: the parent is gone
        turns.window(50, 100, 0.6, 1.0)
    ready, turn = (json.loads(line) for line in out.getvalue().splitlines())
    assert ready == {"ready": True, "loss": 2.0, "parameters": 7}
    assert turn == {"images": 200, "seconds": 1.2, "loss": 1.0}

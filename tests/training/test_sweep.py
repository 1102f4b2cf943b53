"""A sweep trains a grid, continues after a kill, passes over failures; compare makes one table of its runs."""

import json
import shutil

import numpy as np
import pytest
from test_resume import contents

import vaezoo
from vaezoo import TrainConfig
from vaezoo.core import signals
from vaezoo.errors import InputError, StorageError, VaezooError, VaezooWarning
from vaezoo.evaluation.compare import run_metrics
from vaezoo.training.run_files import read_evaluations

CONFIG = TrainConfig(batch_size=20, epochs=2)
FIXED = {"hidden": "8", "latent_dim": 2}
GRID = {"options": FIXED | {"objective.beta": ["1", "4"]}, "settings": {"seed": [0, 1]}, "config": CONFIG}
NAMES = [f"objective.beta={beta},seed={seed}" for beta in (1, 4) for seed in (0, 1)]


@pytest.fixture(scope="module")
def data():
    return vaezoo.from_arrays(np.random.default_rng(0).random((120, 6), np.float32), name="small")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A finished sweep, which tests must not change."""
    folder = tmp_path_factory.mktemp("sweep") / "whole"
    return folder, vaezoo.sweep("mlp-vae", data, out=folder, **GRID)


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "copy")


def test_each_cell_is_a_run(whole, data, tmp_path):
    folder, cells = whole
    assert [cell.name for cell in cells] == NAMES and not any(cell.error for cell in cells)
    options = FIXED | {"objective.beta": 4}
    alone = vaezoo.train(
        "mlp-vae", data, options=options, config=TrainConfig(batch_size=20, epochs=2, seed=1), out=tmp_path / "alone"
    )
    assert contents(folder / NAMES[3]) == contents(alone.path)
    assert cells[3].result == alone.result


def test_killed_sweep_goes_on(data, whole, tmp_path):
    folder, seen = tmp_path / "parts", []

    def stop_in_second(trainer, path):
        seen.append(path.name)
        if len(seen) == 2:
            step = type(trainer.train_step).prepare

            class Stopping(type(trainer.train_step)):
                def prepare(self, index):
                    if index == 7:
                        raise signals.Stopped
                    return step(self, index)

            trainer.train_step.__class__ = Stopping

    with pytest.raises(signals.Stopped):
        vaezoo.sweep("mlp-vae", data, out=folder, on_start=stop_in_second, **GRID)
    assert seen == NAMES[:2] and not (folder / NAMES[1] / "result.json").exists()
    seen.clear()
    vaezoo.sweep("mlp-vae", data, out=folder, on_start=lambda trainer, path: seen.append(path.name), **GRID)
    assert seen == NAMES[1:]  # the first cell is finished, the second is resumed
    assert contents(folder) == contents(whole[0])


def test_failed_cell_is_recorded_and_passed_over(data, tmp_path):
    settings = {"lr": ["1e30", "1e-3"], "epochs": 20}
    grid = {"options": FIXED, "settings": settings, "config": CONFIG, "out": tmp_path / "sweep"}
    bad, good = vaezoo.sweep("mlp-vae", data, **grid)
    assert "diverged" in bad.error and "hint: " in bad.error and good.error is None and good.result
    record = tmp_path / "sweep" / "lr=1e+30.failed.json"
    assert "diverged" in json.loads(record.read_text())["message"]
    started = []
    again = vaezoo.sweep("mlp-vae", data, on_start=lambda *a: started.append(a), **grid)
    assert not started and [cell.error for cell in again] == [bad.error, None]
    assert list(vaezoo.compare([tmp_path / "sweep"]).failed) == ["lr=1e+30"]
    record.write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        vaezoo.sweep("mlp-vae", data, **grid)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"options": {"latent_dim": 2}, "settings": {}}, "nothing varies"),
        ({"options": {"latent_dim": ["2", "x"]}}, "'latent_dim' takes an integer"),
        ({"options": {"nothing": ["2", "3"]}}, "no option named 'nothing'"),
        ({"settings": {"lr": ["1", "0"]}}, "'lr' is 0"),
        ({"settings": {"seed": list(range(10_000))}}, "20,000 cells"),
        ({"settings": {"lr": ["0.1", 1e-1]}}, "appears twice"),
    ],
)
def test_wrong_grids_train_nothing(change, error, data, tmp_path):
    with pytest.raises(VaezooError, match=error):
        vaezoo.sweep("mlp-vae", data, out=tmp_path / "sweep", **(GRID | change))
    assert not (tmp_path / "sweep").exists()


def test_other_sweeps_are_refused(data, copy, digits):
    for change, what in (({"config": TrainConfig(batch_size=10, epochs=2)}, "training batch_size"),):
        with pytest.raises(InputError, match=f"another sweep: it differs in {what}"):
            vaezoo.sweep("mlp-vae", data, out=copy, **(GRID | change))
    with pytest.raises(InputError, match=r"what varies, which is objective\.beta and seed there and lr and"):
        vaezoo.sweep("mlp-vae", data, out=copy, **(GRID | {"settings": {"lr": ["0.1", "0.2"]}}))
    with pytest.raises(InputError, match="it differs in model"):
        vaezoo.sweep("iwae", data, out=copy, options={"latent_dim": ["1", "2"]})
    with pytest.raises(InputError, match="it differs in data"):
        vaezoo.sweep("mlp-vae", digits, out=copy, **GRID)
    (copy / "sweep.json").unlink()
    with pytest.raises(StorageError, match="is not a sweep"):
        vaezoo.sweep("mlp-vae", data, out=copy, **GRID)


def test_parts_may_vary(data, tmp_path):
    grid = {"settings": {"seed": [0]}, "config": CONFIG, "out": tmp_path / "sweep"}
    vaezoo.sweep("mlp-vae", data, options=FIXED | {"objective": ["elbo", "iwae"]}, **grid)
    cells = vaezoo.sweep("mlp-vae", data, options=FIXED | {"objective": ["iwae", "factor", "elbo"]}, **grid)
    assert [cell.name for cell in cells] == [f"objective={name},seed=0" for name in ("iwae", "factor", "elbo")]
    assert vaezoo.compare([tmp_path / "sweep"]).columns == ["objective"]  # objective.k and others follow from it


def test_values_may_be_added(data, copy, whole):
    settings = {"settings": {"seed": [0, 1, 2]}}
    cells = vaezoo.sweep("mlp-vae", data, out=copy, **(GRID | settings))
    assert len(cells) == 6 and contents(copy).items() > contents(whole[0]).items()


def test_comparison_groups_seeds(whole):
    folder, cells = whole
    comparison = vaezoo.compare([folder])
    assert comparison.columns == ["objective.beta"] and comparison.metrics[:3] == ["elbo", "reconstruction", "kl"]
    assert [group.values["objective.beta"] for group in comparison.groups] == [1.0, 4.0]
    for number, group in enumerate(comparison.groups):
        values = [cell.result["metrics"]["kl"] for cell in cells[2 * number : 2 * number + 2]]
        assert group.metrics["kl"] == pytest.approx((np.mean(values), np.std(values, ddof=1), 2))
    rows = vaezoo.compare([folder], ["kl"]).rows()
    assert rows[0] == ["objective.beta", "runs", "kl", "kl deviation", "kl runs"] and [row[:2] for row in rows[1:]] == [
        ["1.0", 2],
        ["4.0", 2],
    ]
    assert vaezoo.compare([cell.path for cell in cells]).as_dict() == comparison.as_dict()
    with pytest.raises(VaezooError, match="no run has the metric 'klo'") as e:
        vaezoo.compare([folder], ["klo"])
    assert e.value.hint == "did you mean 'kl'?"


def test_options_of_other_models_are_left_out(whole, data, tmp_path):
    config = TrainConfig(batch_size=20, epochs=2)
    runs = [
        vaezoo.train("iwae", data, options=FIXED | {"objective.k": k}, config=config, out=tmp_path / str(k)).path
        for k in (2, 3)
    ]
    assert vaezoo.compare([whole[1][0].path, runs[0]]).columns == ["model", "objective"]
    assert vaezoo.compare([whole[1][0].path, *runs]).columns == ["model", "objective", "objective.k"]


def test_unfinished_runs_are_listed(copy, tmp_path):
    (copy / NAMES[0] / "result.json").unlink()
    comparison = vaezoo.compare([copy])
    assert comparison.unfinished == [str(copy / NAMES[0])]
    assert comparison.groups[0].metrics["kl"].n == 1 and comparison.groups[0].metrics["kl"].deviation is None
    with pytest.raises(InputError, match="is not a run folder, and holds none"):
        vaezoo.compare([tmp_path / "nowhere"])


def test_runs_on_other_data_warn(whole, tmp_path):
    other = vaezoo.from_arrays(np.random.default_rng(1).random((120, 6), np.float32), name="small")
    run = vaezoo.train("mlp-vae", other, config=CONFIG, out=tmp_path / "run")
    with pytest.warns(VaezooWarning, match="trained on different data"):
        vaezoo.compare([whole[0], run.path])


def test_weighted_elbo_of_beta_1_is_the_elbo(whole):
    comparison = vaezoo.compare([whole[0]])
    plain, weighted = (group.metrics for group in comparison.groups)
    assert plain["weighted_elbo"] == plain["elbo"] and weighted["weighted_elbo"].mean < weighted["elbo"].mean
    assert "weighted_elbo" not in vaezoo.compare([whole[0] / NAMES[0]]).metrics


def test_saved_evaluations_are_compared(copy, data):
    run = vaezoo.load(copy / NAMES[0])
    evaluation = vaezoo.evaluate(run, data, elbo_samples=2)
    file = vaezoo.save_evaluation(run.path, evaluation)
    assert file.parent == copy / NAMES[0] / "eval" and json.loads(file.read_text())["data"] == "small"
    vaezoo.save_evaluation(run.path, vaezoo.evaluate(run, data, metrics=["nll"], elbo_samples=2, nll_samples=5000))
    assert len(read_evaluations(run.path)) == 1  # the same examples and settings: one file
    vaezoo.save_evaluation(run.path, vaezoo.evaluate(run, data, elbo_samples=2, limit=5))
    metrics = run_metrics(run.path)
    expected = {metric.name: metric.value for metric in evaluation.metrics}
    assert metrics["eval -ELBO"] == pytest.approx(expected["-ELBO"]) and "eval -ELBO of 5 examples" in metrics
    assert {"elbo", "kl"} < metrics.keys() and any(name.startswith("eval NLL") for name in metrics)
    # The terms of the training and those of an evaluation have names of their own, so no mean mixes them.
    assert metrics["reconstruction"] == run.result["metrics"]["reconstruction"] != metrics["eval reconstruction"]
    comparison = vaezoo.compare([copy])  # the metrics of the results come first
    first = {"elbo", "reconstruction", "kl", "weighted_elbo", "mse", "explained_variance"}
    assert set(comparison.metrics[: len(first)]) == first
    means = comparison.groups[0].metrics
    assert means["eval -ELBO"].n == 1 and means["kl"].n == 2
    run.path.joinpath("result.json").write_text(
        run.path.joinpath("result.json").read_text().replace(f'"step": {run.checkpoint.step}', '"step": 1')
    )
    assert "eval -ELBO" not in run_metrics(run.path)  # of another checkpoint
    file.write_text('{"schema": 2}')
    with pytest.raises(InputError, match="is damaged"):
        read_evaluations(run.path)

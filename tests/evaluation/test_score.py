"""`vaezoo.score` and `vaezoo score`: the scores of single examples."""

import csv
import dataclasses
import io
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import vaezoo
from vaezoo import TensorSplit, TrainConfig
from vaezoo.data.base import DataSource
from vaezoo.errors import UnsupportedDataError, VaezooError, VaezooWarning
from vaezoo.evaluation import likelihood


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on zeros and ones of the digits alone."""
    data = vaezoo.load_data("digits")
    train, valid, test = (split.select(split.y < 2) for split in (data.train, data.valid, data.test))
    data = vaezoo.Dataset(spec=data.spec, train=train, valid=valid, test=test, source=data.source)
    config = TrainConfig(steps=150, batch_size=100, lr=3e-3)
    return vaezoo.train(
        "mlp-vae", data, options={"hidden": [64]}, config=config, out=tmp_path_factory.mktemp("s") / "r"
    )


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return vaezoo.export_onnx(run, tmp_path_factory.mktemp("e") / "export").path


def metric(evaluation, name):
    return next(m.value for m in evaluation.metrics if m.name == name)


@pytest.mark.parametrize("source", ["run", "export"])
def test_mean_is_near_that_of_eval(source, run, exported, digits):
    """Only the noise differs."""
    model = run if source == "run" else vaezoo.runtime.load(exported)
    split = digits.test  # more than one block of 500
    data = vaezoo.load_examples(model, split.x, y=split.y)
    scores = vaezoo.score(model, data, nll_samples=5, elbo_samples=2, seed=3)
    report = vaezoo.evaluate(model, data, metrics=["elbo", "nll"], nll_samples=5, elbo_samples=2, seed=3)
    assert scores.neg_elbo.mean() == pytest.approx(metric(report, "-ELBO"), rel=0.02)
    assert scores.reconstruction.mean() == pytest.approx(metric(report, "reconstruction"), rel=0.02)
    assert scores.kl.mean() == pytest.approx(metric(report, "KL"), rel=1e-6)  # it has a closed form
    assert scores.nll.mean() == pytest.approx(metric(report, "NLL-5"), rel=0.02)
    assert np.array_equal(scores.neg_elbo, scores.reconstruction + scores.kl)
    assert scores.names.tolist() == list(range(600)) and scores.y.tolist() == split.y.tolist()


def test_scores_belong_to_their_examples(run, digits):
    """An example that is not like the others has the highest score, wherever it is."""
    x = digits.test.x[digits.test.y == 1][:20].clone()
    x[7] = torch.randint(0, 256, x[7].shape, dtype=torch.uint8)
    scores = vaezoo.score(run, x)
    assert scores.neg_elbo.argmax() == 7 and len(scores.neg_elbo) == 20
    assert scores.neg_elbo[7] > 3 * np.delete(scores.neg_elbo, 7).max()


def test_seed_decides(run, digits):
    x = digits.test.x[:30]
    first, again, other = (vaezoo.score(run, x, seed=seed).neg_elbo for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first == pytest.approx(other, rel=0.2)


def test_examples_do_not_depend_on_how_they_are_read(run, digits, monkeypatch):
    """Batches of a split are read in other sizes when it is streamed or moved to a device."""
    x = digits.test.x[:700]
    expected = vaezoo.score(run, x, nll_samples=3, elbo_samples=1)
    monkeypatch.setattr(likelihood, "CHUNK_ELEMENTS", 3 * 784 * 4)  # 4 examples are decoded at once, not all
    monkeypatch.setattr("vaezoo.evaluation.score.to_device_if_fits", lambda split, device: split)
    actual = vaezoo.score(run, x, nll_samples=3, elbo_samples=1)
    assert np.array_equal(actual.neg_elbo, expected.neg_elbo)


@pytest.mark.parametrize("binarize", ["none", "dynamic"])
@pytest.mark.parametrize("source", ["run", "export"])
def test_an_example_has_one_score(source, binarize, run, exported, digits):
    """Alone, at another place, or beside a copy of itself. Before, one seed for each block of 500 fixed the noise."""
    model = run if source == "run" else vaezoo.runtime.load(exported)

    def score(x):
        scores = vaezoo.score(model, x, nll_samples=4, elbo_samples=2, binarize=binarize, seed=2)
        return np.stack([scores.neg_elbo, scores.kl, scores.nll], 1)

    x = digits.test.x[:520]
    expected = score(x)
    for index in ([7], [519, 7, 7, 0], range(519, -1, -1)):
        assert score(x[list(index)]) == pytest.approx(expected[list(index)], rel=1e-5)
    assert len(np.unique(expected[:, 0].round(3))) > 500


def test_run_and_export_have_equal_scores(run, exported, digits):
    scores = [vaezoo.score(m, digits.test.x[:30], elbo_samples=2) for m in (run, vaezoo.runtime.load(exported))]
    assert scores[0].neg_elbo == pytest.approx(scores[1].neg_elbo, rel=1e-4)


def test_limit(run, digits):
    every, some = (vaezoo.score(run, digits.test.x[:20], elbo_samples=1, limit=limit) for limit in (None, 5))
    assert some.names.tolist() == [0, 4, 8, 12, 16]
    assert some.neg_elbo == pytest.approx(every.neg_elbo[::4], rel=1e-5)


def test_few_validation_examples_are_counted(run, digits, tmp_path):
    x = digits.test.x[:200]
    few = vaezoo.from_arrays(x.numpy())
    small = vaezoo.train("mlp-vae", few, config=TrainConfig(steps=1, batch_size=20), out=tmp_path / "small")
    np.save(tmp_path / "x.npy", x.numpy())
    small = dataclasses.replace(small, source=DataSource(data=str(tmp_path / "x.npy")))
    with pytest.warns(VaezooWarning, match=r"^20 validation examples are few for the quantile 0.99") as caught:
        scores = vaezoo.score(small, x[:5], quantile=0.99, elbo_samples=1)
    assert len(caught) == 1 and scores.valid_count == 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vaezoo.score(small, x[:5], quantile=0.9, elbo_samples=1)
        vaezoo.score(run, x[:5], quantile=0.99, elbo_samples=1)


def test_threshold_of_arrays_in_the_program_that_trained(tmp_path):
    x = np.random.default_rng(0).normal(size=(2000, 3))
    data = vaezoo.from_arrays(x, scale="standardize")
    run = vaezoo.train("mlp-vae", data, config=vaezoo.TrainConfig(steps=2), out=tmp_path / "run")
    scores = run.score(x[:5], quantile=0.9, elbo_samples=1)
    valid = data.spec.scaling.invert(data.valid.x.numpy())
    assert scores.threshold == pytest.approx(np.quantile(run.score(valid, elbo_samples=1).neg_elbo, 0.9), rel=1e-4)
    with pytest.raises(VaezooError, match="arrays of a program"):
        vaezoo.load(run.path).score(x[:5], quantile=0.9)


def test_quantile_of_validation_examples_marks_anomalies(run, digits):
    scores = vaezoo.score(run, digits.test.x[:200], quantile=0.9, elbo_samples=2)
    valid = vaezoo.score(run, vaezoo.load_examples(run, part="valid"), elbo_samples=2)
    assert scores.threshold == np.quantile(valid.neg_elbo, 0.9)
    assert np.array_equal(scores.anomaly, scores.neg_elbo > scores.threshold) and 0 < scores.anomaly.mean() < 1
    assert scores.columns()["anomaly"].dtype == np.int8
    for wrong in (0, 1, -0.1, 95):
        with pytest.raises(VaezooError, match="is out of range"):
            vaezoo.score(run, digits.test.x[:2], quantile=wrong)


def test_threshold_of_exports_of_own_data(tmp_path, command):
    x = np.random.default_rng(0).random((200, 3), np.float32)
    data = vaezoo.from_arrays(x, likelihood="gaussian:0.1")
    run = vaezoo.train("mlp-vae", data, config=vaezoo.TrainConfig(steps=2), out=tmp_path / "run")
    export = vaezoo.export_onnx(run, tmp_path / "export").path
    with pytest.raises(VaezooError, match="not a named data set") as e:
        vaezoo.score(vaezoo.runtime.load(export), x, quantile=0.9)
    assert "--threshold" in e.value.hint
    threshold = run.score(x, quantile=0.5).threshold
    scores = vaezoo.score(vaezoo.runtime.load(export), x, threshold=threshold)
    assert np.array_equal(scores.anomaly, scores.neg_elbo > threshold) and 0.2 < scores.anomaly.mean() < 0.8
    np.save(tmp_path / "x.npy", x)
    out, err = command(export, "--data", tmp_path / "x.npy", "--threshold", threshold)
    assert "anomaly" in out and f"threshold: {threshold:.6g} nats; above it" in err
    for wrong, message in (({"threshold": math.nan}, "is not a number"), ({"threshold": 1, "quantile": 0.5}, "one of")):
        with pytest.raises(VaezooError) as e:
            vaezoo.score(run, x, **wrong)
        assert message in e.value.message + e.value.hint


def test_auc_of_classes_that_were_not_trained_on(run, digits):
    known, unknown = (digits.test.x[digits.test.y == label][:40] for label in (1, 8))
    x, y = torch.cat([known, unknown]), torch.tensor([0] * 40 + [1] * 40)
    examples = vaezoo.load_examples(run, x, y=y)
    auc = vaezoo.score(run, examples).auc
    assert auc > 0.9
    assert vaezoo.score(run, examples, normal_class=1).auc == pytest.approx(1 - auc)
    assert vaezoo.score(run, vaezoo.load_examples(run, x, y=8 * y + 1), normal_class="1").auc == auc
    assert vaezoo.score(run, vaezoo.load_examples(run, x, y=8 * y + 1)).auc is None  # which one is normal?
    assert vaezoo.score(run, x).auc is None


@pytest.mark.parametrize(
    ("y", "normal", "error"),
    [
        (None, 0, "have no labels"),
        ([0, 1, 2], 5, "lack class 5"),
        ([0, 1, 2], "cat", "lack class cat"),
        ([1, 1, 1], 1, "have class 1, but no other"),
        ([[0, 2], [0, 1], [1, 0]], 0, "have several labels each"),
    ],
)
def test_classes_must_be_there(y, normal, error, run, digits):
    examples = vaezoo.load_examples(run, digits.test.x[:3], y=None if y is None else np.array(y))
    with pytest.raises(VaezooError, match=error):
        vaezoo.score(run, examples, normal_class=normal)


@pytest.mark.slow
def test_exports_need_their_densities(run, tmp_path, digits):
    path = vaezoo.export_onnx(run, tmp_path / "export", uint8=True).path
    with pytest.raises(UnsupportedDataError, match="the export cannot be evaluated: its images are rounded"):
        vaezoo.score(vaezoo.runtime.load(path), digits.test.x[:3])


@pytest.fixture
def command(capsys):
    """Returns a function that runs `vaezoo score`, which must succeed: stdout and stderr."""

    def command(*arguments):
        from vaezoo_cli.main import main

        with pytest.raises(SystemExit) as e:
            main(["score", *(str(a) for a in arguments)])
        captured = capsys.readouterr()
        assert e.value.code == 0, captured.err
        return captured.out, captured.err

    return command


@pytest.mark.parametrize("source", ["run", "export"])
def test_command_writes_each_format(source, run, exported, digits, command, inside):
    path = run.path if source == "run" else exported
    np.savez("new.npz", x=digits.test.x[:40].numpy(), y=(digits.test.y[:40] > 1).long().numpy())
    arguments = (path, "--data", "new.npz", "--elbo-samples", 1, "--nll-samples", 2)
    out, err = command(*arguments)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [*rows[0]] == ["name", "y", "neg_elbo", "reconstruction", "kl", "nll"] and len(rows) == 40
    assert [row["name"] for row in rows] == [str(i) for i in range(40)]
    assert "mean -ELBO of 40 examples" in err and "ROC AUC: " in err
    assert command(*arguments, "--out", "s.csv")[0] == "s.csv\n" and Path("s.csv").read_text() == out
    command(*arguments, "--out", "s.npz")
    with np.load("s.npz", allow_pickle=False) as arrays:
        assert arrays["neg_elbo"].astype(str).tolist() == [row["neg_elbo"] for row in rows]
        assert arrays["nll"].shape == (40,)


def test_command_marks_anomalies(run, digits, command, inside):
    np.save("new.npy", digits.test.x[:40].numpy())
    out, err = command(run.path, "--data", "new.npy", "--quantile", 0.9)
    rows = list(csv.DictReader(io.StringIO(out)))
    marked = sum(row["anomaly"] == "1" for row in rows)
    assert f"the 0.9 quantile of 1,000 validation examples; above it: {marked} of 40" in err and {
        row["anomaly"] for row in rows
    } == {"0", "1"}


def test_split_of_one_example(run, digits):
    assert vaezoo.score(run, digits.test.x[:1]).neg_elbo.shape == (1,)
    assert isinstance(vaezoo.load_examples(run, digits.test.x[:1]).split, TensorSplit)

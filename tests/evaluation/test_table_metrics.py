"""Metrics of synthetic tables against scipy and scikit-learn, and on tables whose answer is known."""

import numpy as np
import pytest
from scipy import stats

import vaezoo
from vaezoo.core.tables import Column
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.evaluation import table_metrics as m

COLUMNS = (
    Column("x", "continuous", "2"),
    Column("y", "continuous", "2"),
    Column("c", "category", "", ("a", "b", "d")),
)


def rows(n, seed, shift=0.0, linked=True):
    rng = np.random.default_rng(seed)
    x = rng.normal(shift, 1, n)
    y = 2 * x + rng.normal(0, 0.5, n) if linked else rng.normal(0, 2, n)
    return np.stack([x, y, np.digitize(x if linked else rng.normal(0, 1, n), [-0.5, 0.5])], 1)


def tables(**options):
    return m.Tables(COLUMNS, rows(600, 0), rows(300, 1), rows(600, 2, **options))


def test_distances_equal_scipy():
    a, b = np.random.default_rng(0).integers(0, 9, 50), np.random.default_rng(1).integers(2, 12, 70)
    assert m.ks(a, b) == pytest.approx(stats.ks_2samp(a, b).statistic)
    assert m.total_variation(np.array([0, 0, 1]), np.array([1, 2])) == pytest.approx(2 / 3)
    assert m.total_variation(a, a) == m.ks(a, a) == 0


def test_associations_equal_scipy():
    a, b = np.array([0, 0, 1, 1, 2, 2, 2, 0]), np.array([0, 1, 1, 1, 0, 0, 1, 0])
    expected = stats.contingency.association(stats.contingency.crosstab(a, b).count, method="cramer")
    assert m.cramers_v(a, b) == pytest.approx(expected)
    assert m.cramers_v(a, a) == pytest.approx(1)
    values = np.random.default_rng(0).normal(size=8)
    f = stats.f_oneway(*(values[a == k] for k in range(3))).statistic
    assert m.correlation_ratio(a, values) ** 2 == pytest.approx(2 * f / (2 * f + 5))  # 2 and 5 degrees of freedom


def values(metrics):
    return {metric.name: metric.value for metric in metrics}


def test_equal_tables_cannot_be_told_apart():
    good, bad = tables(), tables(shift=1.0, linked=False)
    close, far = ({**values(m.column_distances(t)), **values(m.pair_differences(t))} for t in (good, bad))
    for name in ("Kolmogorov-Smirnov distance", "total variation distance", "association difference"):
        assert close[name] < 0.12
    assert far["Kolmogorov-Smirnov distance"] > 0.2 and far["association difference"] > 0.4
    assert m.two_sample_auc(good, 0).value < 0.6 and m.two_sample_auc(bad, 0).value > 0.8


def test_targets_are_predicted():
    good, bad = (values(m.target_scores(t, 1, 0)) for t in (tables(), tables(linked=False)))
    assert good["R2, trained on synthetic rows"] > 0.85 and good["R2, trained on real rows"] > 0.85
    assert bad["R2, trained on synthetic rows"] < 0.1
    accuracy = values(m.target_scores(tables(), 2, 0))
    assert accuracy["accuracy, trained on synthetic rows"] > 0.9


def test_copies_are_near_training_rows():
    t = tables()
    copied = values(m.nearest_distances(t._replace(synthetic=t.train)))
    assert copied["nearest training row, drawn"] == 0 < copied["nearest training row, held-out"]
    other = values(m.nearest_distances(t))
    assert other["nearest training row, drawn"] == pytest.approx(other["nearest training row, held-out"], rel=0.3)


def test_missing_cells_do_not_tell_rows_apart():
    t = tables()
    held_out = t.held_out.copy()
    held_out[::3, 0] = np.nan
    t = t._replace(held_out=held_out)
    assert m.two_sample_auc(t, 0).value < 0.6
    assert all(np.isfinite(metric.value) for metric in (*m.column_distances(t), *m.nearest_distances(t)))


def test_metrics_of_a_run(tmp_path):
    options = {"hidden": "16", "latent_dim": 3}
    run = vaezoo.train("mlp-vae", "penguins", options=options, config={"steps": 20}, out=tmp_path / "run")
    first, second = (run.evaluate(metrics=["table"], target="body_mass_g").metrics for _ in range(2))
    assert first == second
    names = [metric.name for metric in first]
    assert "R2, trained on synthetic rows" in names and "two-sample AUC" in names and all(m.protocol for m in first)
    with pytest.raises(VaezooError, match="has no column 'mass'"):
        run.evaluate(metrics=["table"], target="mass")
    with pytest.raises(VaezooError, match="--target is for the metric 'table'"):
        run.evaluate(target="sex")
    digits = vaezoo.create_model("mlp-vae", vaezoo.load_data("sines").spec)
    with pytest.raises(UnsupportedDataError, match="metric 'table' is for tables"):
        m.table_metrics(digits, None, None, 0)

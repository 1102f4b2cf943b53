"""Metrics of synthetic tables: how rows that a model draws differ from rows that it was not trained on.

Rows are drawn from p(x|z) and rounded as they are written. Everything is deterministic for a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from vaezoo.core.dependencies import eval_dependencies
from vaezoo.core.table_cells import rounded
from vaezoo.core.tables import Column, some_names
from vaezoo.data.base import Split
from vaezoo.data.spec import DataSpec
from vaezoo.errors import UnsupportedDataError, VaezooError, safe_repr, suggest
from vaezoo.evaluation.metrics import Metric
from vaezoo.evaluation.outputs import iter_samples
from vaezoo.vae import VAE

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

MAX_ROWS = 20_000  # evenly spaced rows of each table that are compared
MAX_NEIGHBOUR_ROWS = 2_000  # synthetic and held-out rows whose nearest training row is searched
FOLDS = 5

Values: TypeAlias = npt.NDArray[Any]


class Tables(NamedTuple):
    """The tables that are compared, `(N, columns)` each, float64: units of the data, NaN where a cell is missing."""

    columns: Sequence[Column]
    train: Values
    held_out: Values
    synthetic: Values


def table_metrics(vae: VAE, train: Split, split: Split, seed: int, target: str | None = None) -> list[Metric]:
    """Compares drawn rows with held-out ones.

    Args:
        vae: The model.
        train: The training examples.
        split: The held-out examples.
        seed: Seed of the drawn rows and of the classifiers.
        target: A column that classifiers predict from the others. None leaves this metric out.

    Raises:
        UnsupportedDataError: If the model was not made for a table with known columns.
        VaezooError: If scikit-learn is missing, the target is not a column, or rows are too few.
    """
    columns = vae.data.table_columns
    if not columns:
        raise UnsupportedDataError(
            f"metric 'table' is for tables, and '{vae.data.name}' is of kind {vae.data.kind}", "use elbo or nll"
        )
    names = [column.name for column in columns]
    if target is not None and target not in names:
        hint = suggest(target, names, f"the columns are {some_names(names)}")
        raise VaezooError(f"the model has no column '{safe_repr(target)}'", hint)
    real, held_out = (_rows(vae.data, part) for part in (train, split))
    drawn = np.concatenate([*iter_samples(vae, len(real), seed=seed, draw=True)])
    tables = Tables(columns, real, held_out, _as_written(columns, drawn))
    metrics = [*column_distances(tables), *pair_differences(tables), two_sample_auc(tables, seed)]
    metrics += [] if target is None else target_scores(tables, names.index(target), seed)
    return [*metrics, *nearest_distances(tables)]


def _rows(data: DataSpec, split: Split) -> Values:
    x = split.subsample(MAX_ROWS).x.cpu()
    return data.scaling.invert(x.numpy())


def _as_written(columns: Sequence[Column], values: Values) -> Values:
    return np.stack([rounded(column, values[:, i]) for i, column in enumerate(columns)], 1)


def column_distances(tables: Tables) -> list[Metric]:
    """Returns the mean distances of the distributions of single columns, real ones and categories apart."""
    distances: dict[str, list[tuple[float, str]]] = {"Kolmogorov-Smirnov": [], "total variation": []}
    for i, column in enumerate(tables.columns):
        a, b = (_observed(values[:, i]) for values in (tables.held_out, tables.synthetic))
        kind, distance = ("total variation", total_variation) if column.categories else ("Kolmogorov-Smirnov", ks)
        distances[kind].append((distance(a, b), column.name))
    metrics = []
    for kind, found in distances.items():
        if found:
            worst = max(found)
            protocol = f"mean over {len(found)} columns of {len(tables.synthetic):,} drawn and "
            protocol += f"{len(tables.held_out):,} held-out rows; largest {worst[0]:.3f} in {safe_repr(worst[1])}"
            metrics.append(Metric(f"{kind} distance", float(np.mean([d for d, _ in found])), "", protocol))
    return metrics


def _observed(values: Values) -> Values:
    return values[~np.isnan(values)]


def ks(a: Values, b: Values) -> float:
    """Returns the largest difference of two empirical distribution functions."""
    points = np.union1d(a, b)
    cdfs = [np.searchsorted(np.sort(values), points, side="right") / max(1, len(values)) for values in (a, b)]
    return float(np.abs(cdfs[0] - cdfs[1]).max(initial=0.0))


def total_variation(a: Values, b: Values) -> float:
    """Returns half the sum of the differences of the frequencies of categories."""
    points = np.union1d(a, b)
    shares = [(values[:, None] == points).mean(0) if len(values) else np.zeros(len(points)) for values in (a, b)]
    return float(0.5 * np.abs(shares[0] - shares[1]).sum())


def pair_differences(tables: Tables) -> list[Metric]:
    """Returns the mean absolute difference of the associations of pairs of columns; none for a single column."""
    n = len(tables.columns)
    pairs = [(i, j) for i in range(n) for j in range(i)]
    if not pairs:
        return []
    kinds = [bool(column.categories) for column in tables.columns]
    differences = []
    for i, j in pairs:
        values = [_association(t[:, i], t[:, j], kinds[i], kinds[j]) for t in (tables.held_out, tables.synthetic)]
        differences.append(abs(values[0] - values[1]))
    protocol = f"mean over {len(pairs)} pairs of columns: Pearson's r, the correlation ratio eta or Cramer's V"
    return [Metric("association difference", float(np.mean(differences)), "", protocol)]


def _association(a: Values, b: Values, a_is_category: bool, b_is_category: bool) -> float:
    both = ~(np.isnan(a) | np.isnan(b))
    a, b = a[both], b[both]
    if len(a) < 2:
        return 0.0
    if a_is_category and b_is_category:
        return cramers_v(a, b)
    if a_is_category or b_is_category:
        return correlation_ratio(*((a, b) if a_is_category else (b, a)))
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0


def cramers_v(a: Values, b: Values) -> float:
    """Returns Cramer's V of two columns of categories, in [0, 1], without a correction of its bias."""
    counts = _contingency(a, b)
    expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / counts.sum()
    smaller = min(counts.shape) - 1
    chi2 = ((counts - expected) ** 2 / expected).sum()
    return float(np.sqrt(chi2 / counts.sum() / smaller)) if smaller else 0.0


def _contingency(a: Values, b: Values) -> Values:
    rows, columns = (np.unique(values, return_inverse=True)[1] for values in (a, b))
    counts = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(counts, (rows, columns), 1)
    return counts


def correlation_ratio(categories: Values, values: Values) -> float:
    """Returns eta, the square root of the share of variance between the categories, in [0, 1]."""
    total = ((values - values.mean()) ** 2).sum()
    groups = [values[categories == category] for category in np.unique(categories)]
    between = sum(len(group) * (group.mean() - values.mean()) ** 2 for group in groups)
    return float(np.sqrt(between / total)) if total > 0 else 0.0


def two_sample_auc(tables: Tables, seed: int) -> Metric:
    """Returns the ROC AUC of a classifier that tells drawn rows from held-out ones. 0.5: it cannot.

    Raises:
        VaezooError: If scikit-learn is missing, or rows are too few.
    """
    with eval_dependencies("metric 'table'"):
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import StratifiedKFold, cross_val_predict
    count = min(len(tables.held_out), len(tables.synthetic))
    if count < FOLDS:
        raise VaezooError(
            f"{count} held-out rows are too few for {FOLDS} folds", "give more rows with --data or --part"
        )
    # Missing cells are those of the real rows alone, which would tell them apart.
    synthetic = np.where(np.isnan(tables.held_out[:count]), np.nan, tables.synthetic[:count])
    x = np.concatenate([tables.held_out[:count], synthetic])
    y = np.repeat([0, 1], count)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed % 2**32)
    model = _boosting(tables.columns, seed, is_classifier=True)
    probabilities = cross_val_predict(model, x, y, cv=folds, method="predict_proba")[:, 1]
    protocol = (
        f"gradient-boosted trees, {FOLDS} folds, {count:,} drawn and {count:,} held-out rows with equal missing cells"
    )
    return Metric("two-sample AUC", float(roc_auc_score(y, probabilities)), "", f"{protocol}; 0.5 is best")


def _boosting(columns: Sequence[Column], seed: int, *, is_classifier: bool) -> BaseEstimator:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    # Trees take categories of more than 255 values as numbers.
    categorical = [1 < len(column.categories) < 256 for column in columns]
    model = HistGradientBoostingClassifier if is_classifier else HistGradientBoostingRegressor
    return model(categorical_features=categorical, random_state=seed % 2**32, early_stopping=False)


def target_scores(tables: Tables, target: int, seed: int) -> list[Metric]:
    """Returns how well trees predict a column of held-out rows, trained on drawn rows and on the training rows.

    Raises:
        VaezooError: If scikit-learn is missing.
    """
    with eval_dependencies("metric 'table'"):
        from sklearn.metrics import accuracy_score, r2_score
    column, others = tables.columns[target], [i for i in range(len(tables.columns)) if i != target]
    if not others:
        raise VaezooError("the table has one column, which cannot be predicted from others", "leave out --target")
    is_category, metrics = bool(column.categories), []
    measure, name = (accuracy_score, "accuracy") if is_category else (r2_score, "R2")
    test = tables.held_out[~np.isnan(tables.held_out[:, target])]
    for source, rows in (("synthetic", tables.synthetic), ("real", tables.train)):
        rows = rows[~np.isnan(rows[:, target])]
        protocol = (
            f"{safe_repr(column.name)} of {len(test):,} held-out rows, by gradient-boosted trees of {len(rows):,} rows"
        )
        y = rows[:, target]
        if is_category and len(np.unique(y)) < 2:
            value = float((test[:, target] == y[:1]).mean())
        else:
            model: Any = _boosting([tables.columns[i] for i in others], seed, is_classifier=is_category)
            value = float(measure(test[:, target], model.fit(rows[:, others], y).predict(test[:, others])))
        metrics.append(Metric(f"{name}, trained on {source} rows", value, "", protocol))
    return metrics


def nearest_distances(tables: Tables) -> list[Metric]:
    """Returns the median distances of drawn and of held-out rows to the nearest training row.

    Drawn rows that are much nearer than held-out ones may be copies.

    Raises:
        VaezooError: If scikit-learn is missing.
    """
    with eval_dependencies("metric 'table'"):
        from sklearn.neighbors import NearestNeighbors
    train = _embed(tables, tables.train)
    neighbours = NearestNeighbors(n_neighbors=1).fit(train)
    metrics = []
    for name, rows in (("drawn", tables.synthetic), ("held-out", tables.held_out)):
        rows = rows[np.linspace(0, len(rows) - 1, min(MAX_NEIGHBOUR_ROWS, len(rows))).astype(int)]
        distances = neighbours.kneighbors(_embed(tables, rows))[0]
        protocol = (
            f"median of {len(rows):,} rows to {len(train):,} training rows: real columns standardized, categories "
        )
        protocol += "one-hot / sqrt 2, missing cells 0"
        metrics.append(Metric(f"nearest training row, {name}", float(np.median(distances)), "", protocol))
    return metrics


def _embed(tables: Tables, values: Values) -> Values:
    """Returns rows in which two other categories have the distance 1, as one standard deviation has."""
    parts = []
    for i, column in enumerate(tables.columns):
        cells = values[:, i]
        if column.categories:
            parts.append((cells[:, None] == np.arange(len(column.categories))) / np.sqrt(2))
        else:
            observed = _observed(tables.train[:, i])
            scaled = (cells - observed.mean()) / (observed.std() or 1.0)
            parts.append(np.nan_to_num(scaled)[:, None])
    return np.concatenate(parts, 1)


def check_target(target: str | None, metrics: Sequence[str]) -> None:
    """Raises VaezooError if there is a target and no metric takes it."""
    if target is not None and "table" not in metrics:
        raise VaezooError("--target is for the metric 'table'", "give --metrics table too")

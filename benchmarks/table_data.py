"""Compare models of tables with other programs, and write the results into README.md.

    python benchmarks/table_data.py --data FOLDER              both comparisons
    python benchmarks/table_data.py --data FOLDER penguins     one of them
    python benchmarks/table_data.py --tables                   only the tables, from existing results

FOLDER holds diamonds.csv and penguins.csv, as seaborn has them. The first needs the package ctgan.

diamonds: `tvae` and the TVAE of ctgan learn the same rows for the same epochs with the same batches and sizes of
networks. The metrics of `vaezoo eval --metrics table` compare as many drawn rows with held-out ones.

penguins: a tenth of the cells is removed at random, several times. The cells are imputed by a model that learned the
rest, by the means and most frequent categories of the columns, and by the five nearest rows (scikit-learn).
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vaezoo
from tables import HERE, hardware, put_tables, table, versions
from vaezoo.core.atomic import write_file
from vaezoo.core.environment import environment
from vaezoo.core.json_io import json_bytes
from vaezoo.data.tables.load import new_rows
from vaezoo.evaluation.metrics import Metric
from vaezoo.evaluation.table_metrics import (
    Tables,
    column_distances,
    nearest_distances,
    pair_differences,
    target_scores,
    two_sample_auc,
)

FILE = HERE / "results" / "table-data-cpu.json"
EPOCHS, BATCH_SIZE, TARGET = 300, 500, "price"
REMOVED, REMOVALS, NEIGHBOURS = 0.1, 5, 5
IMPUTING: dict[str, Any] = {
    "model": "mlp-vae",
    "options": {"hidden": "64,64", "latent_dim": 4},
    "config": {"epochs": 200, "batch_size": 32, "lr": 1e-3},
}
Row = dict[str, str]
Impute = Callable[[list[Row]], list[Row]]


# --- diamonds


def diamonds(folder: Path) -> list[dict[str, Any]]:
    """Returns a row of metrics for each program."""
    data = vaezoo.load_data(folder / "diamonds.csv")
    return [{"name": name, "metrics": metrics_of(data, draw(data))} for name, draw in PROGRAMS.items()]


def draw_ours(data: vaezoo.Dataset, **options: object) -> np.ndarray:
    """Returns rows of `tvae`, in the units of the data."""
    config = {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "lr": 1e-3}
    with tempfile.TemporaryDirectory() as folder:
        run = vaezoo.train("tvae", data, options=options, config=config, out=Path(folder) / "run")
        return vaezoo.sample(run, len(data.train), draw=True)


def draw_ctgan(data: vaezoo.Dataset) -> np.ndarray:
    """Returns rows of the TVAE of ctgan, in the units of the data."""
    import pandas as pd
    from ctgan import TVAE

    spec = data.spec
    frame = pd.DataFrame(spec.to_table(spec.scaling.invert(data.train.batch(slice(None)).x.numpy())))
    categories = [column.name for column in spec.table_columns if column.categories]
    torch.manual_seed(0)
    np.random.seed(0)  # ctgan draws with it
    model = TVAE(epochs=EPOCHS, batch_size=BATCH_SIZE, enable_gpu=False)
    model.fit(frame, categories)
    return spec.scaling.invert(new_rows(model.sample(len(frame)), spec).numpy())


PROGRAMS: dict[str, Callable[[vaezoo.Dataset], np.ndarray]] = {
    "`tvae`": draw_ours,
    "`tvae`, beta 0.5": lambda data: draw_ours(data, beta=0.5),
    "ctgan's TVAE": draw_ctgan,
}


def metrics_of(data: vaezoo.Dataset, drawn: np.ndarray) -> dict[str, float]:
    """Returns the metrics of drawn rows by name."""
    columns = data.spec.table_columns
    invert = data.spec.scaling.invert
    real, held_out = (invert(split.batch(slice(None)).x.numpy()) for split in (data.train, data.held_out[1]))
    compared = Tables(columns, real, held_out, drawn)
    target = [column.name for column in columns].index(TARGET)
    found: list[Metric] = [*column_distances(compared), *pair_differences(compared), two_sample_auc(compared, 0)]
    found += [*target_scores(compared, target, 0), *nearest_distances(compared)]
    return {metric.name: float(metric.value) for metric in found if not isinstance(metric.value, tuple)}


# --- penguins


def penguins(folder: Path) -> list[dict[str, Any]]:
    """Returns the errors of each way to impute, one for each removal."""
    with (folder / "penguins.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    ways: dict[str, Impute] = {"model": impute, "nearest rows": neighbours, "means": means}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for seed in range(REMOVALS):
        incomplete, cells = remove(rows, seed)
        for name, way in ways.items():
            found[name].append(errors(rows, way(incomplete), cells))
            print(name, seed, found[name][-1], file=sys.stderr)
    return [{"name": name, "errors": values} for name, values in found.items()]


def remove(rows: list[Row], seed: int) -> tuple[list[Row], list[tuple[int, str]]]:
    """Returns the rows without a tenth of their cells, and the places of these cells."""
    rng = np.random.default_rng(seed)
    cells = [(i, name) for i, row in enumerate(rows) for name, cell in row.items() if cell and rng.random() < REMOVED]
    incomplete = [dict(row) for row in rows]
    for i, name in cells:
        incomplete[i][name] = ""
    return incomplete, cells


def errors(rows: list[Row], imputed: list[Row], cells: list[tuple[int, str]]) -> tuple[float, float]:
    """Returns the root mean square error of numbers, in standard deviations, and the share of wrong categories."""
    squares, wrong = [], []
    for i, name in cells:
        if name in CATEGORIES:
            wrong.append(imputed[i][name] != rows[i][name])
        else:
            deviation = np.std([float(row[name]) for row in rows if row[name]])
            squares.append(((float(imputed[i][name]) - float(rows[i][name])) / deviation) ** 2)
    return float(np.sqrt(np.mean(squares))), float(np.mean(wrong))


CATEGORIES = ("species", "island", "sex")


def impute(rows: list[Row]) -> list[Row]:
    """Imputes by a model that is trained on the rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        run = vaezoo.train(**IMPUTING, data=path, out=Path(folder) / "run")
        cells = run.data.to_table(run.reconstruct(path, impute=True))
    return [{name: str(cells[name][i]) for name in rows[0]} for i in range(len(rows))]


def neighbours(rows: list[Row]) -> list[Row]:
    """Imputes by the nearest rows."""
    from sklearn.impute import KNNImputer

    return from_features(rows, KNNImputer(n_neighbors=NEIGHBOURS).fit_transform(features(rows)))


def means(rows: list[Row]) -> list[Row]:
    """Imputes by the mean of a column, or its most frequent category."""
    x = features(rows)
    return from_features(rows, np.where(np.isnan(x), np.nanmean(x, 0), x))


def spans(rows: list[Row]) -> dict[str, list[str]]:
    """Returns the categories of each column; none for numbers."""
    return {n: sorted({row[n] for row in rows if row[n]}) if n in CATEGORIES else [] for n in rows[0]}


def features(rows: list[Row]) -> np.ndarray:
    """Returns numbers standardized and categories one-hot / sqrt 2, `(N, features)`, NaN where a cell is missing."""
    columns = []
    for name, categories in spans(rows).items():
        if categories:
            one_hot = [
                [float(row[name] == c) / np.sqrt(2) if row[name] else np.nan for row in rows] for c in categories
            ]
            columns += one_hot
        else:
            values = np.array([float(row[name]) if row[name] else np.nan for row in rows])
            columns.append((values - np.nanmean(values)) / np.nanstd(values))
    return np.stack(columns, 1)


def from_features(rows: list[Row], x: np.ndarray) -> list[Row]:
    """Returns the rows with their missing cells taken from features."""
    complete, place = [dict(row) for row in rows], 0
    for name, categories in spans(rows).items():
        size = len(categories) or 1
        given = [float(row[name]) for row in rows if row[name] and not categories]
        for row, of_row in zip(complete, x[:, place : place + size], strict=True):
            if not row[name]:
                row[name] = (
                    categories[of_row.argmax()] if categories else str(of_row[0] * np.std(given) + np.mean(given))
                )
        place += size
    return complete


# --- results

PARTS = {"diamonds": diamonds, "penguins": penguins}
SHOWN = {
    "R2 of the price": "R2, trained on synthetic rows",
    "that of real rows": "R2, trained on real rows",
    "two-sample AUC": "two-sample AUC",
    "Kolmogorov-Smirnov": "Kolmogorov-Smirnov distance",
    "total variation": "total variation distance",
    "associations": "association difference",
    "nearest, drawn": "nearest training row, drawn",
    "nearest, held out": "nearest training row, held-out",
}


def tables(result: dict[str, Any]) -> list[str]:
    """Returns the lines for README.md."""
    lines = []
    if part := result.get("diamonds"):
        cells = [[row["name"], *(f"{row['metrics'][name]:.3f}" for name in SHOWN.values())] for row in part["rows"]]
        lines += [*about(part), *table(["diamonds", *SHOWN], cells), ""]
    if part := result.get("penguins"):
        cells = [[row["name"], *(spread([e[i] for e in row["errors"]]) for i in (0, 1))] for row in part["rows"]]
        lines += [*about(part), *table(["penguins, imputed by", "error of numbers", "wrong categories"], cells), ""]
    return lines


def about(part: dict[str, Any]) -> list[str]:
    """Returns the line on the machine of a comparison."""
    return [f"{hardware(part['environment'])}; {versions(part['environment'])}.", ""]


def spread(values: list[float]) -> str:
    """Returns mean and standard deviation as text."""
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def main() -> None:
    """Parses the arguments, measures, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"comparisons: {', '.join(PARTS)}")
    parser.add_argument("--data", type=Path, help="folder of the tables")
    parser.add_argument("--tables", action="store_true", help="only write the tables")
    args = parser.parse_args()
    result: dict[str, Any] = json.loads(FILE.read_text("utf-8")) if FILE.exists() else {"schema": 1}
    if not args.tables:
        if args.data is None:
            parser.error("--data is missing")
        for name in args.parts or PARTS:
            packages = ("vaezoo", "torch", "scikit-learn", *(["ctgan"] if name == "diamonds" else []))
            result[name] = {"environment": environment(packages), "rows": PARTS[name](args.data)}
            write_file(FILE, json_bytes(result))
    put_tables("table-data", "table_data.py", tables(result))


if __name__ == "__main__":
    main()

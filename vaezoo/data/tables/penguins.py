"""The packaged table of penguins: four measurements and three categories of each animal."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType

import numpy as np
import torch

from vaezoo.core.scaling import Scaling
from vaezoo.core.tables import Column, is_missing, to_numbers
from vaezoo.data.base import TensorSplit, even_indices
from vaezoo.data.spec import DataSpec
from vaezoo.data.tables.load import describe

FILE = "penguins.csv"
TEST_DIVISOR = 5  # one row in five is a test example

COLUMNS = (
    Column("species", "category", "", ("Adelie", "Chinstrap", "Gentoo")),
    Column("island", "category", "", ("Biscoe", "Dream", "Torgersen")),
    Column("bill_length_mm", "continuous", "1"),
    Column("bill_depth_mm", "continuous", "1"),
    Column("flipper_length_mm", "integer", "0"),
    Column("body_mass_g", "integer", "0"),
    Column("sex", "category", "", ("FEMALE", "MALE")),
)
# Mean and deviation of the training rows, rounded: x = (value - mean) / deviation.
SCALINGS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "bill_length_mm": (43.96, 5.48),
        "bill_depth_mm": (17.17, 1.95),
        "flipper_length_mm": (201.0, 14.1),
        "body_mass_g": (4206.0, 809.0),
    }
)
UNSCALED = (0.0, 1.0)  # of categories


def read() -> dict[str, list[str | None]]:
    """Returns the 344 rows by column, None where a cell is missing: two rows lack all measurements, 11 the sex."""
    text = (resources.files("vaezoo.data") / "files" / FILE).read_text("utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    return {c.name: [None if is_missing(row[c.name]) else row[c.name] for row in rows] for c in COLUMNS}


def load() -> tuple[DataSpec, TensorSplit, TensorSplit]:
    """Reads the table. Every fifth row is a test example. The file is sorted by species, so all are in both splits.

    Returns:
        The description, the training split and the test split. x is `(276, 7)` and `(68, 7)`, float32, in the order of
        the file's columns. Real columns are standardised by `SCALINGS`, categories are their numbers, and a missing
        cell is NaN. The description holds the scaling, so that results are in grams and millimetres.
    """
    cells = read()
    values = np.stack([to_numbers(column, cells[column.name], lambda row: f"row {row}") for column in COLUMNS], 1)
    means, deviations = zip(*(SCALINGS.get(column.name, UNSCALED) for column in COLUMNS), strict=True)
    data = describe("penguins", COLUMNS, values, Scaling("table", means, deviations))
    is_test = torch.zeros(len(values), dtype=torch.bool)
    is_test[even_indices(len(values) // TEST_DIVISOR, len(values))] = True
    x = torch.from_numpy(data.scaling.apply(values))
    return data, TensorSplit(x[~is_test], None), TensorSplit(x[is_test], None)

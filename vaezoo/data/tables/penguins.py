"""The packaged table of penguins: four measurements and three categories of each animal."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch

from vaezoo.data.base import DataSpec, TensorSplit, even_indices

FILE = "penguins.csv"
TEST_DIVISOR = 5  # one row in five is a test example


class Scaling(NamedTuple):
    """How a real column is standardised: x = (value - mean) / deviation.

    Attributes:
        mean: In the unit of the column.
        deviation: The standard deviation, in the unit of the column.
    """

    mean: float
    deviation: float


# The category k of a column is stored as the number k.
CATEGORIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "species": ("Adelie", "Chinstrap", "Gentoo"),
        "island": ("Biscoe", "Dream", "Torgersen"),
        "sex": ("FEMALE", "MALE"),
    }
)
# Mean and deviation of the training rows, rounded. The last unit is the gram, the others are millimetres.
SCALINGS: Mapping[str, Scaling] = MappingProxyType(
    {
        "bill_length_mm": Scaling(44.0, 5.51),
        "bill_depth_mm": Scaling(17.15, 1.98),
        "flipper_length_mm": Scaling(200.9, 13.9),
        "body_mass_g": Scaling(4184.0, 808.0),
    }
)


UNSCALED = Scaling(0.0, 1.0)  # of categories


def read() -> list[dict[str, str]]:
    """Returns the 333 rows without a missing value, column -> text.

    The file has 344 rows. 11 are left out: two without any measurement, and nine more without the sex.
    """
    text = (resources.files("vaezoo.data") / "files" / FILE).read_text("utf-8")
    return [row for row in csv.DictReader(text.splitlines()) if all(row.values())]


def load() -> tuple[DataSpec, TensorSplit, TensorSplit]:
    """Reads the table. Every fifth row is a test example. The file is sorted by species, so all are in both splits.

    Returns:
        The description, the training split and the test split. x is `(267, 7)` and `(66, 7)`, float32, in the order of
        the file's columns. Real columns are standardised by `SCALINGS`, categories are the numbers of `CATEGORIES`.
        The description holds this scaling, so that results are in grams and millimetres.
    """
    rows = read()
    means, deviations = zip(*(SCALINGS.get(column, UNSCALED) for column in rows[0]), strict=True)
    values = np.array([[to_number(column, text) for column, text in row.items()] for row in rows])
    is_test = torch.zeros(len(rows), dtype=torch.bool)
    is_test[even_indices(len(rows) // TEST_DIVISOR, len(rows))] = True
    columns = tuple(f"{name}:{len(CATEGORIES[name]) if name in CATEGORIES else 'real'}" for name in rows[0])
    data = DataSpec(
        name="penguins",
        shape=(len(columns),),
        likelihood="table",
        kind="table",
        columns=columns,
        offset=means,
        factor=deviations,
    )
    x = torch.from_numpy(data.scaling.apply(values))
    return data, TensorSplit(x[~is_test], None), TensorSplit(x[is_test], None)


def to_number(column: str, text: str) -> float:
    """Returns the number for the text of a column: that of its category, or the measurement."""
    return float(CATEGORIES[column].index(text)) if column in CATEGORIES else float(text)

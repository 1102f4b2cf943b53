"""Rows of tables for the graphs of an export, and the cells of their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vaezoo.core.table_cells import to_cells
from vaezoo.core.tables import is_missing, parse_model_column, rows_of
from vaezoo.errors import VaezooError
from vaezoo.runtime.manifest import Array, DataEntry, scaling_of, table_columns


def from_table(data: DataEntry, table: Mapping[str, Sequence[object]]) -> Array:
    """Returns x for the rows of a table; see `OnnxVAE.from_table`."""
    columns = table_columns(data)
    _require_cells(data)
    cells = {name: [None if is_missing(cell) else str(cell) for cell in values] for name, values in table.items()}
    if len({len(values) for values in cells.values()}) > 1:
        raise VaezooError("the columns of the table have different numbers of rows", "give one cell for each row")
    missing = [bool(column and column.may_miss) for column in map(parse_model_column, data["columns"])]
    values = rows_of(cells, columns, missing, data.get("left_out", []), "the table", lambda row: f"row {row}")
    return scaling_of(data).apply(values)


def to_table(data: DataEntry, x: Array) -> dict[str, Array]:
    """Returns the cells of rows x; see `OnnxVAE.to_table`."""
    _require_cells(data)
    return to_cells(table_columns(data), scaling_of(data).invert(x))


def table_rows(output: Array, columns: Sequence[str]) -> Array:
    """Returns rows `(N, columns)` from the decoder's output, in which a category has k probabilities side by side.

    Args:
        output: `(N, ...)`.
        columns: `name:real` or `name:k`, with `?` where cells may be missing.
    """
    parts = split_columns(output, columns)
    rows = [part.argmax(1) if part.shape[1] > 1 else part[:, 0] for part in parts]
    return np.stack(rows, 1).astype(output.dtype)


def draw_rows(data: DataEntry, outputs: Mapping[str, Array], rng: np.random.Generator) -> Array:
    """Draws rows from p(x|z), `(N, columns)`, in the form of x.

    Args:
        data: The data of the model.
        outputs: The outputs of the decoder: `columns`, and `deviations` of the real columns. With modes also
            `mode_probabilities` and `mode_means`.
        rng: The random numbers.
    """
    columns, real = split_columns(outputs["columns"], data["columns"]), 0
    rows = np.empty((len(outputs["columns"]), len(columns)), np.float32)
    for i, part in enumerate(columns):
        if part.shape[1] > 1:
            rows[:, i] = draw_categories(part, rng)
            continue
        means, deviations = part[:, 0], outputs["deviations"][:, real]
        if "mode_probabilities" in outputs:
            modes = draw_categories(outputs["mode_probabilities"][:, real], rng)[:, None]
            means = np.take_along_axis(outputs["mode_means"][:, real], modes, 1)[:, 0]
            deviations = np.take_along_axis(deviations, modes, 1)[:, 0]
        rows[:, i] = means + deviations * rng.standard_normal(len(rows), np.float32)
        real += 1
    return rows


def draw_categories(probabilities: Array, rng: np.random.Generator) -> Array:
    """Draws a category from each row of probabilities `(N, k)`, int64."""
    sums = probabilities.astype(np.float64).cumsum(1)
    places: Array = (sums <= rng.random((len(sums), 1)) * sums[:, -1:]).sum(1)
    return places


def split_columns(output: Array, columns: Sequence[str]) -> list[Array]:
    """Returns the parts of a decoder's output of a table: `(N, 1)` for a real column, `(N, k)` for k categories."""
    widths = [max(1, column.size) for column in map(parse_model_column, columns) if column is not None]
    return np.split(output, np.cumsum(widths)[:-1], axis=1)


def _require_cells(data: DataEntry) -> None:
    if not data.get("column_formats"):
        raise VaezooError(f"'{data['name']}' is not a table with known cells", "use x as it is")

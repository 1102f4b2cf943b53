"""What a command prints about the data before it trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaezoo import Dataset

MAX_CLASSES = 12  # in one line
MAX_COLUMNS = 40  # in as many lines


def data_lines(dataset: Dataset) -> list[str]:
    """Returns lines with the numbers of examples of each split, and of each class in the training split."""
    splits = (("training", dataset.train), ("validation", dataset.valid), ("test", dataset.test))
    parts = [f"{len(split):,} {name}" for name, split in splits if split is not None]
    return [
        f"data     {', '.join(parts)} examples",
        *window_lines(dataset),
        *text_lines(dataset),
        *column_lines(dataset),
        *class_lines(dataset),
    ]


def window_lines(dataset: Dataset) -> list[str]:
    """Returns a line with the times of each split, if the examples are windows of a recording."""
    from vaezoo.data.base import TensorSplit

    texts = []
    for name, split in (("training", dataset.train), ("validation", dataset.valid), ("test", dataset.test)):
        if isinstance(split, TensorSplit) and split.windows is not None:
            first, last = split.windows.span
            texts.append(f"{name} {first} to {last}")
    return [f"windows  split by time, none crosses a border: {', '.join(texts)}"] if texts else []


def text_lines(dataset: Dataset) -> list[str]:
    """Returns a line with the ids of texts. There is none for other data."""
    spec = dataset.spec
    if not spec.tokenizer:
        return []
    return [f"texts    {spec.tokenizer}: {spec.vocabulary:,} ids, at most {spec.shape[0]:,} in a text with its end"]


def column_lines(dataset: Dataset) -> list[str]:
    """Returns a line with the kind of each column of a table, and one with those that are left out."""
    from vaezoo.core.tables import some_names
    from vaezoo.errors import safe_repr

    spec, lines = dataset.spec, []
    missing = dataset.train.gather(slice(None)).x.isnan().sum(0).tolist() if spec.table_columns else []
    for column, empty in zip(spec.table_columns, missing, strict=True):
        kind = f"{column.kind} of {len(column.categories)}" if column.kind == "category" else column.notation
        kind = kind if column.kind in ("category", "date") else column.kind
        lines.append(f"column   {safe_repr(column.name)}: {kind}" + (f", {empty:,} missing" if empty else ""))
    if len(lines) > MAX_COLUMNS:
        lines[MAX_COLUMNS:] = [f"         and {len(lines) - MAX_COLUMNS:,} more columns"]
    if spec.left_out:
        lines.append(f"left out {some_names(spec.left_out)}: constants or identifiers")
    return lines


def class_lines(dataset: Dataset) -> list[str]:
    """Returns a line with the classes. There is none without labels, or if the labels are not 0, 1, 2 ..."""
    import torch

    spec, y = dataset.spec, dataset.train.y
    if y is None or not spec.classes:
        return []
    if len(spec.classes) > 1:
        lines = [f"labels   {len(spec.classes)} per example, of {', '.join(map(str, spec.classes))} values"]
        return [*lines, *(f"label {i}  {_some(names)}" for i, names in enumerate(spec.label_names))]
    counts = torch.bincount(y.flatten().cpu(), minlength=spec.classes[0]).tolist()
    names = spec.class_names or [str(label) for label in range(len(counts))]
    texts = [f"{name} ({count:,})" for name, count in zip(names, counts, strict=True)]
    noun = "class" if len(texts) == 1 else "classes"
    return [f"{noun:<8} {len(texts):,}: {_some(texts)} training examples"]


def _some(texts: Sequence[str]) -> str:
    """Returns the first of some texts, and the number of the others."""
    more = f" and {len(texts) - MAX_CLASSES:,} more" if len(texts) > MAX_CLASSES else ""
    return f"{', '.join(texts[:MAX_CLASSES])}{more}"

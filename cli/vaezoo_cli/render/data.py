"""What a command prints about the data before it trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaezoo import Dataset

MAX_CLASSES = 12  # in one line


def data_lines(dataset: Dataset) -> list[str]:
    """Returns lines with the numbers of examples of each split, and of each class in the training split."""
    splits = (("training", dataset.train), ("validation", dataset.valid), ("test", dataset.test))
    parts = [f"{len(split):,} {name}" for name, split in splits if split is not None]
    return [f"data     {', '.join(parts)} examples", *window_lines(dataset), *class_lines(dataset)]


def window_lines(dataset: Dataset) -> list[str]:
    """Returns a line with the times of each split, if the examples are windows of a recording."""
    from vaezoo.data.base import TensorSplit

    texts = []
    for name, split in (("training", dataset.train), ("validation", dataset.valid), ("test", dataset.test)):
        if isinstance(split, TensorSplit) and split.windows is not None:
            first, last = split.windows.span
            texts.append(f"{name} {first} to {last}")
    return [f"windows  split by time, none crosses a border: {', '.join(texts)}"] if texts else []


def class_lines(dataset: Dataset) -> list[str]:
    """Returns a line with the classes. There is none without labels, or if the labels are not 0, 1, 2 ..."""
    import torch

    spec, y = dataset.spec, dataset.train.y
    if y is None or not spec.classes:
        return []
    if len(spec.classes) > 1:
        return [f"labels   {len(spec.classes)} per example, of {', '.join(map(str, spec.classes))} values"]
    counts = torch.bincount(y.flatten().cpu(), minlength=spec.classes[0]).tolist()
    names = spec.class_names or [str(label) for label in range(len(counts))]
    texts = [f"{name} ({count:,})" for name, count in zip(names, counts, strict=True)]
    more = f" and {len(texts) - MAX_CLASSES:,} more" if len(texts) > MAX_CLASSES else ""
    noun = "class" if len(texts) == 1 else "classes"
    return [f"{noun:<8} {len(texts):,}: {', '.join(texts[:MAX_CLASSES])}{more} training examples"]

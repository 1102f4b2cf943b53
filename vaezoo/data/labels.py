"""Labels of any type as numbers 0, 1, 2 ..., and the names of their classes."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from vaezoo.errors import InputError, VaezooError, one_line, safe_repr, suggest

if TYPE_CHECKING:
    from torch import Tensor

    from vaezoo.data.npy import Array

LabelNames: TypeAlias = tuple[tuple[str, ...], ...]  # the names of the values of each label, or none

MAX_DIGITS = 19  # of a number in 64 bits
MAX_NAMES = 12  # of classes in a hint


def order_names(names: Iterable[str]) -> list[str]:
    """Sorts the names of classes, as numbers if all of them are whole numbers, else as text."""
    ordered = sorted(names)
    are_numbers = all(name.isascii() and name.isdigit() and len(name) < MAX_DIGITS for name in ordered)
    return sorted(ordered, key=int) if are_numbers else ordered


def name_classes(folders: Iterable[str]) -> tuple[str, ...]:
    """Returns the names of classes as text that can be stored and printed, from the names of their folders.

    Returns:
        The names in the same order. Empty if two of them would be equal, or if there are no classes.
    """
    names = tuple(clean_name(os.fsencode(folder).decode("utf-8", "replace")) for folder in folders)
    return names if all(names) and len(set(names)) == len(names) else ()


def clean_name(text: str) -> str:
    """Returns a name on one line, in the form in which equal names of different systems have equal characters."""
    return one_line(unicodedata.normalize("NFC", text))


def convert_labels(
    labels: Sequence[Array | None], names: Sequence[str], counts: Sequence[int]
) -> tuple[list[Tensor | None], LabelNames]:
    """Converts the labels of all splits of a data set together.

    Whole numbers are kept, also as floats or bools. Rows with a single 1 and zeros else are one-hot labels and become
    the index of the 1. Texts become their index among the sorted texts.

    Args:
        labels: For each split an array `(N,)` or `(N, factors)`, or None.
        names: What errors call these arrays.
        counts: The number of examples of each split.

    Returns:
        The labels, int64, `(N,)` or `(N, factors)`. Then the texts of each column, in the order of their numbers; empty
        for numbers.

    Raises:
        InputError: If an array has another shape, holds neither whole numbers nor texts, or has missing labels.
    """
    import torch

    given = [i for i, values in enumerate(labels) if values is not None]
    arrays = [_to_table(np.asarray(labels[i]), names[i], counts[i]) for i in given]
    are_texts = [array.dtype.kind == "U" for array in arrays]
    if any(are_texts) and not all(are_texts):
        raise InputError(f"only one of {', '.join(names[i] for i in given)} holds texts", "give both the same labels")
    texts: list[list[str]] = []
    if any(are_texts):
        arrays, texts = _code_texts(arrays)
    elif _are_one_hot(arrays):
        arrays = [array.argmax(1)[:, None] for array in arrays]
    converted: list[Tensor | None] = [None] * len(labels)
    for i, array in zip(given, arrays, strict=True):
        whole = _to_integers(array, names[i])
        converted[i] = torch.from_numpy(whole[:, 0].copy() if whole.shape[1] == 1 else whole)
    return converted, tuple(map(tuple, texts))


def _to_table(array: Array, name: str, count: int) -> Array:
    """Returns labels as `(N, factors)`, numbers or texts."""
    if array.ndim not in (1, 2) or len(array) != count or array.size == 0:
        raise InputError(
            f"{name} has the shape {array.shape} for {count:,} examples", f"give ({count},) or ({count}, factors)"
        )
    if array.dtype.kind == "S":
        array = np.char.decode(array.astype(np.bytes_), "utf-8", "replace")
    if array.dtype.kind == "O":
        array = _without_objects(array, name)
    if array.dtype.kind not in "biufU":
        raise InputError(f"{name} holds {array.dtype}, not whole numbers or texts", "convert the labels")
    return array[:, None] if array.ndim == 1 else array


def _without_objects(array: Array, name: str) -> Array:
    """Converts the objects of a list or a data frame, which are all texts or all numbers."""
    values = array.ravel().tolist()
    if all(isinstance(value, str) for value in values):
        return array.astype(str)
    if all(isinstance(value, int | float | np.number | np.bool_) for value in values):
        return array.astype(np.float64)
    odd = next(value for value in values if not isinstance(value, str))
    raise InputError(
        f"{name} holds {safe_repr(odd)} of type {type(odd).__name__} beside other labels",
        "give whole numbers or texts, and leave out examples without a label",
    )


def _code_texts(tables: list[Array]) -> tuple[list[Array], list[list[str]]]:
    """Returns tables of numbers for tables of texts, and the sorted texts of each column."""
    if len({table.shape[1] for table in tables}) > 1:
        raise InputError("the labels of training and test examples have different shapes", "give both the same labels")
    cleaned = [np.array([[clean_name(str(text)) for text in row] for row in table]) for table in tables]
    names = [order_names({str(text) for table in cleaned for text in table[:, i]}) for i in range(cleaned[0].shape[1])]
    numbers = [{text: number for number, text in enumerate(column)} for column in names]
    coded = [np.array([[numbers[i][str(text)] for i, text in enumerate(row)] for row in table]) for table in cleaned]
    return coded, names


def _are_one_hot(tables: list[Array]) -> bool:
    """Returns whether each row of all tables has a single 1 and zeros else."""
    widths = {table.shape[1] for table in tables}
    return (
        len(widths) == 1
        and min(widths) > 1
        and all(bool(((table == 0) | (table == 1)).all() and (table.sum(1) == 1).all()) for table in tables)
    )


def _to_integers(table: Array, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Converts whole numbers of any type."""
    if table.dtype.kind == "f":
        values = table.astype(np.float64)
        odd = values[~(np.isfinite(values) & (values == np.round(values)))]
        if odd.size:
            raise InputError(
                f"{name} holds {odd[0]:g}, which is not a whole number",
                "give whole numbers or texts, and leave out examples without a label",
            )
    return np.require(table, np.int64, ["C", "W"])


def code_labels(texts: Iterable[str], class_names: Sequence[str], name: str = "data") -> Tensor:
    """Returns the numbers of labels, int64 `(N,)`, by the names of a run's classes.

    Args:
        texts: The labels.
        class_names: The names in the order of their numbers, as `DataSpec.class_names` holds them.
        name: The name of the data set, for errors.

    Raises:
        InputError: If a label is not one of the classes.
    """
    import torch

    numbers = {class_name: number for number, class_name in enumerate(class_names)}
    labels = [clean_name(text) for text in texts]
    if unknown := next((label for label in labels if label not in numbers), None):
        raise InputError(
            f"'{name}' has the label '{safe_repr(unknown)}', which is not a class of the run", _choices(class_names)
        )
    return torch.tensor([numbers[label] for label in labels], dtype=torch.int64)


def recode_labels(y: Tensor, own_names: LabelNames, names: LabelNames, data: str = "data") -> Tensor:
    """Returns labels by the names of a run's labels, for data that number their labels themselves.

    Args:
        y: Labels `(N,)` or `(N, factors)`.
        own_names: The names of the values of y. If there are not as many labels as in `names`, y is returned unchanged.
        names: The names of the run's labels.
        data: The name of the data set, for errors.

    Raises:
        InputError: If y has a value that the run does not have.
    """
    import torch

    if own_names == names or len(own_names) != len(names):
        return y
    columns = y.reshape(len(y), -1).unbind(1)
    recoded = [_recode_column(*label, data) for label in zip(columns, own_names, names, strict=True)]
    return torch.stack(recoded, 1).reshape(y.shape)


def _recode_column(y: Tensor, own_names: Sequence[str], class_names: Sequence[str], data: str) -> Tensor:
    import torch

    used, index = torch.unique(y, return_inverse=True)
    return code_labels((own_names[label] for label in used.tolist()), class_names, data)[index]


def find_labels(text: str, classes: Sequence[int], names: Sequence[Sequence[str]], data: str) -> tuple[int, ...]:
    """Returns the numbers of the labels of one example that a user typed.

    Args:
        text: The name of a class or its number. If examples have several labels, one of each with commas between.
        classes: How many values each label has.
        names: The names of the values of each label, or none. A name goes before a number.
        data: The name of the data set, for errors.

    Raises:
        VaezooError: If it is not a label of the data.
    """
    parts = [text] if len(names) == 1 and clean_name(text) in names[0] else text.split(",")
    known = names if len(names) == len(parts) else [()] * len(parts)
    labels = tuple(_typed_label(part, own) for part, own in zip(parts, known, strict=True))
    if len(labels) != len(classes):
        raise VaezooError(
            f"--label names {len(labels)} label(s), but an example has {len(classes)}",
            "give one for each label of an example, with commas between them",
        )
    for i, (label, count) in enumerate(zip(labels, classes, strict=True), 1):
        if not 0 <= label < count:
            which = "the labels" if len(classes) == 1 else f"those of label {i} of {len(classes)}"
            raise VaezooError(f"unknown label {label}", f"{which} of '{data}' are 0 to {count - 1}")
    return labels


def _typed_label(text: str, class_names: Sequence[str]) -> int:
    """Returns the number of a label that a user typed by its name or number."""
    if clean_name(text) in class_names:
        return list(class_names).index(clean_name(text))
    try:
        return int(text)
    except ValueError:
        hint = suggest(text, class_names, _choices(class_names)) if class_names else "for example --label 3"
        problem = f"unknown label '{text}'" if class_names else f"--label takes integers, not '{text}'"
        raise VaezooError(problem, hint) from None


def repeat_label(text: str, count: int, classes: Sequence[int], names: Sequence[Sequence[str]], data: str) -> Array:
    """Returns the label that a user typed for each of `count` examples, `(count,)` or `(count, factors)`.

    For the other arguments and the errors see `find_labels`.
    """
    labels = np.asarray(find_labels(text, classes, names, data), np.int64)
    y: Array = np.tile(labels, (count, 1))
    return y[:, 0] if len(labels) == 1 else y


def _choices(class_names: Sequence[str]) -> str:
    more = f" and {len(class_names) - MAX_NAMES:,} more" if len(class_names) > MAX_NAMES else ""
    return f"the classes are {', '.join(class_names[:MAX_NAMES])}{more}"

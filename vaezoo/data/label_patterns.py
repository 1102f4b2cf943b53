"""Labels in the names of files, found by a regular expression."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from vaezoo.data.labels import LabelNames, convert_labels
from vaezoo.errors import InputError, VaezooError, safe_repr

HINT = r"for example '(\d)_(\w+)_\d+' for the labels 7 and jackson of 7_jackson_12.wav"


def check_pattern(pattern: str) -> None:
    """Raises VaezooError unless a pattern is a regular expression with a group."""
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        what = f"label pattern '{safe_repr(pattern)}' is not a regular expression: {error}"
        raise VaezooError(what, HINT) from error
    if not groups:
        what = f"label pattern '{safe_repr(pattern)}' has no group in brackets, which would be a label"
        raise VaezooError(what, HINT)


def labels_in_names(files: Sequence[str], pattern: str) -> tuple[Tensor, LabelNames]:
    """Reads the labels in the names of files.

    Args:
        files: The names of the files.
        pattern: A regular expression that is searched in each name. Each of its groups is a label.

    Returns:
        The labels, int64 `(N,)` for one group and `(N, groups)` for more, and the names of the values of each.

    Raises:
        InputError: If a name does not match.
    """
    expression = re.compile(pattern)
    texts = [_groups(expression, file) for file in files]
    (labels,), names = convert_labels([np.array(texts)], ["the label pattern"], [len(files)])
    assert labels is not None
    return labels, names


def _groups(expression: re.Pattern[str], file: str) -> tuple[str, ...]:
    match = expression.search(file)
    groups: tuple[str, ...] = match.groups("") if match else ("",)
    if not all(groups):
        raise InputError(
            f"'{file}' does not match the label pattern '{safe_repr(expression.pattern)}'",
            "change the pattern, or move the file away",
        )
    return groups

"""Whole numbers that a program passes, such as counts and seeds."""

from __future__ import annotations

import operator
from typing import SupportsIndex, cast

from vaezoo.errors import VaezooError, safe_repr

MAX_WHOLE = 2**63 - 1  # what a seed of torch and an index of numpy can be


def whole_number(name: str, value: object, least: int = 0) -> int:
    """Returns a whole number as an int.

    Args:
        name: What errors call it.
        value: An int, or an integer of numpy or torch.
        least: The smallest that is accepted.

    Raises:
        VaezooError: If it is of another type, or out of range.
    """
    shown = f"'{safe_repr(value)}'" if isinstance(value, str) else safe_repr(value)
    try:
        number = operator.index(cast("SupportsIndex", value))
    except (TypeError, ValueError):  # what a foreign __index__ raises
        number = None
    if number is None or isinstance(value, bool):
        raise VaezooError(f"{name} is {shown}, not a whole number", f"give a whole number of at least {least}")
    if not least <= number <= MAX_WHOLE:
        raise VaezooError(f"{name} is {shown}", f"give at least {least}" if number < least else "give a smaller number")
    return number

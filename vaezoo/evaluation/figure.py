"""What an evaluation gives: figures, each with all that makes it comparable."""

from __future__ import annotations

from typing import NamedTuple


class Figure(NamedTuple):
    """A number about a model.

    Attributes:
        name: What literature calls it.
        value: The number.
        unit: "nats", "bits", "dB", or "" for scores without a unit.
        protocol: How it was found, in words that tell it from others of the same name.
        error: Standard error, where it is a mean.
    """

    name: str
    value: float
    unit: str
    protocol: str
    error: float | None = None

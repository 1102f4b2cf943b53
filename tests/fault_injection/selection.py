"""Chooses the cases of a large matrix that the fast test run takes."""

from __future__ import annotations

from collections.abc import Iterable

import pytest


def every_nth(n: int, names: Iterable[str]) -> list[object]:
    """Returns parameters for names. All but every n-th are marked as slow."""
    return [pytest.param(name, marks=pytest.mark.slow if i % n else []) for i, name in enumerate(names)]

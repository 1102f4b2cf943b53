"""Data that are not images, as files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def text_lines(ids: NDArray[Any], symbols: Sequence[str]) -> bytes:
    """Returns token ids as lines of text. Padding is left out. Without symbols, the numbers of the ids are written."""
    rows = [[symbols[i] if symbols else str(i) for i in row.tolist() if i] for row in ids]
    return "".join(("" if symbols else " ").join(row).rstrip("\n") + "\n" for row in rows).encode()

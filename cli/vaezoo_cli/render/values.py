"""Data that are not images, as files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vaezoo.core.tokenizer import UNKNOWN_SYMBOL, Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vaezoo.runtime.manifest import DataEntry


def text_lines(ids: NDArray[Any], data: DataEntry) -> list[str]:
    """Returns token ids as lines of text. Padding is left out. Without symbols, the numbers of the ids are returned."""
    if not data["symbols"]:
        return [" ".join(str(i) for i in row if i) for row in ids.tolist()]
    tokenizer = Tokenizer(data.get("tokenizer") or "characters", tuple(data["symbols"]))
    return [line.rstrip("\n") for line in tokenizer.to_texts(ids)]


def printable(line: str) -> str:
    """Returns a line for a terminal. Characters that could control it become U+FFFD."""
    return "".join(c if c.isprintable() or c == "\t" else UNKNOWN_SYMBOL for c in line)

"""Texts as token ids and back: id 0 is padding, id 1 ends a text, and each further id is one symbol."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vaezoo.errors import VaezooError
from vaezoo.likelihoods.categorical import PADDING

END = 1  # the id behind which only padding follows
END_SYMBOL = "\n"


def make_symbols(letters: str) -> tuple[str, ...]:
    """Returns the text of each id for a vocabulary of letters: "" for padding, a line break for the end."""
    return ("", END_SYMBOL, *letters)


def end_id(symbols: Sequence[str]) -> int | None:
    """Returns the id that ends a text: 1 if its symbol is a line break. None: texts of these symbols do not end."""
    return END if tuple(symbols[END : END + 1]) == (END_SYMBOL,) else None


def to_ids(texts: Sequence[str], symbols: Sequence[str], length: int) -> Tensor:
    """Returns the ids of texts without their ends, `(N, length)`, int64: letters, the end, then padding.

    Args:
        texts: Texts of at most `length - 1` letters.
        symbols: The text of each id, as `make_symbols` returns them.
        length: Number of ids of each text.

    Raises:
        VaezooError: If a text is too long, or has a letter that is no symbol.
    """
    id_of = {symbol: i for i, symbol in enumerate(symbols) if i > END}
    ids = np.full((len(texts), length), PADDING, dtype=np.int64)
    for row, text in zip(ids, texts, strict=True):
        if unknown := [letter for letter in text if letter not in id_of]:
            known = "".join(id_of)
            raise VaezooError(f"'{text}' has the letter '{unknown[0]}', which has no id", f"use letters of {known}")
        if len(text) >= length:
            raise VaezooError(f"'{text}' has {len(text)} letters", f"give at most {length - 1}")
        row[: len(text) + 1] = [*(id_of[letter] for letter in text), END]
    return torch.from_numpy(ids)


def to_text(ids: Tensor, symbols: Sequence[str]) -> list[str]:
    """Returns the text of each row of ids `(N, length)`, without its end and what follows."""
    texts = ("".join(symbols[i] for i in row) for row in ids.tolist())
    return [text.partition(END_SYMBOL)[0] if end_id(symbols) is not None else text for text in texts]

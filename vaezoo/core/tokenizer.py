"""Tokenizers: texts become ids, and ids become texts again.

A tokenizer is a name and the symbol of each id, so a run or an export keeps it as data. It needs Python and NumPy
alone, because exports are used without torch. `vaezoo.data.text` fits tokenizers.

| id | symbol | meaning |
|---|---|---|
| 0 | "" | padding, behind the end |
| 1 | line break | ends a text |
| 2 | U+FFFD | stands for every unknown symbol, if the tokenizer has this id |
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from vaezoo.errors import InputError, safe_repr

TOKENIZERS = ("characters", "words", "subwords")
PADDING, END, UNKNOWN = 0, 1, 2
END_SYMBOL, UNKNOWN_SYMBOL = "\n", "\ufffd"
SPACE = re.compile(r"[ \t]+")  # between words
# Pieces of a text inside which byte pairs are merged: a run of punctuation, or of anything else, with a space in front.
PIECES = re.compile(r" ?[!-/:-@\[-`{-~]+| ?[^ !-/:-@\[-`{-~]+| +")

Array: TypeAlias = npt.NDArray[Any]


def byte_symbols() -> tuple[str, ...]:
    """Returns a printable character for each of the 256 bytes, those of GPT-2 (Radford et al. 2019).

    Printable bytes of Latin-1 stand for themselves, and the others for the characters from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in printable else next(others)) for byte in range(256))


BYTE_SYMBOLS = byte_symbols()
BYTE_OF = {symbol: byte for byte, symbol in enumerate(BYTE_SYMBOLS)}


class Encoded(NamedTuple):
    """Texts as ids.

    Attributes:
        ids: `(N, length)`, int64: symbols, the end, then padding.
        cut: The number of texts that were cut. They have no end.
        unknown: The number of symbols that have no id of their own.
    """

    ids: Array
    cut: int
    unknown: int


@dataclass(frozen=True)
class Tokenizer:
    """The map between texts and ids.

    Characters are symbols one by one. Words are what spaces separate, and they are joined by single spaces. Subwords
    are made of the bytes of UTF-8 in the notation of `byte_symbols`. In each piece of a text, the neighbours whose
    union has the smallest id are merged, until no union has one.

    Attributes:
        name: One of TOKENIZERS.
        symbols: The symbol of each id.
    """

    name: str
    symbols: tuple[str, ...]

    @property
    def has_end(self) -> bool:
        """Whether texts end with an id. If not, they are windows of a longer text."""
        return end_id(self.symbols) is not None

    @property
    def has_unknown(self) -> bool:
        """Whether unknown symbols have an id."""
        return self.has_end and self.symbols[UNKNOWN : UNKNOWN + 1] == (UNKNOWN_SYMBOL,)

    @property
    def sha256(self) -> str:
        """The hash of the name and the symbols."""
        return hashlib.sha256(json.dumps([self.name, *self.symbols]).encode()).hexdigest()

    @cached_property
    def _id_of(self) -> dict[str, int]:
        first = END + 1 if self.has_end else PADDING
        return {symbol: i for i, symbol in enumerate(self.symbols) if i >= first and symbol}

    @cached_property
    def _merged(self) -> dict[str, list[str]]:
        return {}  # pieces that were merged before

    def split(self, text: str) -> list[str]:
        """Returns the symbols of a text, also those that are unknown."""
        if self.name == "words":
            return [word for word in SPACE.split(text) if word]
        if self.name == "subwords":
            return [symbol for piece in PIECES.findall(text) for symbol in self._merge(piece)]
        return list(text)

    def _merge(self, piece: str) -> list[str]:
        """Returns a piece as symbols: pairs are merged in the order of their ids."""
        known = self._merged.get(piece)
        if known is not None:
            return known
        parts, rank = [BYTE_SYMBOLS[byte] for byte in piece.encode("utf-8", "surrogatepass")], self._id_of
        while len(parts) > 1:
            ranks = [rank.get(a + b, math.inf) for a, b in pairwise(parts)]
            best = min(ranks)
            if best == math.inf:
                break
            at = ranks.index(best)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        self._merged[piece] = parts
        return parts

    def encode(self, text: str) -> tuple[list[int], int]:
        """Returns the ids of a text without its end, and how many symbols are unknown.

        Raises:
            InputError: If a symbol is unknown and there is no id for it, or the text has a line break.
        """
        if self.has_end and END_SYMBOL in text:
            raise InputError(f"'{safe_repr(text)}' has a line break, which ends a text", "give each line on its own")
        symbols = self.split(text)
        ids = [self._id_of.get(symbol, -1) for symbol in symbols]
        unknown = ids.count(-1)
        if unknown and not self.has_unknown:
            symbol = symbols[ids.index(-1)]
            raise InputError(
                f"'{safe_repr(text)}' has the symbol '{safe_repr(symbol)}', which has no id",
                f"use the symbols {safe_repr(''.join(self._id_of))}",
            )
        return ([UNKNOWN if i < 0 else i for i in ids] if unknown else ids), unknown

    def rows(
        self, texts: Sequence[str], length: int, *, cut: bool = False, places: Sequence[object] | None = None
    ) -> Encoded:
        """Returns texts as ids.

        Args:
            texts: Texts of one line.
            length: Number of ids of each text, its end included.
            cut: Whether longer texts are cut. They then have no end.
            places: What errors call the texts. By default they quote them.

        Raises:
            InputError: If a text is longer and is not cut, or as `encode` raises.
        """
        array, counts = np.full((len(texts), length), PADDING, np.int64), [0, 0]
        for i, (row, text) in enumerate(zip(array, texts, strict=True)):
            place = None if places is None else str(places[i])
            ids, unknown = self._encode_at(text, place)
            counts[1] += unknown
            ids = [*ids, END] if self.has_end else ids
            if len(ids) > length and not cut:
                what = place or f"'{safe_repr(text)}'"
                raise InputError(
                    f"{what} has {len(ids):,} ids, more than {length:,}",
                    f"give at most {length} ids with the end, or cut longer texts: --on-long-text cut",
                )
            counts[0] += len(ids) > length
            row[: len(ids)] = ids[:length]
        return Encoded(array, *counts)

    def _encode_at(self, text: str, place: str | None) -> tuple[list[int], int]:
        """Encodes a text. An error begins with its place."""
        try:
            return self.encode(text)
        except InputError as e:
            raise e if place is None else InputError(f"{place}: {e.message}", e.hint) from None

    def to_ids(self, texts: Sequence[str], length: int) -> Array:
        """Returns texts as ids `(N, length)`, int64; see `rows`."""
        return self.rows(texts, length).ids

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of ids, up to its end. Bytes that are not valid UTF-8 become U+FFFD."""
        symbols = []
        for i in ids:
            if self.has_end and i == END:
                break
            if i != PADDING or self.symbols[PADDING]:
                symbols.append(self.symbols[i])
        if self.name == "words":
            return " ".join(symbols)
        if self.name == "subwords":
            return bytes(BYTE_OF[character] for character in "".join(symbols)).decode("utf-8", "replace")
        return "".join(symbols)

    def to_texts(self, ids: Array) -> list[str]:
        """Returns the text of each row of ids `(N, length)`."""
        return [self.decode(row) for row in ids.tolist()]


def make_symbols(letters: Iterable[str]) -> tuple[str, ...]:
    """Returns the symbol of each id for a vocabulary: "" for padding, a line break for the end."""
    return ("", END_SYMBOL, *letters)


def end_id(symbols: Sequence[str]) -> int | None:
    """Returns the id that ends a text: 1 if its symbol is a line break. None: texts of these symbols do not end."""
    return END if tuple(symbols[END : END + 1]) == (END_SYMBOL,) else None


def check_tokenizer(name: str, symbols: Sequence[str]) -> None:
    """Raises ValueError unless symbols can be those of a tokenizer. An empty name stands for none."""
    if not name:
        return
    if name not in TOKENIZERS or end_id(symbols) is None or symbols[PADDING] or len({*symbols}) < len(symbols):
        raise ValueError(f"the {len(symbols)} symbols are not those of a tokenizer '{safe_repr(name)}'")
    if name == "subwords" and not {*"".join(symbols[END + 1 :])} <= BYTE_OF.keys():
        raise ValueError("the symbols of subwords are not made of bytes")

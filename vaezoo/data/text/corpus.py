"""Texts of files as a data set, and as examples for a trained model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from vaezoo.core.counts import whole_number
from vaezoo.core.tokenizer import TOKENIZERS, Encoded, Tokenizer
from vaezoo.data.base import Dataset, DataSource, Splits, TensorSplit, train_valid_split, valid_mask
from vaezoo.data.spec import DataSpec
from vaezoo.data.text.fit import check_vocabulary, fit_tokenizer
from vaezoo.data.text.lines import Line, by_split, read_lines
from vaezoo.errors import InputError, VaezooError, VaezooWarning, safe_repr, suggest
from vaezoo.likelihoods.make import make_likelihood

ON_LONG_TEXT = ("error", "cut")
MIN_IDS = 4  # padding, the end, the id for unknown symbols, and a symbol
MAX_LENGTH = 4_096  # ids of a text
MAX_OWN_LENGTH = 512  # of the longest text, if a user gives no length
MAX_IDS = 1 << 30  # of all examples together, 8 GiB


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOptions:
    """How the lines of files become examples. Each default is that of the data.

    Attributes:
        tokenizer: characters, words or subwords; or a tokenizer that was fitted before.
        vocabulary: The largest number of ids of a tokenizer that is fitted.
        length: Number of ids of an example, its end included. The default is that of the longest text, up to 512.
        column: The column of a .csv file that holds the texts.
        on_long_text: What to do with longer texts: error or cut.

    Raises:
        VaezooError: If a value is unknown or out of range.
    """

    tokenizer: str | Tokenizer | None = None
    vocabulary: int | None = None
    length: int | None = None
    column: str | None = None
    on_long_text: str = "error"

    def __post_init__(self) -> None:
        if isinstance(self.tokenizer, str):
            check_vocabulary(self.tokenizer, self.vocabulary)
        if self.length is not None and whole_number("length", self.length, 2) > MAX_LENGTH:
            raise VaezooError(f"length {self.length:,} is too large", f"give at most {MAX_LENGTH:,} ids")
        if self.on_long_text not in ON_LONG_TEXT:
            hint = suggest(self.on_long_text, ON_LONG_TEXT, "use error or cut")
            raise VaezooError(f"on_long_text '{safe_repr(self.on_long_text)}' is not known", hint)

    @property
    def given(self) -> str | None:
        """The name of an option that is given. None: all are defaults."""
        return next((f.name for f in fields(self) if getattr(self, f.name) != f.default), None)

    def record(self) -> dict[str, Any]:
        """Returns the options as a run stores them."""
        name = self.tokenizer.name if isinstance(self.tokenizer, Tokenizer) else self.tokenizer
        return {
            "tokenizer": name,
            "vocabulary": self.vocabulary,
            "length": self.length,
            "column": self.column,
            "on_long_text": self.on_long_text,
        }


def load(path: Path, name: str, options: TextOptions, source: DataSource) -> Dataset:
    """Reads texts as a data set. The tokenizer is fitted to the training part.

    Without a validation split every tenth training text is held out.

    Args:
        path: As in `read_lines`.
        name: The name of the data set.
        options: How lines become examples. Without a tokenizer they are split into characters.
        source: How to load it again, without these options. Its likelihood is by default categorical.

    Raises:
        InputError: As `read_lines` does, or if a text is too long.
        VaezooError: As `fit_tokenizer` does, or if the likelihood is not for texts.
    """
    likelihood = source.likelihood or "categorical"
    make_likelihood(likelihood, "tokens", MIN_IDS)  # it raises now, because reading the texts may take long
    lines = read_lines(path, options.column)
    parts = by_split(lines, str(path))
    tokenizer = options.tokenizer
    if not isinstance(tokenizer, Tokenizer):
        held_out = valid_mask(len(parts["train"])).tolist() if "valid" not in parts else [False] * len(parts["train"])
        texts = [line.text for line, is_valid in zip(parts["train"], held_out, strict=True) if not is_valid]
        tokenizer = fit_tokenizer(tokenizer or TOKENIZERS[0], texts, options.vocabulary)
    length = options.length or own_length(lines, tokenizer)
    splits = {name: to_split(own, tokenizer, length, options.on_long_text) for name, own in parts.items()}
    train, valid = (splits["train"], splits["valid"]) if "valid" in splits else train_valid_split(splits["train"])
    spec = DataSpec(
        name=name,
        shape=(length,),
        likelihood=likelihood,
        kind="tokens",
        vocabulary=len(tokenizer.symbols),
        symbols=tokenizer.symbols,
        tokenizer=tokenizer.name,
    )
    return Dataset(
        spec=spec, train=train, valid=valid, test=splits.get("test"), source=replace(source, **options.record())
    )


def own_length(lines: Sequence[Line], tokenizer: Tokenizer) -> int:
    """Returns the number of ids of the longest text and its end.

    Raises:
        InputError: If it is above MAX_OWN_LENGTH. One long line would make all examples long.
    """
    longest = max(lines, key=lambda line: len(tokenizer.split(line.text)))
    length = len(tokenizer.split(longest.text)) + 1
    if length > MAX_OWN_LENGTH:
        hint = f"give --length up to {MAX_LENGTH:,}, with --on-long-text cut for longer texts"
        raise InputError(f"{longest} is the longest text, with {length:,} ids", hint)
    return max(2, length)


def to_split(lines: Sequence[Line], tokenizer: Tokenizer, length: int, on_long_text: str) -> TensorSplit:
    """Returns lines as examples, with a warning that counts those that are cut, and unknown symbols.

    Raises:
        InputError: If a text is too long and is not cut, or a symbol is unknown and there is no id for it.
    """
    if len(lines) * length > MAX_IDS:
        what = f"{len(lines):,} texts of {length:,} ids are too many for memory"
        raise InputError(what, "give a smaller --length, or fewer texts")
    encoded = tokenizer.rows([line.text for line in lines], length, cut=on_long_text == "cut", places=lines)
    warn_of_changes(encoded, length, len(lines))
    return TensorSplit(torch.from_numpy(encoded.ids), None)


def warn_of_changes(encoded: Encoded, length: int, count: int) -> None:
    """Warns of texts that were cut, and of unknown symbols."""
    parts = []
    if encoded.cut:
        parts.append(f"{encoded.cut:,} of {count:,} texts have more than {length:,} ids and are cut")
    if encoded.unknown:
        parts.append(f"{encoded.unknown:,} symbols are not in the vocabulary and become the id for unknown ones")
    if parts:
        warnings.warn("; ".join(parts), VaezooWarning, stacklevel=4)


def text_examples(path: Path, spec: DataSpec, column: str | None, on_long_text: str) -> Splits:
    """Returns the texts of files as a model takes them. Their names are file and line, such as `corpus.txt:7`.

    Raises:
        InputError: As `read_lines` and `to_split` do.
        VaezooError: If an option is unknown.
    """
    options = TextOptions(column=column, on_long_text=on_long_text)
    tokenizer, parts = spec.make_tokenizer(), by_split(read_lines(path, options.column), str(path))
    splits = {
        name: replace(
            to_split(lines, tokenizer, spec.shape[0], options.on_long_text), names=tuple(line.name for line in lines)
        )
        for name, lines in parts.items()
    }
    return Splits(splits["train"], splits.get("test"), splits.get("valid"))


def given_texts(texts: Sequence[str], spec: DataSpec, on_long_text: str = "error") -> TensorSplit:
    """Returns texts of a program or a command line as a model takes them.

    Raises:
        InputError: If a text is too long and is not cut, or a symbol is unknown and there is no id for it.
        VaezooError: If an option is unknown.
    """
    TextOptions(on_long_text=on_long_text)
    encoded = spec.make_tokenizer().rows(texts, spec.shape[0], cut=on_long_text == "cut")
    warn_of_changes(encoded, spec.shape[0], len(texts))
    return TensorSplit(torch.from_numpy(encoded.ids), None)

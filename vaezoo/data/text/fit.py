"""Fits tokenizers to texts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from vaezoo.core.dependencies import install_hint
from vaezoo.core.tokenizer import BYTE_SYMBOLS, PIECES, TOKENIZERS, UNKNOWN_SYMBOL, Tokenizer, make_symbols
from vaezoo.errors import InputError, VaezooError, safe_repr, suggest

# Ids of each tokenizer if a user names no number. None: all characters of the texts.
DEFAULT_VOCABULARY = {"characters": None, "words": 10_000, "subwords": 2_000}
MAX_VOCABULARY = 100_000  # a run records all symbols; see MAX_JSON_BYTES
MAX_BYTES = 1 << 22  # of all symbols, for the same reason
MAX_SYMBOL = 200  # characters of a word that has an id of its own
BASE = tuple(symbol for byte, symbol in enumerate(BYTE_SYMBOLS) if byte not in (0, ord("\n")))  # bytes of lines


def check_vocabulary(name: str, vocabulary: int | None) -> None:
    """Raises VaezooError unless a tokenizer exists and can have so many ids."""
    if name not in TOKENIZERS:
        hint = suggest(name, TOKENIZERS, f"use {', '.join(TOKENIZERS)}")
        raise VaezooError(f"no tokenizer named '{safe_repr(name)}'", hint)
    low = len(make_symbols(BASE)) if name == "subwords" else len(make_symbols((UNKNOWN_SYMBOL, "")))
    if vocabulary is not None and not (type(vocabulary) is int and low <= vocabulary <= MAX_VOCABULARY):
        raise VaezooError(
            f"a vocabulary of {safe_repr(vocabulary)} {name} is out of range", f"give {low:,} to {MAX_VOCABULARY:,}"
        )


def fit_tokenizer(name: str, texts: Sequence[str], vocabulary: int | None = None) -> Tokenizer:
    """Fits a tokenizer to texts.

    Characters and words have an id if they are among the most frequent ones. Of equally frequent ones the first in the
    order of Unicode have. Subwords are byte pairs that are merged in the order of their frequency (Sennrich et al.
    2016, arXiv 1508.07909). Few texts do not fill a large vocabulary.

    Args:
        name: One of TOKENIZERS.
        texts: The texts of the training part.
        vocabulary: The largest number of ids. The default is that of DEFAULT_VOCABULARY.

    Raises:
        VaezooError: If the tokenizer does not exist, the number is out of range, or subwords need a missing package.
        InputError: If the texts have too many different characters for a run.
    """
    check_vocabulary(name, vocabulary)
    size = vocabulary or DEFAULT_VOCABULARY[name] or MAX_VOCABULARY
    if name == "subwords":
        return Tokenizer(name, make_symbols((*BASE, *_merges(texts, size - len(make_symbols(BASE))))))
    splitter = Tokenizer(name, ())
    counts = Counter(symbol for text in texts for symbol in splitter.split(text))
    counts.pop(UNKNOWN_SYMBOL, None)
    known = sorted((s for s in counts if len(s) <= MAX_SYMBOL), key=lambda symbol: (-counts[symbol], symbol))
    if name == "characters" and vocabulary is None and len(known) + 3 > MAX_VOCABULARY:
        raise InputError(f"the texts have {len(known):,} different characters", "give --vocabulary, or use subwords")
    tokenizer = Tokenizer(name, make_symbols((UNKNOWN_SYMBOL, *sorted(known[: size - 3]))))
    if len(json.dumps(tokenizer.symbols)) > MAX_BYTES:
        raise InputError("the symbols of the texts are too long to be kept in a run", "give a smaller --vocabulary")
    return tokenizer


def _merges(texts: Iterable[str], count: int) -> list[str]:
    """Returns the unions of byte pairs, the first merged first.

    Raises:
        VaezooError: If the package tokenizers is missing.
    """
    try:
        from tokenizers import Regex, models, pre_tokenizers, trainers
        from tokenizers import Tokenizer as ByteLevelBPE
    except ImportError:
        what = "subwords are fitted by the package tokenizers, which is not installed"
        raise VaezooError(what, install_hint("text")) from None
    model = ByteLevelBPE(models.BPE())
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES.pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    # All 256 bytes are the first ids of the package, in an order of its own. Those of merges follow.
    size = len(BYTE_SYMBOLS) + count
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=[*BYTE_SYMBOLS], show_progress=False)
    model.train_from_iterator(texts, trainer)
    symbols = sorted(model.get_vocab().items(), key=lambda item: item[1])
    return [symbol for symbol, _ in symbols if len(symbol) > 1]

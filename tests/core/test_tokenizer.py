"""Tokenizers: texts as ids and back, unknown symbols, and the merges of subwords."""

from itertools import pairwise

import pytest

from vaezoo.core.tokenizer import PIECES, Tokenizer, byte_symbols, check_tokenizer, make_symbols
from vaezoo.data.text.fit import fit_tokenizer
from vaezoo.errors import InputError, VaezooError

TEXTS = ["the cat sat", "the cat ran", "a dog sat  down, and didn't run", "größe 東京", "the cats: 3,5"]


@pytest.mark.parametrize("name", ["characters", "words", "subwords"])
def test_texts_come_back(name):
    tokenizer = fit_tokenizer(name, TEXTS, 400 if name == "subwords" else None)
    length = 1 + max(len(tokenizer.split(text)) for text in TEXTS)
    encoded = tokenizer.rows(TEXTS, length)
    assert encoded.ids.shape == (5, length) and (encoded.cut, encoded.unknown) == (0, 0)
    assert (encoded.ids == 1).sum(1).tolist() == [1] * 5
    expected = [" ".join(text.split()) for text in TEXTS] if name == "words" else TEXTS
    assert tokenizer.to_texts(encoded.ids) == expected


def test_the_most_frequent_symbols_have_ids():
    tokenizer = fit_tokenizer("words", TEXTS, 6)
    assert tokenizer.symbols == ("", "\n", "\ufffd", "cat", "sat", "the")  # sat and cat before others by frequency
    ids, unknown = tokenizer.encode("the dog sat")
    assert (ids, unknown) == ([5, 2, 4], 1) and tokenizer.decode(ids) == "the \ufffd sat"
    assert fit_tokenizer("characters", ["aab", "ba"]).symbols == ("", "\n", "\ufffd", "a", "b")


def test_merges_are_those_of_the_library():
    from tokenizers import Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Library

    tokenizer = fit_tokenizer("subwords", TEXTS * 3, 330)
    merged = tokenizer.symbols[256:]
    assert 256 < len(tokenizer.symbols) <= 330 and "Ġcat" in merged and "Ġthe" not in merged  # it begins the lines
    ranks = {symbol: i for i, symbol in enumerate((*byte_symbols(), *merged))}
    merges = [split_of(symbol, ranks) for symbol in merged]
    library = Library(models.BPE(vocab=ranks, merges=merges))
    pieces = pre_tokenizers.Split(Regex(PIECES.pattern), "isolated")
    library.pre_tokenizer = pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(False, use_regex=False)])
    library.decoder = decoders.ByteLevel()
    for text in (*TEXTS, "the dogs' Größe, 30 cats...   and then", "tab\tand ñ"):
        assert tokenizer.split(text) == library.encode(text).tokens


def split_of(symbol, ranks):
    """Returns the two parts that were merged last, by merging with smaller ranks alone."""
    parts = [*symbol]
    while len(parts) > 2:
        known = [ranks.get(a + b, 10**6) for a, b in pairwise(parts)]
        at = known.index(min(known))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return tuple(parts)


def test_every_byte_is_a_subword():
    tokenizer = fit_tokenizer("subwords", ["ab"], 256)
    text = "".join(chr(i) for i in range(1, 0x2000) if i != 10)
    assert tokenizer.decode(tokenizer.encode(text)[0]) == text
    assert tokenizer.decode([tokenizer.encode("é")[0][0]]) == "\ufffd"  # half a character


@pytest.mark.parametrize(
    ("text", "message"),
    [("ab\nc", "has a line break"), ("abcd", "has 5 ids, more than 4"), ("abx", "line 3: 'abx' has the symbol 'x'")],
)
def test_texts_that_do_not_fit_are_refused(text, message):
    tokenizer = Tokenizer("characters", make_symbols("abcd"))
    with pytest.raises(InputError, match=message) as error:
        tokenizer.rows([text], 4, places=["line 3"])
    assert error.value.hint


def test_cut_texts_have_no_end():
    encoded = Tokenizer("characters", make_symbols("abcd")).rows(["abcd", "ab"], 3, cut=True)
    assert encoded.ids.tolist() == [[2, 3, 4], [2, 3, 1]] and encoded.cut == 1


@pytest.mark.parametrize(
    ("name", "symbols"),
    [
        ("letters", make_symbols("ab")),
        ("words", ("", "a", "b")),
        ("words", make_symbols("aa")),
        ("subwords", make_symbols("東")),
    ],
)
def test_forged_symbols_are_refused(name, symbols):
    with pytest.raises(ValueError, match="symbols"):
        check_tokenizer(name, symbols)


@pytest.mark.parametrize(("name", "size"), [("words", 3), ("subwords", 255), ("characters", 10**6), ("letters", 9)])
def test_options_of_tokenizers_are_checked(name, size):
    with pytest.raises(VaezooError) as error:
        fit_tokenizer(name, TEXTS, size)
    assert error.value.hint

"""The packaged first names, letter by letter."""

from __future__ import annotations

import gzip
from importlib import resources
from string import ascii_lowercase

import torch

from vaezoo.core.tokenizer import Tokenizer, make_symbols
from vaezoo.data.base import TensorSplit, even_indices
from vaezoo.data.spec import DataSpec

FILE = "names.txt.gz"
SYMBOLS = make_symbols(ascii_lowercase)
LENGTH = 16  # the longest name has 15 letters, and the end is an id as well
TEST_DIVISOR = 10  # one name in ten is a test example


def read() -> list[str]:
    """Returns the 29,494 different names, those of girls and then those of boys, the most common ones first.

    The file has 32,033 lines. 2,539 names stand in it twice, because girls and boys have them. Each is kept once, so
    that no test example is also a training example.
    """
    packed = (resources.files("vaezoo.data") / "files" / FILE).read_bytes()
    return list(dict.fromkeys(gzip.decompress(packed).decode("ascii").split()))


def load() -> tuple[DataSpec, TensorSplit, TensorSplit]:
    """Reads the names. Every tenth one is a test example, so common and rare ones are in both splits.

    Returns:
        The description, the training split and the test split. x is `(26545, 16)` and `(2949, 16)`, int64: letters, the
        end, then padding.
    """
    x = torch.from_numpy(Tokenizer("characters", SYMBOLS).to_ids(read(), LENGTH))
    is_test = torch.zeros(len(x), dtype=torch.bool)
    is_test[even_indices(len(x) // TEST_DIVISOR, len(x))] = True
    data = DataSpec(
        name="names",
        shape=(LENGTH,),
        likelihood="categorical",
        kind="tokens",
        vocabulary=len(SYMBOLS),
        symbols=SYMBOLS,
        tokenizer="characters",
    )
    return data, TensorSplit(x[~is_test], None), TensorSplit(x[is_test], None)

"""vaezoo.data.text: names as token ids and back."""

import gzip
from pathlib import Path

import pytest
import torch

from vaezoo import data
from vaezoo.core.tokenizer import Tokenizer, end_id, make_symbols
from vaezoo.data.text import names
from vaezoo.errors import InputError

FILES = Path(data.__file__).parent / "files"
SOURCE = Path(__file__).parents[2] / "../shared/data/text/names.txt"


def test_spec_describes_the_ids():
    spec, train, test = names.load()
    assert (spec.kind, spec.shape, spec.likelihood, spec.vocabulary) == ("tokens", (16,), "categorical", 28)
    assert spec.symbols[:3] == ("", "\n", "a") and spec.symbols[-1] == "z" and len(spec.symbols) == 28
    assert (len(train), len(test)) == (26_545, 2_949)
    for split in (train, test):
        assert split.x.dtype == torch.int64 and split.shape == spec.shape and split.y is None
        assert spec.make_kind().accepts(split.x)


def test_every_text_ends_once():
    for split in names.load()[1:]:
        after = (split.x == 1).cumsum(1) - (split.x == 1).long()  # 1 behind the end
        assert ((split.x == 1).sum(1) == 1).all()
        assert ((split.x == 0) == (after == 1)).all()


def test_ids_become_texts_again():
    spec, train, test = names.load()
    texts = spec.make_tokenizer().to_texts(test.x)
    assert texts[:5] == ["emma", "abigail", "victoria", "lily", "leah"]
    assert torch.from_numpy(spec.make_tokenizer().to_ids(texts, 16)).equal(test.x)
    assert max(len(text) for text in texts + spec.make_tokenizer().to_texts(train.x)) == 15


def test_count_is_that_of_letters_and_end():
    spec, train, _ = names.load()
    texts = spec.make_tokenizer().to_texts(train.x)
    assert spec.make_kind().count(train.x).tolist() == [len(text) + 1 for text in texts]


def test_splits_share_no_name():
    (spec, *splits), (_, *again) = names.load(), names.load()
    assert all(a.x.equal(b.x) for a, b in zip(splits, again, strict=True))
    train, test = (set(spec.make_tokenizer().to_texts(split.x)) for split in splits)
    assert not train & test and train | test == set(names.read())


def test_texts_of_windows_have_no_end():
    symbols = ("", "t", "o", "\n")  # the line break is a letter like the others
    assert end_id(symbols) is None and end_id(()) is None and end_id(make_symbols("to")) == 1
    assert Tokenizer("characters", symbols).to_texts(torch.tensor([[1, 2, 3, 1]])) == ["to\nt"]


@pytest.mark.parametrize(
    ("text", "message"), [("zoé", "'zoé' has the symbol 'é'"), ("maximilianalexander", "has 20 ids, more than 16")]
)
def test_other_texts_are_refused(text, message):
    with pytest.raises(InputError, match=message) as error:
        names.load()[0].make_tokenizer().to_ids(["anna", text], names.LENGTH)
    assert error.value.hint


@pytest.mark.skipif(not SOURCE.is_file(), reason="the folder shared/data/text beside the repository is absent")
def test_packaged_file_is_the_source():
    assert gzip.decompress((FILES / names.FILE).read_bytes()) == SOURCE.read_bytes()


def test_licence_is_packaged():
    licence = (FILES / "NAMES-LICENSE.md").read_text()
    assert "MIT" in licence and "karpathy/makemore" in licence and (FILES / names.FILE).stat().st_size < 150_000

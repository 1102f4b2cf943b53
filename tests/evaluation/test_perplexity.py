"""Perplexities of texts, against numbers counted by hand."""

import math

import pytest
import torch

from vaezoo import DataSpec, TensorSplit
from vaezoo.core.tokenizer import Tokenizer, make_symbols
from vaezoo.evaluation.perplexity import perplexity_metrics

WORDS = Tokenizer("words", make_symbols(["\ufffd", "the", "cat", "sat"]))


def spec(**fields):
    symbols = WORDS.symbols
    kind = {"kind": "tokens", "likelihood": "categorical", "vocabulary": len(symbols), "symbols": symbols}
    return DataSpec(name="t", shape=(5,), **kind, **fields)


def test_nats_are_divided_by_all_units():
    split = TensorSplit(torch.from_numpy(WORDS.to_ids(["the cat", "sat"], 5)), None)
    metrics = perplexity_metrics(spec(tokenizer="words"), split, 6.0, "-ELBO")
    assert {metric.name: metric.value for metric in metrics} == {
        "-ELBO perplexity per id": pytest.approx(math.exp(12 / 5)),  # the cat END, sat END
        "-ELBO perplexity per word": pytest.approx(math.exp(12 / 5)),
        "-ELBO perplexity per character": pytest.approx(math.exp(12 / 12)),  # 7 + 1 and 3 + 1
    }


def test_ids_without_a_tokenizer_have_no_words():
    split = TensorSplit(torch.from_numpy(WORDS.to_ids(["the cat"], 5)), None)
    assert [m.name for m in perplexity_metrics(spec(), split, 6.0, "NLL-5")] == ["NLL-5 perplexity per id"]
    assert perplexity_metrics(spec(), split, 1e6, "NLL-5") == []  # no number is that large
    vectors = DataSpec(name="v", shape=(2,))
    assert perplexity_metrics(vectors, TensorSplit(torch.rand(3, 2), None), 6.0, "-ELBO") == []

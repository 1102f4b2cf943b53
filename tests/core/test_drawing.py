"""How ids are chosen: the odds of draws, and a beam search against all texts."""

import itertools

import numpy as np
import pytest

from vaezoo.core.drawing import GREEDY, Drawing, beam_search, log_softmax
from vaezoo.errors import VaezooError

LOGITS = np.log(np.array([[0.1, 0.2, 0.3, 0.4]]))


@pytest.mark.parametrize(
    ("drawing", "odds"),
    [
        (Drawing(), [0.1, 0.2, 0.3, 0.4]),
        (Drawing(temperature=0.5), [1 / 30, 4 / 30, 9 / 30, 16 / 30]),
        (Drawing(top_k=2), [0, 0, 3 / 7, 4 / 7]),
        (Drawing(top_k=9), [0.1, 0.2, 0.3, 0.4]),
        (GREEDY, [0, 0, 0, 1]),
    ],
)
def test_ids_are_drawn_with_their_odds(drawing, odds):
    ids = drawing.choose(LOGITS.repeat(40_000, 0), np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(ids, minlength=4) / 40_000, odds, atol=0.01)


def chain(seed):
    """Returns a model of texts of 4 ids whose logits depend on the two ids before, for two rows."""
    table = 2 * np.random.default_rng(seed).standard_normal((2, 5, 5, 4))
    table[..., 0] = -1e4  # padding

    def logits_of(rows, ids):
        before = np.pad(ids[:, :-1], ((0, 0), (2, 0)), constant_values=4)[:, -2:]
        return table[rows, before[:, 0], before[:, 1]]

    return logits_of


def log_prob(logits_of, row, text):
    total = 0.0
    for t, i in enumerate(text):
        log_p = log_softmax(logits_of(np.array([row]), np.array([text[: t + 1]])))[0]
        total += log_p[i]
        if i == 1:
            break
    return total


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_finds_the_most_probable_text(seed):
    logits_of = chain(seed)
    found = beam_search(logits_of, 2, 4, 1, 64)
    texts = [(*text, 1, *[0] * (3 - n)) for n in range(4) for text in itertools.product((2, 3), repeat=n)]
    texts += [*itertools.product((2, 3), repeat=4)]
    for row in range(2):
        best = max(texts, key=lambda text: log_prob(logits_of, row, text))
        assert tuple(found[row]) == best


def test_a_beam_of_one_is_greedy():
    logits_of = chain(0)
    x = np.zeros((2, 4), int)
    for t in range(4):
        x[:, t] = logits_of(np.arange(2), x[:, : t + 1]).argmax(-1)
    ended = np.cumsum(x == 1, 1) - (x == 1) > 0
    np.testing.assert_array_equal(beam_search(logits_of, 2, 4, 1, 1), np.where(ended, 0, x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"beam": 10**4}, "beam is 10,000"),
        ({"beam": 2, "temperature": 0.5}, "a beam search draws nothing"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(VaezooError, match=message) as error:
        Drawing(**options)
    assert error.value.hint

"""How the ids of a text are chosen, one after the other: drawn, the most probable ones, or by a beam search.

It needs NumPy alone, because exports are used without torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vaezoo.core.counts import whole_number
from vaezoo.core.tokenizer import PADDING
from vaezoo.errors import VaezooError, safe_repr

MAX_BEAM = 1_000

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How ids are chosen from their logits. By default they are drawn with the probabilities of the model.

    Attributes:
        temperature: What logits are divided by. Below 1 probable ids are drawn more often. 0: the most probable id.
        top_k: Only so many of the most probable ids are drawn. 0: all.
        beam: Width of a beam search for the most probable text, which draws nothing. 0: none.

    Raises:
        VaezooError: If a value is out of range, or a beam search has options of a draw.
    """

    temperature: float = 1.0
    top_k: int = 0
    beam: int = 0

    def __post_init__(self) -> None:
        if not (isinstance(self.temperature, int | float) and 0 <= self.temperature < math.inf):
            raise VaezooError(f"temperature is {safe_repr(self.temperature)}", "give a number of at least 0")
        whole_number("top_k", self.top_k)
        if whole_number("beam", self.beam) > MAX_BEAM:
            raise VaezooError(f"beam is {self.beam:,}", f"give at most {MAX_BEAM:,}")
        if self.beam and (self.temperature != 1 or self.top_k):
            raise VaezooError("a beam search draws nothing", "leave out the temperature and top_k, or beam")

    def choose(self, logits: Array, rng: np.random.Generator | None) -> Array:
        """Returns an id for each row of logits `(N, ids)`. Without a generator it is the most probable one.

        The largest of logit + Gumbel noise has the odds of the softmax.
        """
        if self.temperature == 0 or rng is None:
            ids: Array = logits.argmax(-1)
            return ids
        scaled = logits if self.temperature == 1 else logits / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            least = np.partition(scaled, -self.top_k, -1)[..., -self.top_k, None]
            scaled = np.where(scaled < least, -np.inf, scaled)
        drawn: Array = (scaled + rng.gumbel(size=scaled.shape)).argmax(-1)
        return drawn


GREEDY = Drawing(temperature=0)


def beam_search(
    logits_of: Callable[[Array, Array], Array], count: int, length: int, end_id: int | None, width: int
) -> Array:
    """Returns the most probable text that a beam search finds for each row, `(count, length)`, int64.

    Texts are compared by log p(x|z), without a term for their length. With width 1 the search is greedy.

    Args:
        logits_of: Returns the logits of the last position, `(N, ids)`, given the index of the row of each text and its
            ids so far, `(N, position + 1)`. The last of them counts for nothing.
        count: Number of rows.
        length: Number of ids.
        end_id: The id behind which only padding follows.
        width: How many texts of each row are kept.
    """
    x = np.zeros((count, width, length), np.int64)
    scores = np.full((count, width), -np.inf)
    scores[:, 0] = 0  # all texts of a row begin as the same one
    ended, rows = np.zeros((count, width), bool), np.repeat(np.arange(count), width)
    for position in range(length):
        logits = logits_of(rows, x[:, :, : position + 1].reshape(count * width, -1))
        log_p = log_softmax(logits.astype(np.float64)).reshape(count, width, -1)
        log_p[ended] = -np.inf
        log_p[ended, PADDING] = 0
        totals = (scores[..., None] + log_p).reshape(count, -1)
        best = np.argsort(-totals, 1, kind="stable")[:, :width]
        parents, ids = np.divmod(best, log_p.shape[-1])
        scores = np.take_along_axis(totals, best, 1)
        x = np.take_along_axis(x, parents[..., None], 1)
        x[:, :, position] = ids
        ended = np.take_along_axis(ended, parents, 1) | (ids == end_id)
        if ended.all():
            break
    return x[:, 0]


def log_softmax(logits: Array) -> Array:
    """Returns log-probabilities for logits `(..., ids)`."""
    shifted = logits - logits.max(-1, keepdims=True)
    normalized: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return normalized

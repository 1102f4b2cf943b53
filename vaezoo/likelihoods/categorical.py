"""The categorical likelihood of token ids."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo.errors import VaezooError
from vaezoo.likelihoods.base import Likelihood, Shape, sum_dims

PADDING = 0  # the id of a position behind the end of a text


class Categorical(Likelihood):
    """A sequence of token ids below `vocabulary`. `params` are logits `(B, T, vocabulary)`.

    Positions with the id 0 are padding and have the probability 1.

    Args:
        vocabulary: Number of ids, padding included.

    Raises:
        VaezooError: If the vocabulary has fewer than two ids.
    """

    kinds = ("tokens",)

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        if vocabulary < 2:
            raise VaezooError(f"a vocabulary of {vocabulary} ids is too small", "give data with at least two ids")
        self.vocabulary = vocabulary

    def params_shape(self, shape: Shape) -> Shape:
        return (*shape, self.vocabulary)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        log_p = torch.log_softmax(params, -1).gather(-1, x.unsqueeze(-1)).squeeze(-1)
        return sum_dims(torch.where(x == PADDING, 0.0, log_p))

    def mean(self, params: Tensor) -> Tensor:
        return params.argmax(-1)

    def sample(self, params: Tensor) -> Tensor:
        return draw_ids(params)

    def outputs(self, params: Tensor) -> dict[str, Tensor]:
        """Overridden: the logits, because the most probable id is not continuous."""
        return {"logits": params}


def draw_ids(logits: Tensor) -> Tensor:
    """Draws one id from each row of logits `(..., ids)`."""
    return torch.multinomial(torch.softmax(logits.flatten(0, -2), -1), 1).view(logits.shape[:-1])

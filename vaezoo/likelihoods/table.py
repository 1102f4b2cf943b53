"""The likelihood of tables whose columns are real numbers or categories."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo.errors import VaezooError
from vaezoo.likelihoods.base import Likelihood, Shape

LOG_2PI = 1.8378770664093453
LOGVAR_BOUND = 6.0  # of a real column: sigma stays between exp(-3) and exp(3) of standardized data
MAX_CATEGORIES = 10_000


def column_sizes(columns: tuple[str, ...]) -> tuple[int, ...]:
    """Returns the number of categories of each column, 0 for a real one.

    Args:
        columns: `name:real`, or `name:k` for k categories, one for each column.

    Raises:
        VaezooError: If a column has another form.
    """
    sizes = []
    for column in columns:
        text = column.rpartition(":")[2]
        size = 0 if text == "real" else int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 1
        if size == 1 or size > MAX_CATEGORIES:
            raise VaezooError(
                f"column '{column}' is neither real nor a category",
                f"use name:real, or name:k for k categories, 2 to {MAX_CATEGORIES:,}",
            )
        sizes.append(size)
    return tuple(sizes)


class Table(Likelihood):
    """Columns that are independent given z. A category is stored in x as its number.

    `params` hold, side by side, the mean and the raw log-variance of each real column, and k logits for each column
    of k categories.

    Args:
        columns: As in `column_sizes`.
    """

    kinds = ("table",)

    def __init__(self, columns: tuple[str, ...]) -> None:
        super().__init__()
        self.sizes = column_sizes(columns)

    def params_shape(self, shape: Shape) -> Shape:
        return (sum(size or 2 for size in self.sizes),)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        terms = []
        for i, (size, p) in enumerate(zip(self.sizes, self._columns(params), strict=True)):
            if size:
                terms.append(torch.log_softmax(p, 1).gather(1, x[:, i : i + 1].long()).squeeze(1))
            else:
                logvar = _bounded(p[:, 1])
                terms.append(-0.5 * ((x[:, i] - p[:, 0]).square() * torch.exp(-logvar) + logvar + LOG_2PI))
        return torch.stack(terms, 1).sum(1)

    def mean(self, params: Tensor) -> Tensor:
        columns = zip(self.sizes, self._columns(params), strict=True)
        return torch.stack([p.argmax(1).to(p.dtype) if size else p[:, 0] for size, p in columns], 1)

    def sample(self, params: Tensor) -> Tensor:
        columns = []
        for size, p in zip(self.sizes, self._columns(params), strict=True):
            if size:
                columns.append(torch.multinomial(torch.softmax(p, 1), 1).squeeze(1).to(p.dtype))
            else:
                columns.append(p[:, 0] + torch.exp(0.5 * _bounded(p[:, 1])) * torch.randn_like(p[:, 0]))
        return torch.stack(columns, 1)

    def outputs(self, params: Tensor) -> dict[str, Tensor]:
        """Overridden: the means of real columns and the probabilities of categories, side by side."""
        columns = zip(self.sizes, self._columns(params), strict=True)
        return {"columns": torch.cat([torch.softmax(p, 1) if size else p[:, :1] for size, p in columns], 1)}

    def _columns(self, params: Tensor) -> tuple[Tensor, ...]:
        return torch.split(params, [size or 2 for size in self.sizes], 1)


def _bounded(raw: Tensor) -> Tensor:
    """Bounds log-variances softly to (-LOGVAR_BOUND, LOGVAR_BOUND)."""
    return LOGVAR_BOUND * torch.tanh(raw / LOGVAR_BOUND)

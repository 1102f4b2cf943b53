"""The likelihood of tables whose columns are real numbers or categories."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo.core.tables import MAX_CATEGORIES, ModelColumn, parse_model_column
from vaezoo.errors import VaezooError
from vaezoo.likelihoods.base import Likelihood, Shape

LOG_2PI = 1.8378770664093453
LOGVAR_BOUND = 6.0  # of a real column: sigma stays between exp(-3) and exp(3) of standardized data


def model_columns(columns: tuple[str, ...]) -> tuple[ModelColumn, ...]:
    """Returns the parsed columns of a table.

    Args:
        columns: `name:real`, or `name:k` for k categories, one for each column. A `?` follows where cells may be
            missing.

    Raises:
        VaezooError: If a column has another form.
    """
    parsed = [parse_model_column(column) for column in columns]
    for text, column in zip(columns, parsed, strict=True):
        if column is None:
            raise VaezooError(
                f"column '{text}' is neither real nor a category",
                f"use name:real, or name:k for k categories, 2 to {MAX_CATEGORIES:,}",
            )
    return tuple(column for column in parsed if column is not None)


class Table(Likelihood):
    """Columns that are independent given z. A category is stored in x as its number, and a missing cell as NaN.

    A missing cell is left out of the likelihood: p(x|z) is that of the observed cells. The ELBO then bounds their
    marginal log-likelihood (Nazabal et al. 2020, arXiv 1807.03653, equation 3).

    `params` hold, side by side, the mean and the raw log-variance of each real column, and k logits for each column
    of k categories.

    Args:
        columns: As in `model_columns`.
    """

    kinds = ("table",)

    def __init__(self, columns: tuple[str, ...]) -> None:
        super().__init__()
        self.sizes = tuple(column.size for column in model_columns(columns))

    def params_shape(self, shape: Shape) -> Shape:
        return (sum(size or 2 for size in self.sizes),)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        missing, terms = x.isnan(), []
        x = x.masked_fill(missing, 0)
        for i, (size, p) in enumerate(zip(self.sizes, self._columns(params), strict=True)):
            if size:
                terms.append(torch.log_softmax(p, 1).gather(1, x[:, i : i + 1].long()).squeeze(1))
            else:
                logvar = _bounded(p[:, 1])
                terms.append(-0.5 * ((x[:, i] - p[:, 0]).square() * torch.exp(-logvar) + logvar + LOG_2PI))
        return torch.stack(terms, 1).masked_fill(missing, 0).sum(1)

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
        """Overridden: the means of real columns and the probabilities of categories, side by side.

        `deviations` are the standard deviations of the real columns, if there are any. Both give p(x|z).
        """
        columns = [*zip(self.sizes, self._columns(params), strict=True)]
        outputs = {"columns": torch.cat([torch.softmax(p, 1) if size else p[:, :1] for size, p in columns], 1)}
        if deviations := [torch.exp(0.5 * _bounded(p[:, 1:])) for size, p in columns if not size]:
            outputs["deviations"] = torch.cat(deviations, 1)
        return outputs

    def _columns(self, params: Tensor) -> tuple[Tensor, ...]:
        return torch.split(params, [size or 2 for size in self.sizes], 1)


def _bounded(raw: Tensor) -> Tensor:
    """Bounds log-variances softly to (-LOGVAR_BOUND, LOGVAR_BOUND)."""
    return LOGVAR_BOUND * torch.tanh(raw / LOGVAR_BOUND)

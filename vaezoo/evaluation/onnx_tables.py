"""p(x|z) of a table, as the decoder of an export describes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from vaezoo.likelihoods.base import Likelihood, Shape
from vaezoo.likelihoods.table import LOG_2PI, model_columns
from vaezoo.runtime.manifest import Array

MIN_PROBABILITY = 1e-37  # ONNX Runtime's softmax returns 0 for smaller ones


class ExportedTable(Likelihood):
    """Columns that are independent given z: categories, and real ones that are mixtures of normals.

    `params` hold the decoder's outputs side by side, as `to_params` returns them: the probabilities of categories and
    the means of real columns, and then the probabilities, means and deviations of the components of real columns.

    Args:
        columns: As in `vaezoo.likelihoods.table.model_columns`.
        components: How many normals a real column is a mixture of.
    """

    kinds = ("table",)

    def __init__(self, columns: tuple[str, ...], components: int) -> None:
        super().__init__()
        self.sizes = tuple(column.size for column in model_columns(columns))
        self.components = components
        self.reals = self.sizes.count(0)

    def params_shape(self, shape: Shape) -> Shape:
        return (sum(size or 1 for size in self.sizes) + 3 * self.reals * self.components,)

    def to_params(self, outputs: Mapping[str, Array]) -> Tensor:
        """Returns the outputs of a decoder as `params`."""
        tensors = {name: torch.from_numpy(array).float() for name, array in outputs.items()}
        columns = tensors["columns"]
        if not self.reals:
            return columns
        if "mode_probabilities" in tensors:
            names = ("mode_probabilities", "mode_means", "deviations")
            return torch.cat([columns, *(tensors[name].flatten(1) for name in names)], 1)
        parts = torch.split(columns, [size or 1 for size in self.sizes], 1)
        means = torch.cat([part for part, size in zip(parts, self.sizes, strict=True) if not size], 1)
        return torch.cat([columns, torch.ones_like(means), means, tensors["deviations"]], 1)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        missing, terms = x.isnan(), []
        x = x.masked_fill(missing, 0)
        for i, (probabilities, means, deviations) in enumerate(self._columns(params)):
            log_p = probabilities.clamp(min=MIN_PROBABILITY).log()
            if self.sizes[i]:
                terms.append(log_p.gather(1, x[:, i : i + 1].long()).squeeze(1))
                continue
            square = ((x[:, i : i + 1] - means) / deviations).square()
            terms.append(torch.logsumexp(log_p - 0.5 * (square + LOG_2PI) - deviations.log(), 1))
        return torch.stack(terms, 1).masked_fill(missing, 0).sum(1)

    def mean(self, params: Tensor) -> Tensor:
        columns = zip(self.sizes, self._columns(params), strict=True)
        return torch.stack(
            [p.argmax(1).to(p.dtype) if size else (p * means).sum(1) for size, (p, means, _) in columns], 1
        )

    def sample(self, params: Tensor) -> Tensor:
        columns = []
        for size, (p, means, deviations) in zip(self.sizes, self._columns(params), strict=True):
            chosen = torch.multinomial(p, 1)
            if size:
                columns.append(chosen.squeeze(1).to(p.dtype))
                continue
            mean, deviation = (values.gather(1, chosen).squeeze(1) for values in (means, deviations))
            columns.append(mean + deviation * torch.randn_like(mean))
        return torch.stack(columns, 1)

    def _columns(self, params: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yields probabilities, means and deviations of each column. Those of categories are all probabilities."""
        widths, row = [size or 1 for size in self.sizes], 0
        parts = torch.split(params[:, : sum(widths)], widths, 1)
        mixtures = params[:, sum(widths) :].reshape(len(params), 3, -1, self.components) if self.reals else params
        for size, part in zip(self.sizes, parts, strict=True):
            if size:
                yield part, part, part
            else:
                yield mixtures[:, 0, row], mixtures[:, 1, row], mixtures[:, 2, row]
                row += 1

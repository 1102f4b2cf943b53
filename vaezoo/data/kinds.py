"""Kinds of data: what the numbers of an example mean.

A kind says how an example looks to a network (`features`), what stands for data where there are none (`example`), and
how many of its numbers are observed (`count`). A likelihood names the kinds that it is a distribution of.

| kind | x |
|---|---|
| unit | floats in [0, 1], such as pixels |
| real | floats of any size, standardized as a rule |
| count | non-negative integers, as floats |
| tokens | ids below the vocabulary, int64; 0 is padding |
| table | real columns, and categories stored as their number, as floats; NaN is a missing cell |
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from vaezoo.errors import VaezooError, suggest
from vaezoo.likelihoods.base import Shape
from vaezoo.likelihoods.categorical import PADDING
from vaezoo.likelihoods.table import model_columns

MISSING_SHARE = 0.2  # of the examples that resemble no particular data
KINDS = ("unit", "real", "count", "tokens", "table")


class Kind(ABC):
    """What x holds. It has floats of the shape of x unless a subclass says otherwise."""

    dtype = torch.float32

    @abstractmethod
    def example(self, n: int, shape: Shape, generator: Generator) -> Tensor:
        """Draws n valid examples that resemble no particular data, `(n, *shape)`, on the CPU."""

    def accepts(self, x: Tensor) -> bool:
        """Tells whether x, `(B, *shape)`, has values that features and likelihoods are defined for."""
        return x.dtype == self.dtype and bool(x.isfinite().all())

    def features_shape(self, shape: Shape) -> Shape:
        """Returns the shape of the features of one example."""
        return shape

    def features(self, x: Tensor) -> Tensor:
        """Returns x as a network takes it, `(B, *features_shape)`, floats."""
        return x

    def count(self, x: Tensor) -> Tensor:
        """Returns how many numbers of each example are observed, `(B,)`. Bits per dimension are divided by it."""
        return torch.full((len(x),), math.prod(x.shape[1:]), dtype=torch.float64)


class Unit(Kind):
    """Floats in [0, 1]."""

    def example(self, n: int, shape: Shape, generator: Generator) -> Tensor:
        return torch.rand((n, *shape), generator=generator)

    def accepts(self, x: Tensor) -> bool:
        """Overridden: bytes stand for floats."""
        return x.dtype == torch.uint8 or super().accepts(x)


class Real(Kind):
    """Floats of any size."""

    def example(self, n: int, shape: Shape, generator: Generator) -> Tensor:
        return 2 * torch.randn((n, *shape), generator=generator)


class Count(Kind):
    """Non-negative integers. A network gets log(1 + x)."""

    def example(self, n: int, shape: Shape, generator: Generator) -> Tensor:
        return torch.poisson(5 * torch.rand((n, *shape), generator=generator), generator=generator)

    def accepts(self, x: Tensor) -> bool:
        """Overridden: counts are whole and at least 0."""
        return super().accepts(x) and bool(((x >= 0) & (x == x.round())).all())

    def features(self, x: Tensor) -> Tensor:
        return torch.log1p(x)


@dataclass(frozen=True)
class Tokens(Kind):
    """Ids below `vocabulary`. A network gets them one-hot, `(B, T, vocabulary)`."""

    vocabulary: int
    dtype = torch.int64

    def example(self, n: int, shape: Shape, generator: Generator) -> Tensor:
        return torch.randint(1, self.vocabulary, (n, *shape), generator=generator)

    def accepts(self, x: Tensor) -> bool:
        """Overridden: ids are below the vocabulary."""
        return super().accepts(x) and bool(((x >= 0) & (x < self.vocabulary)).all())

    def features_shape(self, shape: Shape) -> Shape:
        return (*shape, self.vocabulary)

    def features(self, x: Tensor) -> Tensor:
        return F.one_hot(x, self.vocabulary).float()

    def count(self, x: Tensor) -> Tensor:
        return (x != PADDING).flatten(1).sum(1).double()


@dataclass(frozen=True)
class TableColumns(Kind):
    """Columns `name:real` or `name:k`, with `?` where cells may be missing. NaN in x is a missing cell.

    A network gets real columns as they are, and categories one-hot. It gets the mask too: a missing category has no 1,
    and a real column that may miss cells comes with a column that is 1 where the cell is observed. Its value is 0 else.
    """

    columns: tuple[str, ...]

    def example(self, n: int, shape: Shape, generator: Generator) -> Tensor:
        columns = []
        for size, may_miss in self._sizes():
            whole = torch.randint(0, size or 1, (n,), generator=generator).float()
            values = whole if size else torch.randn(n, generator=generator)
            is_missing = torch.rand(n, generator=generator) < MISSING_SHARE if may_miss else torch.zeros(n).bool()
            columns.append(values.masked_fill(is_missing, torch.nan))
        return torch.stack(columns, 1)

    def accepts(self, x: Tensor) -> bool:
        """Overridden: categories are whole numbers below k, and cells may be missing."""
        if x.dtype != self.dtype or bool(x.isinf().any()):
            return False
        for (size, may_miss), column in zip(self._sizes(), x.unbind(1), strict=True):
            observed = column[~column.isnan()]
            if len(observed) < len(column) and not may_miss:
                return False
            if size and not bool(((observed >= 0) & (observed < size) & (observed == observed.round())).all()):
                return False
        return True

    def features_shape(self, shape: Shape) -> Shape:
        return (sum(size or 1 + may_miss for size, may_miss in self._sizes()),)

    def features(self, x: Tensor) -> Tensor:
        missing, features = x.isnan(), []
        x = x.masked_fill(missing, 0)
        for i, (size, may_miss) in enumerate(self._sizes()):
            observed = ~missing[:, i : i + 1]
            if size:
                features.append(F.one_hot(x[:, i].long(), size) * observed)
            else:
                features += [x[:, i : i + 1], *([observed] if may_miss else [])]
        return torch.cat([part.to(x.dtype) for part in features], 1)

    def count(self, x: Tensor) -> Tensor:
        """Overridden: missing cells do not count."""
        return (~x.isnan()).sum(1).double()

    def _sizes(self) -> list[tuple[int, bool]]:
        return [(column.size, column.may_miss) for column in model_columns(self.columns)]


def make_kind(name: str, vocabulary: int = 0, columns: tuple[str, ...] = ()) -> Kind:
    """Returns the kind of that name.

    Raises:
        VaezooError: If there is none.
    """
    match name:
        case "unit":
            return Unit()
        case "real":
            return Real()
        case "count":
            return Count()
        case "tokens":
            return Tokens(vocabulary)
        case "table":
            return TableColumns(columns)
    raise VaezooError(f"no kind of data named '{name}'", suggest(name, KINDS, f"use one of {', '.join(KINDS)}"))

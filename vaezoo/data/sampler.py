"""Samplers, which choose other training batches than the examples in random order: pairs, and a share with labels.

What they choose is a function of the run's seed and of the step. It is the same after a resume and in every process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from vaezoo.core.seed import derive_seed
from vaezoo.data.base import Split
from vaezoo.errors import UnsupportedDataError, VaezooError

UNLABELLED = -1  # the label of training examples whose label is hidden
LABELLED_EVERY = 4  # one row of a training batch in so many has a label


class Sampler(ABC):
    """How training batches are made of the examples.

    Attributes:
        split: The training examples as the objective may see them.
        multiple: The number of rows that belong together. The part of a batch that a process computes at a time must be
            a multiple of it.
    """

    split: Split
    multiple: int

    @abstractmethod
    def rows(self, order: Tensor, step: int) -> Tensor:
        """Returns the indices of the examples of a batch.

        Args:
            order: As many indices, which come next in the random order of the epoch, on the CPU.
            step: The step, counted from 0.
        """


class PairSampler(Sampler):
    """Pairs of examples that share all but some factors of variation. Rows 2i and 2i + 1 of a batch are a pair.

    The factors that may differ are drawn for each pair. Its second example is any that has other values of them and the
    same values of all other factors. If there is none, one factor more may differ.

    Args:
        train: The training examples.
        changed: How many factors may differ. None: a number from 1 to all but one, drawn for each pair.
        seed: The run's seed.
        option: The option that asks for pairs, for errors.

    Raises:
        UnsupportedDataError: If the examples do not have several factors.
        VaezooError: If `changed` is not a number of factors.
    """

    multiple = 2

    def __init__(self, train: Split, changed: int | None, seed: int, option: str) -> None:
        if train.y is None or train.y.ndim != 2 or train.y.shape[1] < 2:
            labels = "labels" if train.y is None else "several labels for each example"
            raise UnsupportedDataError(
                f"{option} needs factors of variation, and the data have no {labels}", "use --data shapes, for example"
            )
        self.split = train
        self.factors = train.y.cpu()
        self.seed = seed
        count = self.factors.shape[1]
        self.changed = torch.arange(1, count) if changed is None else torch.tensor([changed])
        if not 1 <= int(self.changed[0]) < count:
            raise VaezooError(
                f"objective.changed_factors is {changed}, and the data have {count} factors", f"give 1 to {count - 1}"
            )
        self._same = torch.unique(self.factors, dim=0, return_inverse=True)[1]  # equal for equal factors
        self._groups: dict[tuple[int, ...], Groups] = {}

    def rows(self, order: Tensor, step: int) -> Tensor:
        first = order[: len(order) // 2]
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "pairs", step))
        count = self.factors.shape[1]
        numbers = torch.rand((len(first), count + 2), generator=generator)
        ranking = numbers[:, :count].argsort(1).tolist()
        changed = self.changed[(numbers[:, count] * len(self.changed)).long()].tolist()
        choice = numbers[:, count + 1].tolist()
        second = [self._partner(*row) for row in zip(first.tolist(), ranking, changed, choice, strict=True)]
        return torch.stack([first, torch.tensor(second)], 1).flatten()

    def _partner(self, row: int, ranking: list[int], changed: int, choice: float) -> int:
        """Returns another example, of which the first `changed` factors of a ranking may differ, or more of them."""
        for size in range(changed, len(ranking) + 1):
            factors = tuple(sorted(ranking[:size]))
            if factors not in self._groups:
                kept = [i for i in range(len(ranking)) if i not in factors]
                self._groups[factors] = Groups(self.factors[:, kept], self._same)
            if (partner := self._groups[factors].other(row, choice)) is not None:
                return partner
        return row  # all examples have the same factors


class Groups:
    """Examples with equal values of some factors.

    Args:
        kept: These factors, `(N, factors)`.
        same: A number for each example, equal for examples that are equal in all factors, `(N,)`.
    """

    def __init__(self, kept: Tensor, same: Tensor) -> None:
        n = len(same)
        group = torch.unique(kept, dim=0, return_inverse=True)[1] if kept.shape[1] else torch.zeros_like(same)
        # In the order of these keys, the examples of a group lie side by side, and in it those that are equal.
        keys = group * n + same
        self.n = n
        self.keys = keys.numpy()
        self.order = keys.argsort(stable=True).numpy()
        self.sorted = self.keys[self.order]

    def other(self, row: int, choice: float) -> int | None:
        """Returns an example of the group of `row` that differs from it, or None. `choice` in [0, 1) says which one."""
        key = int(self.keys[row])
        group = key // self.n * self.n
        start, equal, after, end = np.searchsorted(self.sorted, (group, key, key + 1, group + self.n)).tolist()
        count = end - start - (after - equal)
        if not count:
            return None
        place = start + int(choice * count)
        return int(self.order[place if place < equal else place + after - equal])


class LabelledSampler(Sampler):
    """Batches in which one row in four has a label. Some training examples have one, equally many of each class.

    The label of all others is `UNLABELLED`, -1. The rows without a label come in the random order of the epoch. Those
    with a label come in a random order of their own.

    Args:
        train: The training examples.
        labelled: How many examples keep their label.
        classes: The number of classes.
        seed: The run's seed.

    Raises:
        VaezooError: If `labelled` is not a multiple of the classes, or a class has too few examples.
    """

    multiple = LABELLED_EVERY

    def __init__(self, train: Split, labelled: int, classes: int, seed: int) -> None:
        if labelled % classes:
            raise VaezooError(
                f"objective.labelled={labelled} is not a multiple of the {classes} classes",
                f"give {labelled // classes * classes or classes}",
            )
        assert train.y is not None and train.y.ndim == 1
        y, each = train.y.cpu(), labelled // classes
        generator = torch.Generator().manual_seed(derive_seed(seed, "labels"))
        order = torch.randperm(len(y), generator=generator)
        chosen = [order[y[order] == label][:each] for label in range(classes)]
        if short := [label for label, rows in enumerate(chosen) if len(rows) < each]:
            raise VaezooError(
                f"objective.labelled={labelled} needs {each} examples of each class, and class {short[0]} has "
                f"{len(chosen[short[0]])}",
                "give a smaller number",
            )
        self.labelled = torch.cat(chosen).sort().values
        self.seed = seed
        hidden = torch.full_like(y, UNLABELLED)
        hidden[self.labelled] = y[self.labelled]
        self.split = train.with_labels(hidden.to(train.y.device))

    def rows(self, order: Tensor, step: int) -> Tensor:
        rows, n = order.clone(), len(self.labelled)
        places = torch.arange(0, len(rows), LABELLED_EVERY)
        counted = step * len(places) + torch.arange(len(places))  # how many came before
        first, last = int(counted[0]) // n, int(counted[-1]) // n
        orders = torch.cat([self._order(number) for number in range(first, last + 1)])
        rows[places] = self.labelled[orders[counted - first * n]]
        return rows

    def _order(self, number: int) -> Tensor:
        """Returns the order of the examples with a label in pass `number` through them."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "labels", number + 1))
        return torch.randperm(len(self.labelled), generator=generator)

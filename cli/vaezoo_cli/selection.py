"""Which examples of a data set are drawn, and their labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaezoo.errors import VaezooError, safe_repr

if TYPE_CHECKING:
    from torch import Tensor

    from vaezoo.data.base import Split


def pick(part: Split, count: int, seed: int) -> Tensor:
    """Returns `count` examples of a part drawn by `seed`, or all if there are fewer: `(count, *shape)` in [0, 1]."""
    return part.select(shuffled(len(part), seed)[:count]).batch(slice(None)).x


def shuffled(n: int, seed: int) -> Tensor:
    """Returns the numbers below n in an order drawn by `seed`."""
    import torch

    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def require_labels(part: Split, name: str, factor: int | None) -> None:
    """Raises VaezooError unless the part has labels, and `factor` names one where each example has several."""
    if part.y is None:
        raise VaezooError(f"'{name}' has no labels", "give data that have, such as --data digits")
    several = part.y.shape[1] if part.y.ndim == 2 else None
    if several is None and factor is not None:
        raise VaezooError(f"'{name}' has one label an example", "leave out --factor")
    if several is not None and (factor is None or factor >= several):
        raise VaezooError(f"'{name}' has {several} labels an example", f"say which: --factor 0 to {several - 1}")


def label_column(part: Split, factor: int | None) -> Tensor:
    """Returns the labels `(N,)` of a part that has them, `factor`'s where there are several."""
    assert part.y is not None
    return part.y if factor is None else part.y[:, factor]


def known_label(part: Split, factor: int | None, label: int | None) -> int:
    """Returns the label that was asked for.

    Raises:
        VaezooError: If none was, or no example has it.
    """
    import torch

    there = torch.unique(label_column(part, factor)).tolist()
    if label is None or label not in there:
        wrong = "a concept needs a label" if label is None else f"no example has label {label}"
        raise VaezooError(wrong, f"give --label with one of {safe_repr(there)}")
    return label


def both_sides(
    part: Split, factor: int | None, label: int, counts: tuple[int, int], seed: int
) -> tuple[Tensor, Tensor]:
    """Draws examples without a label, then with it, so many of each or as many as there are: x and labels."""
    import torch

    labels = label_column(part, factor)
    sides = [mask.nonzero().flatten() for mask in (labels != label, labels == label)]
    index = torch.cat([side[shuffled(len(side), seed)[:n]] for side, n in zip(sides, counts, strict=True)])
    return part.select(index).batch(slice(None)).x, labels[index]

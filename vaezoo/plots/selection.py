"""The choice of examples to draw, and of their labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vaezoo.errors import VaezooError, safe_repr

if TYPE_CHECKING:
    from torch import Tensor

    from vaezoo.data.base import Batch, Split
    from vaezoo.data.spec import DataSpec


def random_examples(split: Split, count: int, seed: int) -> Batch:
    """Returns `count` random examples of a split, or all if there are fewer."""
    return split.select(random_permutation(len(split), seed)[:count]).batch(slice(None))


def random_permutation(n: int, seed: int) -> Tensor:
    """Returns a random permutation of 0..n-1."""
    import torch

    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def require_labels(split: Split, name: str, factor: int | None) -> None:
    """Checks that a split has labels, and that `factor` names one if each example has several.

    Args:
        split: The split.
        name: Name of the data set, for errors.
        factor: Index of the label, or None if each example has one.

    Raises:
        VaezooError: If it does not.
    """
    if split.y is None:
        raise VaezooError(f"'{name}' has no labels", "give data with labels, such as --data digits")
    factors = split.y.shape[1] if split.y.ndim == 2 else None
    if factors is None and factor is not None:
        raise VaezooError(f"'{name}' has one label per example", "leave out --factor")
    if factors is not None and (factor is None or factor >= factors):
        raise VaezooError(f"'{name}' has {factors} labels per example", f"choose one: --factor 0 to {factors - 1}")


def label_column(split: Split, factor: int | None) -> Tensor:
    """Returns the labels `(N,)` of a split that has labels, or column `factor` if there are several per example."""
    assert split.y is not None
    return split.y if factor is None else split.y[:, factor]


def label_names(spec: DataSpec, factor: int | None) -> tuple[str, ...]:
    """Returns the names of the values of a label, or none if they have none."""
    return spec.names_by_label[factor or 0] if spec.names_by_label else ()


def require_label(split: Split, factor: int | None, label: str | None, names: Sequence[str]) -> int:
    """Returns the number of the label that a user typed.

    Args:
        split: The split.
        factor: As in `label_column`.
        label: The name of a class or its number.
        names: The names of the classes, or none.

    Raises:
        VaezooError: If the user gave none, or no example has it.
    """
    import torch

    present = torch.unique(label_column(split, factor)).tolist()
    choices = [names[number] for number in present] if names else [str(number) for number in present]
    if label in choices:
        return int(present[choices.index(label)])
    if label is not None and label in map(str, present):  # the number of a class that has a name
        return int(label)
    problem = "an attribute vector needs a label" if label is None else f"no example has label {label}"
    raise VaezooError(problem, f"give --label with one of {safe_repr(choices if names else present)}")


def without_and_with_label(
    split: Split, factor: int | None, label: int, counts: tuple[int, int], seed: int
) -> tuple[Batch, Tensor]:
    """Returns random examples without a label, followed by examples with it.

    Args:
        split: The split.
        factor: As in `label_column`.
        label: The label.
        counts: How many without and with the label. All are returned if there are fewer.
        seed: Seed of the choice.

    Returns:
        The examples, and their labels `(N,)`.
    """
    import torch

    labels = label_column(split, factor)
    groups = [mask.nonzero().flatten() for mask in (labels != label, labels == label)]
    index = torch.cat([g[random_permutation(len(g), seed)[:n]] for g, n in zip(groups, counts, strict=True)])
    return split.select(index).batch(slice(None)), labels[index]

"""What a model, an objective and a trainer may know of data: DataSpec, Batch, Part, Split, Dataset."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor

from vaezoo.errors import InputError, VaezooError
from vaezoo.likelihoods.make import make_likelihood

VALID_DIVISOR = 10  # one example in ten ...
MAX_VALID = 3_000  # ... but never more than this many
STREAMED_MEAN_EXAMPLES = 1_000  # examples that a mean is taken of where all would have to be decoded
CHUNK_ELEMENTS = 1 << 22  # numbers that are widened at once


class Batch(NamedTuple):
    """What an objective takes.

    Attributes:
        x: `(B, *shape)`, float in [0, 1].
        y: `(B,)` labels or `(B, factors)` factors of variation, int64; None where the data has none.
    """

    x: Tensor
    y: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """All that a model may know of its data.

    Attributes:
        name: What the data set is called, for people.
        shape: `(channels, height, width)` of an image or `(dimensions,)` of a vector.
        likelihood: The family of p(x|z), in the notation of `vaezoo.likelihoods.make.make_likelihood`.

    Raises:
        VaezooError: If the shape is neither, or there is no such likelihood.
    """

    name: str
    shape: tuple[int, ...]
    likelihood: str = "bernoulli"

    def __post_init__(self) -> None:
        if len(self.shape) not in (1, 3) or any(n < 1 for n in self.shape):
            raise VaezooError(
                f"shape {self.shape} of data set '{self.name}' is neither an image's nor a vector's",
                "use (channels, height, width) or (dimensions,)",
            )
        make_likelihood(self.likelihood)

    @property
    def dims(self) -> int:
        """How many numbers one example has."""
        return math.prod(self.shape)


AnySplit = TypeVar("AnySplit", bound="Split")


def to_floats(x: Tensor) -> Tensor:
    """Brings bytes in 0..255 to float32 in [0, 1], on their device; floats stay as they are."""
    return x.float() / 255.0 if x.dtype == torch.uint8 else x


def mean_example(part: Split) -> Tensor:
    """Returns the mean of a part's examples, `shape`, float64 in [0, 1]; of streamed images that of 1,000 of them.

    Bytes are summed exactly, so that neither the number of threads nor of processes changes the result.
    """
    x = part.x if isinstance(part, TensorSplit) else part.subsample(STREAMED_MEAN_EXAMPLES).x
    rows = max(1, CHUNK_ELEMENTS // max(1, x[0].numel()))
    total = torch.stack([chunk.double().sum(0) for chunk in torch.split(x, rows)]).sum(0).cpu() / len(x)
    return total / 255 if x.dtype == torch.uint8 else total


class Split(Protocol):
    """One part of a data set, wherever its examples lie: a `TensorSplit` in memory, or images that are streamed."""

    @property
    def y(self) -> Tensor | None:
        """All labels `(N,)` or factors `(N, factors)`, int64, in memory; None where the data has none."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""

    @property
    def nbytes(self) -> int:
        """How many bytes all x have, as `raw` gives them."""

    def __len__(self) -> int:
        """The number of examples."""

    def gather(self, index: Tensor | slice) -> Batch:
        """Gathers the examples at `index` as they are stored, in bytes or floats: a Split's on its device, else on
        the CPU.

        Raises:
            InputError: If they are files that cannot be read any more.
        """

    def batch(self, index: Tensor | slice) -> Batch:
        """Gathers the examples at `index` and brings them to float in [0, 1]; raises as `raw` does."""

    def select(self, index: Tensor) -> Self:
        """Returns the part that has the examples at `index`, numbers or a mask."""

    def subsample(self, count: int) -> TensorSplit:
        """Returns `count` examples, or all if there are fewer, evenly spaced: folders are sorted by class."""


def even_indices(count: int, n: int) -> Tensor:
    """Returns the numbers of `count` of n examples, evenly spaced, or of all if there are fewer."""
    count = min(count, n)
    return torch.arange(count) * n // max(count, 1)


@dataclass(frozen=True, slots=True, repr=False)
class TensorSplit:
    """One part of a data set, in memory.

    Attributes:
        x: `(N, *shape)`, uint8 in 0..255 (kept small; made float batch by batch) or float32 in [0, 1].
        y: `(N,)` or `(N, factors)`, int64, or None.
    """

    x: Tensor
    y: Tensor | None

    def __repr__(self) -> str:
        return f"Split({len(self)} x {tuple(self.x.shape[1:])} {self.x.dtype})"

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.x.shape[1:])

    @property
    def nbytes(self) -> int:
        """How many bytes x has."""
        return self.x.nbytes

    def gather(self, index: Tensor | slice) -> Batch:
        """Gathers the examples at `index` as they are stored: x in bytes or floats."""
        return Batch(_rows(self.x, index), None if self.y is None else _rows(self.y, index))

    def batch(self, index: Tensor | slice) -> Batch:
        """Gathers the examples at `index` and brings them to float in [0, 1]."""
        x, y = self.gather(index)
        return Batch(to_floats(x), y)

    def select(self, index: Tensor) -> TensorSplit:
        """Returns the part that has the examples at `index`, numbers or a mask."""
        return TensorSplit(*self.gather(index))

    def subsample(self, count: int) -> TensorSplit:
        """Returns `count` examples, or all if there are fewer, evenly spaced: folders are sorted by class."""
        return self.select(even_indices(count, len(self)))

    def to(self, device: torch.device) -> TensorSplit:
        """Returns the part on `device`."""
        return TensorSplit(self.x.to(device), None if self.y is None else self.y.to(device))


def _rows(values: Tensor, index: Tensor | slice) -> Tensor:
    """Gathers whole rows: `index_select` copies them as such, a seventh of the time that indexing takes."""
    mask = isinstance(index, Tensor) and index.dtype == torch.bool
    return values[index] if mask or isinstance(index, slice) else values.index_select(0, index)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """The words that name a data set, so that a finished run can load it again.

    Attributes:
        data: A name known to `vaezoo.load_data`, or the path of an image folder or array file.
        data_dir: Where the classical sets lie.
        image_size: Height and width that images are resized to, in pixels.
        likelihood: Overrides the data set's own default.
        on_bad_image: What happens to images that cannot be read: error or skip.
    """

    data: str
    data_dir: str | None = None
    image_size: int | None = None
    likelihood: str | None = None
    on_bad_image: str = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A data set, in memory or streamed from files, with a validation part that training never sees.

    Attributes:
        spec: What models may know of it.
        train: The training part, without the validation examples.
        valid: Carved from the training part: every tenth example, at most 3,000.
        test: The official test part, or None where the source has none.
        source: How to load it again; None if it was made from arrays in a program.
    """

    spec: DataSpec
    train: Split
    valid: Split
    test: Split | None
    source: DataSource | None = None

    @property
    def held_out(self) -> tuple[str, Split]:
        """The part that reports and images are made of, with its name: test, else validation."""
        return ("test", self.test) if self.test is not None else ("valid", self.valid)


def train_valid_split(train: AnySplit) -> tuple[AnySplit, AnySplit]:
    """Splits a training part into training and validation examples, evenly spaced, without chance.

    Evenly spaced picks keep the classes balanced in sets that are sorted by class, and give
    the same parts with each version of each library.

    Raises:
        InputError: If there are fewer than two examples.
    """
    n = len(train)
    if n < 2:
        raise InputError(f"{n} training examples are too few to split", "give at least two examples")
    held = torch.zeros(n, dtype=torch.bool)
    count = max(1, min(n // VALID_DIVISOR, MAX_VALID))
    held[even_indices(count, n)] = True
    return train.select(~held), train.select(held)

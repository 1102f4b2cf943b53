"""The data contracts of models, objectives and trainers: Batch, Split, TensorSplit and Dataset."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from vaezoo.data.labels import LabelNames
from vaezoo.data.series.windows import Windows
from vaezoo.data.spec import DataSpec
from vaezoo.errors import InputError, VaezooError

VALID_DIVISOR = 10  # one training example in ten is held out for validation
MAX_VALID = 3_000  # the largest number of validation examples
STREAMED_MEAN_EXAMPLES = 1_000  # streamed images whose mean stands for the mean of all, to avoid decoding all
CHUNK_ELEMENTS = 1 << 22  # numbers that are converted to float64 at a time
LABELS_HINT = "give labels: a folder of images for each class, y in a .npz file, or y= in Python"

ImageSize = int | tuple[int, int]  # pixels: of both sides, or height and width


class Batch(NamedTuple):
    """The examples that an objective gets.

    Attributes:
        x: `(B, *shape)`, floats or token ids; see `vaezoo.data.kinds`.
        y: `(B,)` labels or `(B, factors)` factors of variation, int64. None if the data have none.
    """

    x: Tensor
    y: Tensor | None = None


def given(names: tuple[str, ...], batch: Batch) -> tuple[Tensor, ...]:
    """Returns the fields of a batch that a model or prior is given.

    Raises:
        VaezooError: If the batch does not have one of them.
    """
    values = tuple(getattr(batch, name) for name in names)
    if any(value is None for value in values):
        raise VaezooError("the model is conditioned on labels, but none are given", LABELS_HINT)
    return values


AnySplit = TypeVar("AnySplit", bound="Split")


def to_floats(x: Tensor) -> Tensor:
    """Converts bytes in 0..255 to float32 in [0, 1] on their device. Floats are returned unchanged."""
    return x.float() / 255.0 if x.dtype == torch.uint8 else x


def mean_example(split: Split) -> Tensor:
    """Returns the mean of a split's examples, of shape `shape`, float64. Bytes are scaled to [0, 1].

    For streamed images it is the mean of 1,000 of them. Bytes are summed exactly, so the number of threads or processes
    does not change the result.
    """
    x = split.x if isinstance(split, TensorSplit) else split.subsample(STREAMED_MEAN_EXAMPLES).x
    rows = max(1, CHUNK_ELEMENTS // max(1, x[0].numel()))
    total = torch.stack([chunk.double().sum(0) for chunk in torch.split(x, rows)]).sum(0).cpu() / len(x)
    return total / 255 if x.dtype == torch.uint8 else total


class Split(Protocol):
    """One split of a data set: a `TensorSplit` in memory, or `StreamedImages` that stay in their files."""

    @property
    def y(self) -> Tensor | None:
        """All labels `(N,)` or factors `(N, factors)`, int64, in memory. None if the data have none."""

    @property
    def names(self) -> tuple[str, ...] | None:
        """The files of the examples, relative to their folder. None if the examples are not files."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""

    @property
    def nbytes(self) -> int:
        """The size of all x in bytes, in the form that `gather` returns."""

    def __len__(self) -> int:
        """The number of examples."""

    def gather(self, index: Tensor | slice) -> Batch:
        """Gathers the examples at `index` in their stored form, bytes or floats.

        Returns:
            The batch. That of a `TensorSplit` is on the split's device, that of any other split on the CPU.

        Raises:
            InputError: If the examples are files that can no longer be read.
        """

    def batch(self, index: Tensor | slice) -> Batch:
        """Gathers the examples at `index`, bytes as floats in [0, 1]. Raises the errors of `gather`."""

    def select(self, index: Tensor) -> Self:
        """Returns a split with the examples at `index`, which holds indices or a mask."""

    def subsample(self, count: int) -> TensorSplit:
        """Returns `count` evenly spaced examples, or all if there are fewer.

        Even spacing keeps the classes balanced, because folders are sorted by class.
        """

    def with_labels(self, y: Tensor | None) -> Self:
        """Returns a split of the same examples with other labels."""


def even_indices(count: int, n: int) -> Tensor:
    """Returns `count` evenly spaced indices in 0..n-1, or all n if there are fewer."""
    count = min(count, n)
    return torch.arange(count) * n // max(count, 1)


@dataclass(frozen=True, slots=True, repr=False)
class TensorSplit:
    """One split of a data set, in memory.

    Attributes:
        x: `(N, *shape)`: uint8 in 0..255, float32, or int64 token ids. Bytes save memory and become floats batch by
            batch.
        y: `(N,)` or `(N, factors)`, int64, or None.
        names: The files of the examples, relative to their folder, or the times of windows. None if they have none.
        windows: Where the examples lie in a recording. None if they are not windows.
    """

    x: Tensor
    y: Tensor | None
    names: tuple[str, ...] | None = None
    windows: Windows | None = None

    def __repr__(self) -> str:
        return f"TensorSplit({len(self)} x {tuple(self.x.shape[1:])} {self.x.dtype})"

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.x.shape[1:])

    @property
    def nbytes(self) -> int:
        """The size of x in bytes."""
        return self.x.nbytes

    def gather(self, index: Tensor | slice) -> Batch:
        """Gathers the examples at `index` in their stored form, bytes or floats."""
        return Batch(_rows(self.x, index), None if self.y is None else _rows(self.y, index))

    def batch(self, index: Tensor | slice) -> Batch:
        """Gathers the examples at `index`, bytes as floats in [0, 1]."""
        x, y = self.gather(index)
        return Batch(to_floats(x), y)

    def select(self, index: Tensor) -> TensorSplit:
        """Returns a split with the examples at `index`, which holds indices or a mask."""
        places = torch.arange(len(self))[index.cpu()].tolist()
        names = None if self.names is None else tuple(self.names[i] for i in places)
        windows = None if self.windows is None else self.windows.select(np.array(places, np.int64))
        return TensorSplit(*self.gather(index), names, windows)

    def subsample(self, count: int) -> TensorSplit:
        """Returns `count` evenly spaced examples, or all if there are fewer.

        Even spacing keeps the classes balanced, because folders are sorted by class.
        """
        return self.select(even_indices(count, len(self)))

    def with_labels(self, y: Tensor | None) -> TensorSplit:
        """Returns a split of the same examples with other labels."""
        return replace(self, y=y)

    def to(self, device: torch.device) -> TensorSplit:
        """Returns the split on `device`."""
        return replace(self, x=self.x.to(device), y=None if self.y is None else self.y.to(device))


def _rows(values: Tensor, index: Tensor | slice) -> Tensor:
    """Gathers rows. `index_select` copies whole rows, in a seventh of the time that indexing takes."""
    is_mask = isinstance(index, Tensor) and index.dtype == torch.bool
    return values[index] if is_mask or isinstance(index, slice) else values.index_select(0, index)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """The arguments of `load_data` that load a data set again, as a run stores them.

    Attributes:
        data: A name that `vaezoo.load_data` knows, or the path of an image folder or array file.
        data_dir: The folder of the standard data sets.
        image_size: Height and width that images are resized to, in pixels. One number means both.
        likelihood: Overrides the data set's default.
        on_bad_image: What to do with unreadable images: error or skip.
        channels: "grey" or "colour", which images are converted to. None keeps what they have.
        scale: How values become x: unit, minmax, standardize or none.
        kind: "series", "sound", "waveform" or "counts" in files. None for data whose kind follows from their source.
        time_column: The column of times of a recording.
        window: Steps of each window of a recording.
        stride: Steps between the starts of two windows.
        sample_rate: Samples in a second to which sound is resampled.
        layer: The layer of a .h5ad file that holds counts.
        label_column: The column of its observations that holds labels.
        label_pattern: The regular expression whose groups are the labels in the names of files.
        tokenizer: How lines of texts become ids: characters, words or subwords; see `vaezoo.data.text.corpus`.
        vocabulary: The largest number of ids.
        length: Number of ids of an example.
        column: The column of a .csv file that holds the texts.
        on_long_text: What to do with longer texts: error or cut.
        columns: Kinds of columns of a table that a user chose, as `name=kind`.
    """

    data: str
    data_dir: str | None = None
    image_size: ImageSize | None = None
    likelihood: str | None = None
    on_bad_image: str = "error"
    channels: str | None = None
    scale: str = "unit"
    kind: str | None = None
    time_column: str | None = None
    window: int | None = None
    stride: int | None = None
    sample_rate: int | None = None
    layer: str | None = None
    label_column: str | None = None
    label_pattern: str | None = None
    tokenizer: str | None = None
    vocabulary: int | None = None
    length: int | None = None
    column: str | None = None
    on_long_text: str = "error"
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A data set in memory or streamed from files, with a validation split that training never sees.

    Attributes:
        spec: What models may know about it.
        train: The training split, without the validation examples.
        valid: The validation split: that of the source, or every tenth training example, at most 3,000.
        test: The official test split, or None if the source has none.
        source: How to load it again. None if it was made of arrays in a program.
    """

    spec: DataSpec
    train: Split
    valid: Split
    test: Split | None
    source: DataSource | None = None

    @property
    def held_out(self) -> tuple[str, Split]:
        """The name and the split that reports and plots use: test, or validation if there is no test split."""
        return ("test", self.test) if self.test is not None else ("valid", self.valid)


class Splits(NamedTuple):
    """What a reader of data found.

    Attributes:
        train: The training split. If `valid` is None, validation examples are taken from it.
        test: The official test split, or None.
        valid: The official validation split, or None.
        class_names: The name of each label, if the labels are the indices of these names. Empty otherwise.
        label_names: The same for each of several labels.
        column_names: The names of the columns of vectors, or of the channels of series, or none.
        time_column: The column of times of the recording that series were cut from. Empty for other data.
        sample_rate: Samples in a second of sound. 0 for other data.
        layer: As in `DataSpec`, like the next one.
        label_column: The column of labels.
    """

    train: Split
    test: Split | None = None
    valid: Split | None = None
    class_names: tuple[str, ...] = ()
    label_names: LabelNames = ()
    column_names: tuple[str, ...] = ()
    time_column: str = ""
    sample_rate: int = 0
    layer: str = ""
    label_column: str = ""

    def named(self, names: LabelNames) -> Splits:
        """Returns the splits with the names of the values of each label."""
        return self._replace(class_names=names[0]) if len(names) == 1 else self._replace(label_names=names)


def valid_mask(n: int) -> Tensor:
    """Returns which of n training examples are held out for validation, `(n,)` bools. A single one never is."""
    is_valid = torch.zeros(n, dtype=torch.bool)
    count = max(1, min(n // VALID_DIVISOR, MAX_VALID)) if n > 1 else 0
    is_valid[even_indices(count, n)] = True
    return is_valid


def train_valid_split(train: AnySplit) -> tuple[AnySplit, AnySplit]:
    """Divides a training split into training and validation examples. The choice is evenly spaced and not random.

    Even spacing keeps the classes balanced in sets that are sorted by class. It also gives the same splits with every
    version of every library.

    Raises:
        InputError: If there are fewer than two examples.
    """
    n = len(train)
    if n < 2:
        raise InputError(f"{n} training examples are too few to split", "give at least two examples")
    is_valid = valid_mask(n)
    return train.select(~is_valid), train.select(is_valid)

"""What a data set is: the shape, kind and likelihood of its examples, the names of its labels and columns."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import chain

from torch import Tensor

from vaezoo.core.scaling import Scaling
from vaezoo.core.table_cells import to_cells
from vaezoo.core.tables import Array, Column, columns_of
from vaezoo.core.tokenizer import Tokenizer, check_tokenizer
from vaezoo.data.kinds import Kind, make_kind
from vaezoo.data.labels import LabelNames
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.likelihoods.base import Likelihood, Shape
from vaezoo.likelihoods.make import make_likelihood

MAX_DIMS = 4  # of the shape of an example
MAX_CLASSES = 10_000  # values of a label that a model can be conditioned on


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """Everything that a model may know about its data.

    Attributes:
        name: The data set's name, for people.
        shape: The shape of one example: `(channels, height, width)` of an image, `(channels, time)` of a series,
            `(length,)` of a text, `(dimensions,)` of a vector, `(columns,)` of a table.
        likelihood: The family of p(x|z), in the notation of `vaezoo.likelihoods.make.make_likelihood`.
        kind: What the numbers mean: unit, real, count, tokens or table; see `vaezoo.data.kinds`.
        classes: How many values each label has. Empty for data without labels. A label is one of 0, 1, 2 ...
        vocabulary: Number of token ids, padding included. 0 for other data.
        columns: The columns of a table, `name:real` or `name:k` for k categories. A `?` follows where cells may be
            missing. Empty for other data.
        symbols: The text of each token id. Empty if unknown.
        offset: What was subtracted from the values of each column or channel. Empty if they were not scaled.
        factor: What they were then divided by; see `vaezoo.core.scaling.Scaling`.
        class_names: The name of each value of the label, in the order of its numbers. Empty if they have no names, or
            if examples have several labels.
        label_names: The names of the values of each label, if examples have several. Empty if they have no names.
        tokenizer: How texts become ids; see `vaezoo.core.tokenizer.Tokenizer`. Empty if unknown, and for other data.
        column_names: The names of the columns of vectors, or of the channels of series. Empty if they have none.
        time_column: The column of times in the files of the recording that series were cut from. Empty for other data.
        sample_rate: Samples in a second of the sound whose spectrograms or waveforms are the examples. 0 for others.
        column_formats: How each column of a table is written, such as `integer` or `date:%d.%m.%Y`; see
            `vaezoo.core.tables`. Empty if cells are numbers.
        categories: The texts of the categories of each column, none for a real one. Empty without formats.
        left_out: The columns of the table that the model does not see.
        layer: The layer of .h5ad files that holds the counts. Empty: it is X.
        label_column: The column of the observations in .h5ad files that holds the labels. Empty: there are none.

    Raises:
        VaezooError: If the shape has another form, the fields do not fit each other, or the likelihood does not exist.
    """

    name: str
    shape: tuple[int, ...]
    likelihood: str = "bernoulli"
    kind: str = "unit"
    classes: tuple[int, ...] = ()
    vocabulary: int = 0
    columns: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    offset: tuple[float, ...] = ()
    factor: tuple[float, ...] = ()
    class_names: tuple[str, ...] = ()
    label_names: LabelNames = ()
    column_names: tuple[str, ...] = ()
    time_column: str = ""
    sample_rate: int = 0
    tokenizer: str = ""
    column_formats: tuple[str, ...] = ()
    categories: tuple[tuple[str, ...], ...] = ()
    left_out: tuple[str, ...] = ()
    layer: str = ""
    label_column: str = ""

    def __post_init__(self) -> None:
        if not 1 <= len(self.shape) <= MAX_DIMS or any(n < 1 for n in self.shape):
            raise VaezooError(
                f"shape {self.shape} of data set '{self.name}' is not the shape of an example",
                "use (channels, height, width), (channels, time) or (dimensions,)",
            )
        if self.kind == "table" and self.shape != (len(self.columns),):
            raise VaezooError(
                f"data set '{self.name}' has {len(self.columns)} columns and shape {self.shape}", "name each column"
            )
        if self.symbols and len(self.symbols) != self.vocabulary:
            raise VaezooError(
                f"data set '{self.name}' has {len(self.symbols)} symbols for {self.vocabulary} token ids",
                "give one symbol for each id, that of padding first",
            )
        if any(not 1 <= n <= MAX_CLASSES for n in self.classes):
            raise VaezooError(
                f"data set '{self.name}' has labels of {max(self.classes):,} values", f"use 1 to {MAX_CLASSES:,} values"
            )
        if self.class_names and self.classes != (len(set(self.class_names)),):
            raise VaezooError(
                f"data set '{self.name}' has {len(self.class_names)} names for labels of {self.classes or 'no'} values",
                "give each value of the label a name of its own",
            )
        if self.label_names and (len(self.classes) < 2 or self.classes != tuple(len({*n}) for n in self.label_names)):
            raise VaezooError(
                f"data set '{self.name}' has names of {len(self.label_names)} labels for labels of "
                f"{self.classes or 'no'} values",
                "give each value of each label a name of its own",
            )
        named = self.shape[: 1 if len(self.shape) < 3 else 0]  # vectors by column, series by channel
        if self.column_names and (self.kind == "table" or named != (len(set(self.column_names)),)):
            raise VaezooError(
                f"data set '{self.name}' has {len(self.column_names)} column names for shape {self.shape} of kind "
                f"{self.kind}",
                "give each column of vectors or channel of series a name of its own",
            )
        if not all(name.isprintable() for name in self._names):
            raise VaezooError(
                f"data set '{self.name}' has the name of a class or column that cannot be printed", "give another name"
            )
        if self.sample_rate and (len(self.shape) not in (2, 3) or self.shape[0] != 1):
            raise VaezooError(
                f"data set '{self.name}' has a sample rate and shape {self.shape}",
                "use (1, frequencies, frames) or (1, samples)",
            )
        try:
            check_tokenizer(self.tokenizer, self.symbols)
        except ValueError as e:
            raise VaezooError(f"data set '{self.name}': {e}", "load the texts again") from None
        if self.column_formats or self.categories:
            self._check_columns()
        if self.offset or self.factor:
            self._check_scaling()
        self.make_kind()
        self.make_likelihood()

    @property
    def _names(self) -> tuple[str, ...]:
        labels = chain(self.class_names, *self.label_names)
        return (*labels, *self.column_names, self.time_column, self.layer, self.label_column)

    def _check_columns(self) -> None:
        try:
            columns_of(self.columns, self.column_formats, self.categories)
        except ValueError as e:
            raise VaezooError(f"data set '{self.name}' has formats of columns that do not fit: {e}", "name each") from e

    def _check_scaling(self) -> None:
        if self.kind not in ("unit", "real", "table") or not len(self.offset) == len(self.factor) == self.shape[0]:
            raise VaezooError(
                f"data set '{self.name}' of kind {self.kind} and shape {self.shape} has a scaling of "
                f"{len(self.offset)} offsets and {len(self.factor)} factors",
                f"give {self.shape[0]} of each, for data of kind unit, real or table",
            )
        if not (all(map(math.isfinite, self.offset)) and all(0 < f < math.inf for f in self.factor)):
            raise VaezooError(f"data set '{self.name}' has a scaling by 0 or infinity", "give factors above 0")

    @property
    def scaling(self) -> Scaling:
        """How values become x."""
        return Scaling(self.kind, self.offset, self.factor)

    @property
    def names_by_label(self) -> LabelNames:
        """The names of the values of each label, also of a single one. Empty if they have no names."""
        return (self.class_names,) if self.class_names else self.label_names

    def with_labels(self, names: LabelNames) -> DataSpec:
        """Returns the spec with labels whose values have these names."""
        classes = tuple(map(len, names))
        one = len(names) == 1
        return replace(self, classes=classes, class_names=names[0] if one else (), label_names=() if one else names)

    @property
    def table_columns(self) -> list[Column]:
        """The columns of a table with their formats. Empty if cells are numbers."""
        return columns_of(self.columns, self.column_formats, self.categories) if self.column_formats else []

    def to_table(self, values: Array) -> dict[str, Array]:
        """Returns the cells of a table by column, as that of the training has them.

        Args:
            values: Rows `(N, columns)` in the units of the data, as `vaezoo.sample` and `reconstruct` return them.

        Raises:
            VaezooError: If the data are not a table with known cells.
        """
        if not self.column_formats:
            raise VaezooError(f"data set '{self.name}' is not a table with known cells", "use the values as they are")
        return to_cells(self.table_columns, values)

    @property
    def dims(self) -> int:
        """The number of values in one example."""
        return math.prod(self.shape)

    @property
    def features_shape(self) -> Shape:
        """The shape of one example as a network takes it."""
        return self.make_kind().features_shape(self.shape)

    @property
    def params_shape(self) -> Shape:
        """The shape of a decoder's output for one example."""
        return self.make_likelihood().params_shape(self.shape)

    def features(self, x: Tensor) -> Tensor:
        """Returns x as a network takes it, `(B, *features_shape)`, floats."""
        return self.make_kind().features(x)

    def make_kind(self) -> Kind:
        """Returns the kind of the data."""
        return make_kind(self.kind, self.vocabulary, self.columns)

    def make_tokenizer(self) -> Tokenizer:
        """Returns the map between texts and ids.

        Raises:
            UnsupportedDataError: If the data are not texts, or it is not known.
        """
        if not self.tokenizer:
            what = f"data set '{self.name}' of kind {self.kind} has no tokenizer"
            raise UnsupportedDataError(what, "give data as arrays, like those of the training")
        return Tokenizer(self.tokenizer, self.symbols)

    def make_likelihood(self) -> Likelihood:
        """Builds p(x|z), with new parameters if the family has any."""
        return make_likelihood(self.likelihood, self.kind, self.vocabulary, self.columns, self.shape)

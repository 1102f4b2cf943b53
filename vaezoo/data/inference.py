"""Data that a trained model is applied to: nothing is split off, and they are brought to the form of the model's data.

Image files are resized and converted between grey and colour. Arrays are converted between grey and colour, but keep
their size.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vaezoo.core.counts import whole_number
from vaezoo.data import arrays, npy
from vaezoo.data.base import Dataset, Split, Splits, TensorSplit, even_indices, valid_mask
from vaezoo.data.catalog import DATASETS
from vaezoo.data.columns import to_columns
from vaezoo.data.convert import TorchData, Values, to_array
from vaezoo.data.counts.annotated import is_annotated
from vaezoo.data.counts.files import read_rows
from vaezoo.data.counts.layout import check_counts
from vaezoo.data.folder_layout import find_files
from vaezoo.data.images import image_folder
from vaezoo.data.images.decode import read_images, to_channels
from vaezoo.data.images.image_headers import SUFFIXES
from vaezoo.data.images.streamed import StreamedImages
from vaezoo.data.labels import convert_labels
from vaezoo.data.load import CHANNELS, ON_BAD_IMAGE, find_path, is_text, load_data, require_image_folder, slug
from vaezoo.data.scaling import check_range
from vaezoo.data.series.files import is_series, read_series
from vaezoo.data.series.windows import Windows
from vaezoo.data.sound.folders import read_for_model, sound_splits
from vaezoo.data.spec import DataSpec
from vaezoo.data.tables import load as tables
from vaezoo.data.tables.reading import SUFFIXES as TABLES
from vaezoo.data.text.corpus import given_texts, text_examples
from vaezoo.errors import InputError, UnsupportedDataError, VaezooError, suggest

PARTS = ("train", "valid", "test", "all")
Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Examples that a trained model is applied to, in the order of their source.

    Attributes:
        spec: What they hold. The name is that of the source.
        split: The examples.
        names: What each example is called, `(N,)`: its file relative to the folder, its index in the array, or the time
            of the first step of a window.
        part: "train", "valid" or "test" of a source with parts, or "all".
        parts: The part of each example, `(N,)`. None if the source has no parts.
        train: The training split of the source. None if the source has no parts.
    """

    spec: DataSpec
    split: Split
    names: Array
    part: str = "all"
    parts: Array | None = None
    train: Split | None = None

    def __len__(self) -> int:
        return len(self.split)

    @property
    def windows(self) -> Windows | None:
        """Where the examples lie in a recording. None if they are not windows."""
        return self.split.windows if isinstance(self.split, TensorSplit) else None

    def select(self, index: Tensor) -> Examples:
        """Returns the examples at `index`, which holds indices or a mask."""
        rows = index.cpu().numpy()
        parts = None if self.parts is None else self.parts[rows]
        return replace(self, split=self.split.select(index), names=self.names[rows], parts=parts)

    def limited(self, limit: int | None) -> Examples:
        """Returns `limit` evenly spaced examples, or all if there are fewer. None means all.

        Raises:
            VaezooError: If the limit is not a whole number of at least 1.
        """
        if limit is None:
            return self
        return self.select(even_indices(whole_number("limit", limit, 1), len(self)))


def find_examples(
    spec: DataSpec,
    data: str | os.PathLike[str],
    *,
    part: str | None = None,
    data_dir: str | None = None,
    stream: bool | None = None,
    on_bad_image: str = "error",
    stride: int | None = None,
    label_pattern: str | None = None,
    column: str | None = None,
    on_long_text: str = "error",
) -> Examples:
    """Loads examples from a data set or a path, in the form of a model's data.

    Args:
        spec: The data of the model.
        data: A name from `DATASETS`, an image file, an image folder, or a .npy, .npz, .csv or .parquet file. For series
            also a folder of .npy files, or one recording as a .csv file, which is cut into windows. For texts a .txt
            file, a folder of them, or a .csv file with a column. For counts also a .h5ad file.
        part: "train", "valid", "test" or "all". The default is the held-out part of a source with parts: a data set by
            name, a folder with a test split, or a file with `x_test`. Any other source has all of its examples.
        data_dir: As in `load_data`, like the next two.
        stream: Whether images stay in their files.
        on_bad_image: What to do with unreadable images: error or skip.
        stride: Steps between the starts of two windows of a recording. By default windows do not overlap. An array file
            is one recording if there is a stride.
        label_pattern: A regular expression whose groups are the labels in the names of sound files.
        column: The column of a .csv file that holds texts.
        on_long_text: What to do with texts that are longer than those of the model: error or cut.

    Raises:
        InputError: If a file cannot be read, or holds values of another kind.
        UnsupportedDataError: If the examples cannot be brought to the shape of the model's data.
        VaezooError: If an option is unknown, or the source has no parts to choose from.
    """
    check_part(part)
    if on_bad_image not in ON_BAD_IMAGE:
        hint = suggest(on_bad_image, ON_BAD_IMAGE, "use error or skip")
        raise VaezooError(f"on_bad_image '{on_bad_image}' is not known", hint)
    skip = on_bad_image == "skip"
    is_named = isinstance(data, str) and data in DATASETS
    if stride is not None and (is_named or not (is_series(spec) or spec.sample_rate)):
        raise VaezooError(f"a stride has no effect on '{data}': only recordings are cut into windows", "leave it out")
    if label_pattern is not None and (is_named or not spec.sample_rate):
        raise VaezooError("--label-pattern is for sound files, and a model of sound", "leave out --label-pattern")
    if isinstance(data, str) and data in DATASETS:
        require_image_folder(data, stream, skip)
        return examples_of(load_named(data, spec, data_dir), part)
    path = find_path(data)
    if spec.tokenizer and is_text(path, column or ""):
        require_image_folder(str(path), stream, skip)
        return _examples(text_examples(path, spec, column, on_long_text), spec, slug(path), part)
    if column is not None:
        raise VaezooError("--column names the texts of a .csv file, for a model of texts", "leave out --column")
    splits: Splits | None
    if spec.sample_rate and path.suffix.lower() not in npy.SUFFIXES:
        sound, files = read_for_model(path, spec, stride, label_pattern)
        splits = sound_splits(to_model(sound.x, spec, f"'{path}'"), sound, files)
    else:
        splits = _load_series(path, spec, stride) if is_series(spec) else _load_counts(path, spec)
    return _examples(splits or _load_path(path, spec, stream, skip), spec, slug(path), part)


def is_texts(x: object) -> bool:
    """Tells whether a value is a list of texts."""
    return isinstance(x, list | tuple) and bool(x) and all(isinstance(text, str) for text in x)


def array_examples(
    spec: DataSpec,
    x: Values | TorchData | Sequence[str],
    y: Values | None = None,
    part: str | None = None,
    on_long_text: str = "error",
) -> Examples:
    """Returns the examples of an array in a program, in the form of a model's data.

    Args:
        spec: The data of the model.
        x: Examples as `from_arrays` takes them. The columns of a frame are found by their names, if the model knows
            them. A list of texts, for a model of texts.
        y: Their labels.
        part: "all" or None.
        on_long_text: As in `find_examples`.

    Raises:
        VaezooError: As `find_examples` and `from_arrays` do.
    """
    if is_texts(x):
        return _examples(Splits(given_texts(cast("Sequence[str]", x), spec, on_long_text)), spec, "texts", part)
    x, y, class_names = arrays.without_torch(x, y, "x")
    if spec.column_formats and hasattr(x, "to_numpy") and hasattr(x, "columns"):
        return _examples(Splits(TensorSplit(tables.new_rows(x, spec), None)), spec, "table", part)
    split = TensorSplit(to_model(to_columns(x, _column_names(spec), "x"), spec, "x"), None)
    given = None if y is None else to_array(y, "y", texts=True)
    (labels,), names = convert_labels([given], ["y"], [len(split)])
    splits = Splits(replace(split, y=labels), class_names=class_names)
    return _examples(splits.named(names) if names else splits, spec, "arrays", part)


def _column_names(spec: DataSpec) -> tuple[str, ...]:
    """Returns the names of the columns of vectors or of a table. Empty if they have none."""
    return spec.column_names or tuple(column.rpartition(":")[0] for column in spec.columns)


def _examples(splits: Splits, spec: DataSpec, name: str, part: str | None) -> Examples:
    """Returns a part of what was read from a source, or all of it if the source has no parts."""
    classes = arrays.count_classes(splits)
    own = replace(
        spec,
        name=name,
        classes=classes,
        class_names=splits.class_names if classes else (),
        label_names=splits.label_names if classes else (),
    )
    if splits.test is None and splits.valid is None:
        return _without_parts(own, splits.train, part)
    train, valid = (splits.train, splits.valid) if splits.valid is not None else _divided(splits.train)
    return examples_of(Dataset(spec=own, train=train, valid=valid, test=splits.test), part)


def examples_of(dataset: Dataset, part: str | None = None) -> Examples:
    """Returns a part of a data set, by default the held-out one. "all" has the order of the source.

    Raises:
        VaezooError: If the data set does not have the part.
    """
    check_part(part)
    part = part or dataset.held_out[0]
    n = len(dataset.train) + len(dataset.valid)
    is_valid = valid_mask(n)
    in_time = isinstance(dataset.train, TensorSplit) and dataset.train.windows is not None
    if in_time or int(is_valid.sum()) != len(dataset.valid):  # these are later windows, or a program chose them
        is_valid = torch.arange(n) >= len(dataset.train)
    places = {"train": (~is_valid).nonzero().flatten(), "valid": is_valid.nonzero().flatten()}
    splits = {"train": dataset.train, "valid": dataset.valid}
    if dataset.test is not None:
        places["test"], splits["test"] = torch.arange(len(dataset.test)), dataset.test
    if part != "all":
        if part not in splits:
            raise VaezooError(f"'{dataset.spec.name}' has no part {part}", f"use {', '.join(splits)} or all")
        split = splits[part]
        parts = np.full(len(split), part)
        return Examples(
            spec=dataset.spec,
            split=split,
            names=_names(split, places[part]),
            part=part,
            parts=parts,
            train=dataset.train,
        )
    order = torch.cat([places["train"], places["valid"]]).argsort()
    order = torch.cat([order, n + torch.arange(len(dataset.test or ()))])
    split = _joined([*splits.values()]).select(order)
    index = torch.cat([places[name] for name in splits])[order]
    parts = np.repeat([*splits], [len(s) for s in splits.values()])[order.numpy()]
    return Examples(spec=dataset.spec, split=split, names=_names(split, index), parts=parts, train=dataset.train)


def check_part(part: str | None) -> None:
    """Raises VaezooError unless a part is known."""
    if part is not None and part not in PARTS:
        raise VaezooError(f"no part named '{part}'", suggest(part, PARTS, f"use {', '.join(PARTS)}"))


def to_model(array: Array, spec: DataSpec, name: str, *, are_bits: bool | None = None) -> Tensor:
    """Converts an array of examples to the form of a model's data.

    Args:
        array: `(N, ...)`. Images may be `(N, height, width)`, and have their channels first or last.
        spec: The data of the model.
        name: What errors call it.
        are_bits: Whether integers are bits. The default is that they are if all are 0 or 1.

    Returns:
        `(N, *spec.shape)`, as a `TensorSplit` holds it, scaled as the training examples were.

    Raises:
        InputError: If the values are not data of the model's kind.
        UnsupportedDataError: If the examples have another shape.
    """
    if array.ndim == 2 and is_series(spec) and spec.shape[0] == 1:
        array = array[:, None]
    # A colour image alone would be three grey ones.
    is_single = tuple(array.shape) == spec.shape and spec.shape[0] != 1
    if array.ndim < 2 or not array.size or is_single:
        raise UnsupportedDataError(f"{name} has the shape {array.shape}", _shape_hint(array, spec))
    if tuple(array.shape[1:]) != spec.shape and len(spec.shape) == 3 and array.ndim in (3, 4):
        array = arrays.channels_first(array, name)
    grey_or_colour = array.ndim == 4 and {array.shape[1], *spec.shape[:1]} == {*CHANNELS.values()}
    if tuple(array.shape[1:]) != spec.shape and not (grey_or_colour and array.shape[2:] == spec.shape[1:]):
        raise UnsupportedDataError(
            f"{name} has examples of shape {tuple(array.shape[1:])}, but the model was made for {spec.shape}",
            _shape_hint(array, spec),
        )
    columns = _column_names(spec)
    if spec.kind == "table" and array.dtype.kind in "biuf":  # NaN is a missing cell
        x = torch.from_numpy(spec.scaling.apply(array)) if spec.offset else torch.from_numpy(array.astype(np.float32))
        if not spec.make_kind().accepts(x):
            raise _wrong_kind(spec, name)
        return x
    if spec.offset:
        values = torch.from_numpy(arrays.as_numbers(array, name, columns))
        values = to_channels(values, spec.shape[0]) if grey_or_colour else values
        x = torch.from_numpy(spec.scaling.apply(values.numpy()))
        check_range(spec, TensorSplit(x, None), f"examples of {name}", warn=True)
        return x
    if spec.kind == "unit":
        bits = arrays.are_bits([array]) if are_bits is None else are_bits
        x = arrays.convert_values(array, name, bits, columns)
        return to_channels(x, spec.shape[0]) if x.ndim == 4 else x
    if spec.kind == "count":
        check_counts(array, name)
    kind = spec.make_kind()
    is_number = array.dtype.kind in ("biu" if kind.dtype == torch.int64 else "biuf")
    if is_number:
        arrays.require_finite(array, name, columns)
    x = torch.from_numpy(np.ascontiguousarray(array)).to(kind.dtype) if is_number else torch.empty(0)
    if not is_number or not kind.accepts(x):
        raise _wrong_kind(spec, name)
    return x


def _wrong_kind(spec: DataSpec, name: str) -> InputError:
    """Returns the error for values that are not of the model's kind."""
    return InputError(f"{name} has values that are not data of kind {spec.kind}", "give data like those of the run")


def image_form(spec: DataSpec) -> tuple[tuple[int, int], int]:
    """Returns the height and width of a model's images, and their channels.

    Raises:
        UnsupportedDataError: If the model was not made for images.
    """
    if spec.offset:
        raise UnsupportedDataError(
            f"the model was trained on arrays with --scale {spec.scaling.name}, but the data are images",
            "give an array with values of the same kind",
        )
    if spec.kind != "unit" or len(spec.shape) != 3 or spec.shape[0] not in CHANNELS.values():
        raise UnsupportedDataError(
            f"the model was made for shape {spec.shape}, but the data are images", "give a .npy or a .npz file"
        )
    channels, height, width = spec.shape
    return (height, width), channels


def _shape_hint(array: Array, spec: DataSpec) -> str:
    if tuple(array.shape) == spec.shape:
        return "a single example needs an axis of its own: x[None]"
    if len(spec.shape) == 3 and array.ndim == 4:
        height, width = spec.shape[1:]
        return f"resize them to {height} x {width} (height x width), or give image files, which are resized"
    return f"give an array of shape (N, {', '.join(map(str, spec.shape))})"


def load_named(name: str, spec: DataSpec, data_dir: str | None) -> Dataset:
    """Loads a data set by name. Images get the size and the channels of the model's."""
    dataset = load_data(name, data_dir=data_dir)
    if dataset.spec.shape != spec.shape and dataset.spec.kind == "unit" and len(dataset.spec.shape) == 3:
        size, channels = image_form(spec)
        word = next(word for word, count in CHANNELS.items() if count == channels)
        dataset = load_data(name, data_dir=data_dir, image_size=size, channels=word)
    return dataset


def _load_series(path: Path, spec: DataSpec, stride: int | None) -> Splits | None:
    """Loads a folder of series, or the windows of a recording. None for other files."""
    series = read_series(path, spec, stride)
    if series is None:
        return None
    return Splits(TensorSplit(to_model(series.x, spec, f"'{path}'"), None, series.names, series.windows))


def _load_counts(path: Path, spec: DataSpec) -> Splits | None:
    """Loads the counts of a .h5ad file, or of a sparse matrix. None for other files and models."""
    if spec.kind != "count":
        if is_annotated(path):
            hint = "give data like those of the training"
            raise UnsupportedDataError(f"'{path}' holds counts, but the model was made for kind {spec.kind}", hint)
        return None
    rows = read_rows(path, spec)
    if rows is None:
        return None
    split = TensorSplit(to_model(rows.x, spec, f"'{path}'"), None)
    (labels,), names = convert_labels([rows.labels], [f"the labels of '{path}'"], [len(split)])
    return Splits(replace(split, y=labels)).named(names)


def _load_path(path: Path, spec: DataSpec, stream: bool | None, skip: bool) -> Splits:
    """Loads the image folder, the image file or the array file at a path."""
    if path.is_dir():
        size, channels = image_form(spec)
        return image_folder.load(path, size, stream, skip, channels, find=find_files)
    require_image_folder(str(path), stream, skip)
    if path.suffix.lower() in npy.SUFFIXES:
        return _load_arrays(path, spec)
    if path.suffix.lower() in SUFFIXES:
        size, channels = image_form(spec)
        return Splits(TensorSplit(read_images([path], path.parent, size, channels), None, (path.name,)))
    if path.suffix.lower() in TABLES:
        return Splits(TensorSplit(tables.new_rows(path, spec), None))
    hint = "name an image, or a .npy, .npz, .csv or .parquet file"
    raise InputError(f"'{path}' is neither a folder, an image, an array file nor a table", hint)


def _load_arrays(path: Path, spec: DataSpec) -> Splits:
    """Reads a .npy or .npz file, whose arrays are called as in `load_data`."""
    given = npy.read_arrays(path, arrays.NAMES, texts=arrays.LABELS)
    splits, labels, names = [], [], []
    # A test split may happen to be dark, so train and test decide together whether integers are bits.
    are_bits = arrays.are_bits([x for name, x in given.items() if name[:1] != "y"])
    for suffix in ("", "_train", "_test"):
        x = given.get(f"x{suffix}", given.get("") if not suffix else None)
        if x is not None:
            splits.append(to_model(x, spec, f"x{suffix} of '{path}'", are_bits=are_bits))
            labels.append(given.get(f"y{suffix}"))
            names.append(f"y{suffix} of '{path}'")
    if "x_train" not in given and "x" not in given and "" not in given:
        raise InputError(
            f"array file '{path}' has neither x nor x_train", "save the examples as numpy.savez(path, x=..., y=...)"
        )
    ys, label_names = convert_labels(labels, names, [len(x) for x in splits])
    parts = [TensorSplit(x, y) for x, y in zip(splits, ys, strict=True)]
    return Splits(parts[0], parts[1] if len(parts) == 2 else None).named(label_names)


def _without_parts(spec: DataSpec, split: Split, part: str | None) -> Examples:
    if part not in (None, "all"):
        raise VaezooError(f"'{spec.name}' has no part {part}: all of its examples are one", "leave out --part")
    return Examples(spec=spec, split=split, names=_names(split, torch.arange(len(split))))


def _divided(train: Split) -> tuple[Split, Split]:
    """Divides a training split as for a training. One of a single example has no validation examples."""
    is_valid = valid_mask(len(train))
    return train.select(~is_valid), train.select(is_valid)


def _names(split: Split, index: Tensor) -> Array:
    return np.array(split.names) if split.names is not None else index.numpy()


def _joined(splits: Sequence[Split]) -> Split:
    """Returns one split with the examples of several, which are of one source."""
    first = splits[0]
    labels = [split.y for split in splits if split.y is not None]
    y = torch.cat(labels) if len(labels) == len(splits) else None
    names = [split.names for split in splits if split.names is not None]
    files = tuple(name for part in names for name in part)
    if isinstance(first, StreamedImages):
        return replace(first, names=files, y=y)
    x = torch.cat([split.gather(slice(None)).x for split in splits])
    windows = [split.windows for split in splits if isinstance(split, TensorSplit) and split.windows is not None]
    joined = replace(windows[0], start=np.concatenate([w.start for w in windows])) if windows else None
    return TensorSplit(x, y, files if len(names) == len(splits) else None, joined)

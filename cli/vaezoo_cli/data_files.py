"""Files of samples, reconstructions and posteriors, as `vaezoo sample`, `reconstruct` and `encode` write them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count as count_from
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.plots.loaded_model import LoadedModel
from vaezoo.plots.output import PlotResult, default_output_dir, output_suffixes
from vaezoo_cli.render.values import printable, text_lines

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vaezoo.data.inference import Examples

    Values = NDArray[Any]
    Columns = Mapping[str, Values]

FOLDER = "/"  # stands for the suffix of a folder of image files
TEXT = ".txt"
TABLES = (".csv", ".parquet")
ARRAYS = (".npz", ".npy")
SOUND = ".wav"
MAX_GRID = 10_000  # images in one PNG file


def check_suffix(out: str | None) -> None:
    """Raises VaezooError if no data at all can be written under a name. Reading the model may take long."""
    if out is not None and not _is_folder(out):
        output_suffixes(out, (".png", *ARRAYS, *TABLES, TEXT, SOUND))


def check_grid(count: int) -> int:
    """Returns a number of images, if they fit in one PNG file."""
    if count > MAX_GRID:
        raise VaezooError(f"{count:,} images are too many for one grid", "give --out FOLDER/, a .npy or a .npz file")
    return count


def _is_folder(out: str) -> bool:
    return out.endswith(("/", os.sep)) or Path(out).is_dir()


def output_format(out: str | None, model: LoadedModel) -> str:
    """Returns the suffix of the file that holds data of a model, or FOLDER. Without `out` it is the usual one.

    Raises:
        VaezooError: If such data cannot be written so.
    """
    formats = formats_of(model)
    if out is None:
        return formats[0]
    suffix = FOLDER if _is_folder(out) else Path(out).suffix.lower()
    if suffix not in formats:
        hint = f"give a name that ends in {' or '.join(formats)}"
        raise VaezooError(f"data of shape {model.shape} cannot be written as '{out}'", hint)
    return suffix


def formats_of(model: LoadedModel) -> tuple[str, ...]:
    """Returns the suffixes of the files that can hold data of a model, the usual one first."""
    if model.data.get("sample_rate"):
        return (SOUND, *ARRAYS, FOLDER)
    if model.is_image:
        return (".png", *ARRAYS, FOLDER)
    if model.data["kind"] == "tokens":
        return (TEXT, *ARRAYS)
    if model.data["kind"] == "table":
        return (*TABLES, *ARRAYS)
    return (".npy", ".npz", *(TABLES if len(model.shape) == 1 else ()))


def write_data(
    model: LoadedModel, name: str, out: str | None, chunks: Iterator[Values], count: int, rows: Columns | None = None
) -> None:
    """Writes data of a model in chunks, and prints the path. Texts without a path are printed instead, one a line.

    Args:
        model: The model.
        name: File name without suffix, for the default output folder.
        out: Path of the file or folder, or None for the default.
        chunks: The data, `(N, *shape)`, images of some exports `(N, H, W, C)`.
        count: The number of rows of all chunks.
        rows: What else is known of each row, such as its name and its label.
    """
    from vaezoo.core.atomic import atomic_file
    from vaezoo.core.result_files import image_name, write_arrays, write_images
    from vaezoo.core.table_cells import to_cells
    from vaezoo.runtime.manifest import column_names, table_columns

    suffix = output_format(out, model)
    if out is None and suffix == TEXT:
        for chunk in chunks:
            for line in text_lines(chunk, model.data):
                click.echo(printable(line))
        return
    path = Path(out) if out else default_output_dir(model.folder) / f"{name}{suffix}"
    if suffix == SOUND or (suffix == FOLDER and model.data.get("sample_rate")):
        write_sounds(path, chunks, model.data["sample_rate"], rows)
    elif suffix == FOLDER:
        taken: set[str] = set()
        names = iter(rows["name"].astype(str)) if rows and "name" in rows else (f"{i:06}" for i in count_from())
        images = (image for chunk in chunks for image in model.pixels(chunk))
        write_images(path, ((image_name(name, taken), image) for name, image in zip(names, images, strict=False)))
    elif suffix == TEXT:
        with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{line}\n" for chunk in chunks for line in text_lines(chunk, model.data))
    else:
        if suffix in TABLES and model.data.get("column_formats"):
            formats = table_columns(model.data)
            fields: Iterator[Columns] = (to_cells(formats, chunk, typed=suffix != ".csv") for chunk in chunks)
            rows = {}  # the columns are those of the table alone
        else:
            columns = unique_names(column_names(model.data), rows or {}) if suffix in TABLES else []
            fields = (numbered(chunk, columns, model.data["columns"]) if columns else {"x": chunk} for chunk in chunks)
        write_arrays(path, with_rows(rows or {}, fields), count, "x")
    click.echo(path)


def as_counts(model: LoadedModel, chunks: Iterator[Values], *, draw: bool) -> Iterator[Values]:
    """Returns counts that were drawn as whole numbers, int64, and other data unchanged."""
    return (chunk.astype("int64") for chunk in chunks) if draw and model.data["kind"] == "count" else chunks


def write_sounds(path: Path, chunks: Iterator[Values], rate: int, rows: Columns | None) -> None:
    """Writes spectrograms or waveforms as sound: a file for each in a new folder, or all of them in one .wav file."""
    import numpy as np

    from vaezoo.core.atomic import write_file
    from vaezoo.core.result_files import write_folder
    from vaezoo.data.sound.sound_files import write_wav
    from vaezoo.data.sound.spectrogram import to_sound

    examples = (example[0] for chunk in chunks for example in chunk)
    sounds = (to_sound(x, rate) if x.ndim == 2 else x for x in examples)
    if path.suffix.lower() == SOUND:
        write_file(path, write_wav(np.concatenate([*sounds]), rate))
        return
    names = rows["name"].astype(str).tolist() if rows and "name" in rows else (f"{i:06}" for i in count_from())
    files = ((f"{sound_name(name)}{SOUND}", write_wav(sound, rate)) for name, sound in zip(names, sounds, strict=False))
    write_folder(path, files)


def sound_name(name: str) -> str:
    """Returns the name of the file of a window: that of its own file without suffix, and the second of its start."""
    file, at, second = name.partition("@")
    return f"{os.path.splitext(file)[0]}{at}{second}"


def write_plot(result: PlotResult, name: str, out: str | None) -> None:
    """Writes the files of a plot, and prints their paths; for the arguments see `PlotResult.save`.

    Lines of texts without a path are printed instead.
    """
    if out is None and [*result.files] == [TEXT]:
        click.echo("\n".join(map(printable, result.files[TEXT].decode().splitlines())))
        return
    for path in result.save(name, out):
        click.echo(path)


def row_columns(examples: Examples) -> dict[str, Values]:
    """Returns what is known of each example: its name, its part if there are several, and its labels as `y`."""
    rows = {"name": examples.names}
    if examples.part == "all" and examples.parts is not None:
        rows["part"] = examples.parts
    return rows if examples.split.y is None else rows | {"y": examples.split.y.numpy()}


def with_rows(rows: Columns, chunks: Iterator[Columns]) -> Iterator[Columns]:
    """Yields chunks of fields with the rows of other columns that belong to them."""
    start = 0
    for chunk in chunks:
        end = start + len(next(iter(chunk.values())))
        yield {**{name: values[start:end] for name, values in rows.items()}, **chunk}
        start = end


def unique_names(names: Sequence[str], taken: Collection[str]) -> list[str]:
    """Returns the names of columns. One that is taken already, such as `name` or `y`, gets `x_` in front."""
    unique = list(names)
    for i, name in enumerate(names):
        while unique[i] in taken or (unique[i] != name and unique[i] in names):
            unique[i] = f"x_{unique[i]}"
    return unique


def numbered(x: Values, names: Sequence[str], columns: Sequence[str]) -> Columns:
    """Returns columns by name. A category, a column `name:k` of a table, is its number."""
    from vaezoo.core.tables import parse_model_column

    parsed = map(parse_model_column, columns)
    categories = {i for i, column in enumerate(parsed) if column is not None and column.size}
    return {name: x[:, i].astype(int) if i in categories else x[:, i] for i, name in enumerate(names)}


def read_latents(path: str, mode: str) -> Values:
    """Reads latents from a file that a user or `vaezoo encode` wrote.

    Args:
        path: A .npy file, or a .npz file with an array `z`, or with the mode of q(z|x).
        mode: The name of the mode among the outputs of the encoder.

    Raises:
        InputError: If the file cannot be read.
        VaezooError: If it does not hold latents.
    """
    from vaezoo.data.npy import SUFFIXES, read_arrays

    if Path(path).suffix.lower() not in SUFFIXES:
        raise UnsupportedDataError(f"'{path}' is not a .npy or .npz file", "save the latents as one")
    arrays = read_arrays(Path(path), ("z", mode))
    return next(arrays[name] for name in ("z", mode, "") if name in arrays)

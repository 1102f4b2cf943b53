"""Reads texts, one a line, from .txt files, from folders of them, and from a column of a .csv file."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vaezoo.data.folder_layout import split_of
from vaezoo.errors import InputError, safe_repr

TEXT, CSV = ".txt", ".csv"
SUFFIXES = (TEXT, CSV)
MAX_LINE_BYTES = 1 << 20
UTF8_HINT = "save the file as UTF-8, for example with iconv -t utf-8"


class Line(NamedTuple):
    """A text and its place. As text it is the place, such as `line 7 of 'corpus.txt'`.

    Attributes:
        text: The text, without its line break.
        file: The name of its file, relative to the folder that was given.
        number: The line, counted from 1. A row of a .csv file begins there.
    """

    text: str
    file: str
    number: int

    def __str__(self) -> str:
        return f"line {self.number:,} of '{self.file}'"

    @property
    def name(self) -> str:
        """What results call the text, such as `corpus.txt:7`."""
        return f"{self.file}:{self.number}"


def is_text_folder(path: Path, images: tuple[str, ...]) -> bool:
    """Tells whether a folder holds .txt files and no images.

    Args:
        path: The folder.
        images: The suffixes of images.
    """
    found = False
    for file in path.rglob("*"):
        if file.suffix.lower() in images:
            return False
        found = found or file.suffix.lower() == TEXT
    return found


def read_lines(path: Path, column: str | None = None) -> list[Line]:
    """Reads texts in the order of the files and their lines. Lines without a text are left out.

    Args:
        path: A .txt file, a folder whose .txt files are read in the order of their names, or a .csv file with a header.
        column: The column of a .csv file that holds the texts.

    Raises:
        InputError: If there is no text, a file cannot be read, is not UTF-8 or holds NUL bytes, a line has more than
            1 MiB, or there is no such column. It names the file and the line.
    """
    if path.suffix.lower() == CSV and not path.is_dir():
        lines = [*_read_csv(path, column)]
    elif column is not None:
        raise InputError(f"'{path}' has no columns: it is not a .csv file", "leave out --column")
    else:
        lines = [line for file, name in _find_files(path) for line in _read_file(file, name)]
    if not lines:
        raise InputError(f"'{path}' holds no text", "give a file with one text a line")
    return lines


def by_split(lines: list[Line], folder: str) -> dict[str, list[Line]]:
    """Returns the lines of each split, `train` first, if files or folders are named after splits. Else all are train.

    Args:
        lines: The lines. Those of several files have the names of their files.
        folder: What errors call the folder.

    Raises:
        InputError: If some of the files are named after splits, and others are not, or the training split is missing.
    """
    split_of_top = {line.file.partition("/")[0]: "" for line in lines}
    split_of_top = {top: split_of(top) or "" for top in split_of_top}
    named = {split: top for top, split in split_of_top.items() if split}
    if len(split_of_top) == 1 or len(named) < 2:
        return {"train": lines}
    if odd := next((top for top, split in split_of_top.items() if not split), None):
        what = f"'{folder}' has '{named[min(named)]}' of the {min(named)} split, and also '{odd}'"
        raise InputError(what, f"move '{odd}' away, or name it after a split")
    if "train" not in named:
        raise InputError(f"'{folder}' has the splits {' and '.join(named)}, but no training texts", "add train.txt")
    parts: dict[str, list[Line]] = {"train": []}
    for line in lines:
        parts.setdefault(split_of_top[line.file.partition("/")[0]], []).append(line)
    return parts


def _find_files(path: Path) -> list[tuple[Path, str]]:
    """Returns the .txt files at a path with their names, relative to it."""
    if not path.is_dir():
        return [(path, path.name)]
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() == TEXT and file.is_file())
    visible = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    if not visible:
        raise InputError(f"folder '{path}' holds no .txt file", "name a folder of .txt files, or a file")
    return [(file, file.relative_to(path).as_posix()) for file in visible]


def _read_file(path: Path, name: str) -> Iterator[Line]:
    """Yields the lines of a .txt file that hold a text."""
    for number, text in _decoded(path, name):
        if text.strip():
            yield Line(text, name, number)


def _decoded(path: Path, name: str) -> Iterator[tuple[int, str]]:
    """Yields the number and the text of each line of a file. The mark at the beginning of a file is left out."""
    try:
        with path.open("rb") as file:
            number = 0
            while data := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                data = data.removeprefix(codecs.BOM_UTF8) if number == 1 else data
                yield number, _decode(data, f"line {number:,} of '{name}'")
    except OSError as e:
        raise InputError(f"cannot read '{path}': {e.strerror}", "check the path and its permissions") from e


def _decode(data: bytes, place: str) -> str:
    """Returns the text of a line without its line break."""
    if len(data) > MAX_LINE_BYTES:
        raise InputError(f"{place} has more than {MAX_LINE_BYTES:,} bytes", "give one text a line")
    if b"\0" in data:
        raise InputError(f"{place} holds a NUL byte, so it is not a text file", UTF8_HINT)
    try:
        return data.decode().rstrip("\r\n")
    except UnicodeDecodeError as e:
        raise InputError(f"{place} is not UTF-8: byte {data[e.start]:#04x} at {e.start}", UTF8_HINT) from None


def _read_csv(path: Path, column: str | None) -> Iterator[Line]:
    """Yields the texts of a column. A line break inside a text becomes a space."""
    text = "".join(f"{line}\n" for _, line in _decoded(path, path.name))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        index = _find_column(path, header, column)
        start = reader.line_num + 1
        for row in reader:
            if row and len(row) != len(header):
                what = f"line {start:,} of '{path.name}' has {len(row)} columns, and the header {len(header)}"
                raise InputError(what, "give each row all columns")
            if row and row[index].strip():
                yield Line(" ".join(row[index].splitlines()), path.name, start)
            start = reader.line_num + 1
    except csv.Error as e:
        raise InputError(f"line {reader.line_num:,} of '{path.name}' is not CSV: {e}", "repair the line") from e


def _find_column(path: Path, header: list[str], column: str | None) -> int:
    """Returns the index of a column."""
    names = ", ".join(safe_repr(name) for name in header)
    if column is None:
        raise InputError(f"'{path}' is a table, and no column is named", f"name the texts: --column, one of {names}")
    if header.count(column) != 1:
        count = "no" if column not in header else f"{header.count(column)} columns named"
        what = f"{count} column '{safe_repr(column)}'" if count == "no" else f"{count} '{safe_repr(column)}'"
        raise InputError(f"'{path}' has {what}", f"give --column one of {names}" if names else "give a header")
    return header.index(column)

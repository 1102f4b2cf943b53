"""Strict JSON: finite numbers, unique keys, bounded size, atomic writes."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from vaezoo.core.atomic import read_file, write_file
from vaezoo.errors import InputError, format_error, safe_repr

MAX_JSON_BYTES = 1 << 20  # vaezoo's own files have a few kilobytes


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Writes a JSON file whole; see `write_file`."""
    write_file(path, json_bytes(value))


def json_bytes(value: Mapping[str, object]) -> bytes:
    """Returns an object as JSON that people can read."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def read_json(path: Path) -> dict[str, object]:
    """Reads a JSON file that holds an object. Numbers must be finite and names stand once.

    Raises:
        InputError: If it cannot be read, is too large, is damaged or holds something else.
    """
    data = read_file(path, MAX_JSON_BYTES)
    with _as_input_error(path):
        return _parse_object(data)


def read_json_lines(path: Path, most: int) -> list[dict[str, object]]:
    """Reads a file with a JSON object on each line, whose last line may still be in the making.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        InputError: As in `read_json`.
    """
    data = read_file(path, most)
    with _as_input_error(path):
        return [_parse_object(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]


@contextlib.contextmanager
def _as_input_error(path: Path) -> Iterator[None]:
    """Turns what goes wrong with a file's JSON into an InputError that names it."""
    try:
        yield
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path} is damaged: {format_error(e)}", "restore the file, or make the folder anew") from e


def _parse_object(data: bytes) -> dict[str, object]:
    """Reads one JSON object."""
    value = json.loads(data, parse_constant=_parse_finite, parse_float=_parse_finite, object_pairs_hook=_unique_keys)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _parse_finite(text: str) -> float:
    """Reads a number of a JSON file; Python's own would take NaN, and 1e999 for infinity."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{safe_repr(text)} is no finite number")
    return number


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Makes an object of a JSON file; of two values of one name, readers would differ in which they take."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return made

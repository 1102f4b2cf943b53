"""Strict JSON: finite numbers, unique keys, bounded size, atomic writes."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from vaezoo.core.atomic import read_file, write_file
from vaezoo.errors import InputError, format_error, safe_repr

MAX_JSON_BYTES = 1 << 23  # vaezoo's own files have a few kilobytes, with the scaling of 100,000 columns 6 MB


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Writes a JSON file atomically (see `write_file`)."""
    write_file(path, json_bytes(value))


def json_bytes(value: Mapping[str, object]) -> bytes:
    """Returns an object as indented JSON.

    Raises:
        ValueError: If a number is infinite or NaN.
    """
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def read_json(path: Path) -> dict[str, object]:
    """Reads a JSON file that holds one object, with finite numbers and unique keys.

    Raises:
        InputError: If it cannot be read, is too large, is damaged or is not an object.
    """
    data = read_file(path, MAX_JSON_BYTES)
    with _as_input_error(path):
        return _parse_object(data)


def check_schema(path: Path, record: Mapping[str, object], current: int) -> None:
    """Checks the schema of a file's record.

    Raises:
        InputError: If another version of vaezoo wrote the file.
    """
    schema = record.get("schema")
    if type(schema) is int and 0 < schema < current:
        message = f"{path} was written by an earlier version of vaezoo: schema {schema}, this version reads {current}"
        raise InputError(message, "train again, or use that version")
    if type(schema) is not int or schema != current:
        raise InputError(f"{path} has schema {safe_repr(schema)}; this version reads {current}", "update vaezoo")


def read_json_lines(path: Path, max_bytes: int) -> list[dict[str, object]]:
    """Reads a file of at most `max_bytes` bytes with a JSON object on each line.

    A last line without a newline is left out: another process may still be writing it.

    Raises:
        InputError: As in `read_json`.
    """
    data = read_file(path, max_bytes)
    with _as_input_error(path):
        return [_parse_object(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]


@contextlib.contextmanager
def _as_input_error(path: Path) -> Iterator[None]:
    """Turns an error of the JSON parser into an InputError that names the file."""
    try:
        yield
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path} is damaged: {format_error(e)}", "restore the file, or create the folder again") from e


def _parse_object(data: bytes) -> dict[str, object]:
    value = json.loads(data, parse_constant=_parse_finite, parse_float=_parse_finite, object_pairs_hook=_unique_keys)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _parse_finite(text: str) -> float:
    """Parses a number. Python's parser accepts NaN, and reads 1e999 as infinity."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{safe_repr(text)} is not a finite number")
    return number


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Makes a dictionary of an object's pairs. Parsers differ in which value of a repeated key they return."""
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key is repeated in one object")
    return result

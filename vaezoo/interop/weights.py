"""Reads foreign safetensors files. Names, shapes and types come from the header, before any memory is allocated."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from vaezoo.core.atomic import open_regular, read_file
from vaezoo.errors import InputError, format_error, safe_repr, with_hint
from vaezoo.training.checkpoint import MAX_HEADER_BYTES, not_finite, unpack

ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}  # the types that are read; all become float32
COUNTER = ".num_batches_tracked"  # of a batch normalisation: a whole number, which stays I64
METADATA = "__metadata__"  # texts that the header may hold beside the tensors
RESTORE = "download or save the file again"

Shapes = Mapping[str, tuple[int, ...]]


class Weights(NamedTuple):
    """The tensors of a file, float32 but for counters, and the SHA-256 of the file."""

    tensors: dict[str, Tensor]
    sha256: str


def read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes of the tensors in a file, from its header.

    Raises:
        InputError: If the file cannot be read, is damaged, or holds tensors of another type.
    """
    return {name: shape for name, (_, shape) in _read_header(file).items()}


def read_weights(file: Path) -> Weights:
    """Reads all tensors of a file as float32. Counters of batch normalisations stay whole numbers.

    Raises:
        InputError: As `read_shapes` does. Also if a value is not finite.
    """
    header = _read_header(file)
    data_bytes = sum(ITEM_BYTES.get(dtype, 8) * math.prod(shape) for dtype, shape in header.values())
    with with_hint(RESTORE):
        data = read_file(file, data_bytes + MAX_HEADER_BYTES)
        tensors = {name: t.float() if t.is_floating_point() else t for name, t in unpack(data, file).items()}
    if bad := not_finite(tensors):
        raise InputError(f"{file} holds values that are not finite, in {safe_repr(bad)}", RESTORE)
    return Weights(tensors, hashlib.sha256(data).hexdigest())


def _unique_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Makes a dictionary of an object's pairs. safetensors would use the last one of a repeated name."""
    if len(names := dict(pairs)) < len(pairs):
        raise ValueError("a name appears twice")
    return names


def _read_header(file: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Returns the type and shape of each tensor in a file."""
    try:
        with open_regular(file) as f:
            length = int.from_bytes(f.read(8), "little")
            if length > MAX_HEADER_BYTES:  # ten million names would take gigabytes
                raise ValueError("its header is too large")
            header = json.loads(f.read(length), object_pairs_hook=_unique_names)
        entries = {name: entry for name, entry in header.items() if name != METADATA}
        found = {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in entries.items()}
        if not all(type(n) is int and n >= 0 for _, shape in found.values() for n in shape):
            raise ValueError("a shape")
    except OSError as e:
        raise InputError(f"cannot read {file}: {e.strerror}", "check the path") from e
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise InputError(f"{file} is damaged: {format_error(e)}", RESTORE) from e
    for name, (dtype, _) in found.items():
        if dtype not in ITEM_BYTES and not (dtype == "I64" and name.endswith(COUNTER)):
            what = f"{safe_repr(name)} in {file} is of type {safe_repr(dtype)}"
            raise InputError(what, f"save the weights as one of {', '.join(ITEM_BYTES)}")
    return found

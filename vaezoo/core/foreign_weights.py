"""Files of PyTorch's weights that users provide, such as those of Inception and LPIPS."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import torch

from vaezoo.core.atomic import read_file
from vaezoo.errors import InputError, format_error

SHOWN_DIGITS = 8  # of a SHA-256; as many stand in the names of torchvision's files


def read_weights(file: Path, sha256: str, max_bytes: int, hint: str) -> Mapping[str, object]:
    """Reads a file with weights of PyTorch, if its SHA-256 begins with the given digits.

    The hash is checked before the file is parsed. That excludes other files, but no deliberate forgery. So the parser
    is one that creates only tensors.

    Args:
        file: The file.
        sha256: How its hash begins.
        max_bytes: The largest size that is read.
        hint: What a user can do if it is another file.

    Raises:
        InputError: If it cannot be read or parsed, or is another file.
    """
    data = read_file(file, max_bytes)
    digest = hashlib.sha256(data).hexdigest()
    if not digest.startswith(sha256):
        what = f"{file} is damaged or another file: its SHA-256 begins with {digest[:SHOWN_DIGITS]}, not {sha256}"
        raise InputError(what, hint)
    try:
        weights = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as e:  # torch may raise anything for a forged file
        raise InputError(f"{file} holds no weights: {format_error(e)}", "give a file of a state_dict") from e
    if not isinstance(weights, Mapping):
        raise InputError(f"{file} holds a {type(weights).__name__}", "give a file of a state_dict")
    return weights

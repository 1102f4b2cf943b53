"""The file of the packaged digit classifier, whose features images are compared in."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from importlib import resources
from pathlib import Path

from vaezoo.core.atomic import read_file
from vaezoo.errors import InputError

NAME = "mnist-lenet64"
FILE = f"{NAME}.safetensors"  # made by scripts/make_features.py
SHA256 = "b7b6fa3762ae1b1410c631a0adee90ef267371faab62d809e02edde5d1e6bf62"
MAX_BYTES = 300_000


def classifier_file() -> AbstractContextManager[Path]:
    """Returns a context manager that gives the path of the packaged file."""
    return resources.as_file(resources.files("vaezoo") / "evaluation" / "files" / FILE)


def read_classifier(file: Path) -> bytes:
    """Returns the content of the packaged file. Raises InputError if it is damaged."""
    data = read_file(file, MAX_BYTES)
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise InputError(f"{file} is damaged: its SHA-256 differs from that of this version", "reinstall vaezoo")
    return data

"""Reconstructions of image files in their own size, by an export whose height and width are free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vaezoo.core.image_grids import as_bytes
from vaezoo.data.images.decode import read_images
from vaezoo.data.images.image_headers import SUFFIXES
from vaezoo.data.load import find_path
from vaezoo.errors import InputError, UnsupportedDataError, VaezooError
from vaezoo.examples import Model
from vaezoo.runtime import OnnxVAE
from vaezoo.runtime.tiling import OVERLAP, Pad

Pixels = npt.NDArray[np.uint8]


def find_images(path: str) -> list[tuple[str, Path]]:
    """Returns an image file, or those of a folder and of the folders in it, each with its name there, sorted by name.

    Raises:
        InputError: If there is none.
    """
    root = find_path(path)
    files = sorted(file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES) if root.is_dir() else [root]
    if not files or any(file.suffix.lower() not in SUFFIXES for file in files):
        raise InputError(f"'{path}' is not an image, and holds none", f"give files that end in {', '.join(SUFFIXES)}")
    return [(file.relative_to(root).as_posix() if root.is_dir() else file.name, file) for file in files]


def reconstruct_files(
    model: Model,
    files: Sequence[tuple[str, Path]],
    *,
    tile: int | None = None,
    overlap: int = OVERLAP,
    pad: Pad | None = None,
) -> Iterator[tuple[str, Pixels]]:
    """Yields the name of each file, and its reconstruction, bytes `(H, W, C)`.

    Args:
        model: An export whose height and width are free.
        files: Names and image files, of any size.
        tile: As in `vaezoo.runtime.OnnxVAE`, like the next two.
        overlap: Pixels that two tiles share.
        pad: What is added to images whose sides the model does not divide.

    Raises:
        UnsupportedDataError: If the model is another one.
        InputError: If a file cannot be read.
        VaezooError: As `OnnxVAE.reconstruct` does.
    """
    model = require_free_size(model)
    for name, file in files:
        pixels = read_images([file], file.parent, None, model.data["shape"][0]).numpy()
        x = pixels.transpose(0, 2, 3, 1) if model.dtype == np.uint8 else pixels.astype(np.float32) / 255
        try:
            images = model.reconstruct(x, tile=tile, overlap=overlap, pad=pad)
        except VaezooError as e:
            raise type(e)(f"'{name}' cannot be reconstructed: {e.message}", e.hint) from e
        yield name, as_bytes(images)[0]


def require_free_size(model: Model) -> OnnxVAE:
    """Returns an export that takes images of any height and width. Raises UnsupportedDataError for other models."""
    if not isinstance(model, OnnxVAE):
        raise UnsupportedDataError("a run takes images of the size of its data only", "export it: vaezoo export --onnx")
    sizes = model.shape[:2] if model.dtype == np.uint8 else model.shape[1:]
    if len(model.shape) != 3 or any(isinstance(n, int) for n in sizes) or model.data["kind"] != "unit":
        raise UnsupportedDataError(
            f"{model.source.folder} takes images of one size, {model.data['shape']}", "leave out --keep-size"
        )
    return model

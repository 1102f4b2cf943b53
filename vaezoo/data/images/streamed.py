"""Images that stay in their files until a batch asks for them: for folders that are larger than memory."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaezoo.data.base import Batch, TensorSplit, even_indices, to_floats
from vaezoo.data.images.decode import Pixels, try_decode
from vaezoo.data.images.image_headers import BadImagesError, Shape
from vaezoo.data.thread_map import thread_map

FILES_PER_TASK = 4  # files that a thread takes: a batch is small, and all threads are to have some


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class StreamedImages:
    """A part of a data set whose images are decoded when they are asked for, each time anew.

    Attributes:
        names: The files, relative to the root; as texts, of which a million needs a fifth of the memory of paths.
        root: The folder they lie in.
        shape: `(channels, height, width)` that each has: what `scan` found.
        size: Height and width that they are brought to, as in `read_images`.
        y: `(N,)`, int64, or None.
    """

    names: tuple[str, ...]
    root: Path
    shape: Shape
    size: int | None
    y: Tensor | None

    def __repr__(self) -> str:
        return f"StreamedImages({len(self)} x {self.shape} of '{self.root}')"

    def __len__(self) -> int:
        return len(self.names)

    @property
    def nbytes(self) -> int:
        """How many bytes all images have when decoded."""
        return len(self) * math.prod(self.shape)

    def gather(self, index: Tensor | slice) -> Batch:
        """Decodes the images at `index`: uint8, on the CPU, the same as `read_images` gives.

        Raises:
            BadImagesError: If files cannot be read or have changed their size.
        """
        numbers = self._numbers(index)
        x = self._decode([self.root / self.names[i] for i in numbers.tolist()])
        return Batch(x, None if self.y is None else self.y[numbers])

    def batch(self, index: Tensor | slice) -> Batch:
        """Decodes the images at `index` and brings them to float in [0, 1]; raises as `raw` does."""
        x, y = self.gather(index)
        return Batch(to_floats(x), y)

    def select(self, index: Tensor) -> StreamedImages:
        """Returns the part that has the images at `index`, numbers or a mask; none is decoded."""
        numbers = self._numbers(index)
        names = tuple(self.names[i] for i in numbers.tolist())
        return replace(self, names=names, y=None if self.y is None else self.y[numbers])

    def subsample(self, count: int) -> TensorSplit:
        """Decodes `count` images, or all if there are fewer, evenly spaced; raises as `raw` does."""
        return TensorSplit(*self.gather(even_indices(count, len(self))))

    def _numbers(self, index: Tensor | slice) -> Tensor:
        """Returns any index as numbers in 0..N-1, on the CPU."""
        return torch.arange(len(self))[index.cpu() if isinstance(index, Tensor) else index]

    def _decode(self, paths: Sequence[Path]) -> Tensor:
        x = np.empty((len(paths), *self.shape), dtype=np.uint8)

        def fill(place: int) -> str | None:
            pixels = try_decode(paths[place], self.size)
            reason = pixels if isinstance(pixels, str) else self._changed(pixels)
            if reason is None:
                x[place] = pixels  # a grey image is copied to each of three channels
            return reason

        with closing(thread_map(fill, range(len(paths)), FILES_PER_TASK)) as reasons:
            bad = [(path, reason) for path, reason in zip(paths, reasons, strict=True) if reason is not None]
        if bad:
            raise BadImagesError(
                bad, len(paths), self.root, "restore these files, or load the data set again without them"
            )
        return torch.from_numpy(x)

    def _changed(self, pixels: Pixels) -> str | None:
        """Returns how an image differs from what its header said when the data set was loaded."""
        channels, height, width = pixels.shape
        if (height, width) != self.shape[1:]:
            return f"{width} x {height} pixels now, {self.shape[2]} x {self.shape[1]} before"
        return "in colour now, grey before" if channels > self.shape[0] else None


def streamed(paths: Sequence[Path], root: Path, shape: Shape, size: int | None, y: Tensor | None) -> StreamedImages:
    """Makes a part of files under `root`; see StreamedImages."""
    # What Pillow warns of was kept back by `scan`, in one thread. Batches are decoded in several, where Python's only
    # list of filters cannot be changed and restored; so this stays, behind all filters that anyone else has set.
    warnings.filterwarnings("ignore", module=r"PIL\.", append=True)
    return StreamedImages(tuple(path.relative_to(root).as_posix() for path in paths), root, shape, size, y)

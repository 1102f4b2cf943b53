"""Pictures that stay in their files until a batch asks for them: for folders that are larger than memory."""

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

from vaezoo.data.base import Batch, Split, spaced, to_floats
from vaezoo.data.headers import BadPicturesError, Shape
from vaezoo.data.pictures import Pixels, try_read
from vaezoo.data.threads import in_threads

AT_ONCE = 4  # files that a thread takes: a batch is small, and all threads are to have some


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class StreamedPictures:
    """A part of a data set whose pictures are decoded when they are asked for, each time anew.

    Attributes:
        names: The files, relative to the root; as texts, of which a million needs a fifth of the memory of paths.
        root: The folder they lie in.
        shape: `(channels, height, width)` that each has: what `scan` found.
        size: Height and width that they are brought to, as in `read_pictures`.
        y: `(N,)`, int64, or None.
    """

    names: tuple[str, ...]
    root: Path
    shape: Shape
    size: int | None
    y: Tensor | None

    def __repr__(self) -> str:
        return f"StreamedPictures({len(self)} x {self.shape} of '{self.root}')"

    def __len__(self) -> int:
        return len(self.names)

    @property
    def nbytes(self) -> int:
        """How many bytes all pictures have when decoded."""
        return len(self) * math.prod(self.shape)

    def raw(self, index: Tensor | slice) -> Batch:
        """Decodes the pictures at `index`: uint8, on the CPU, the same as `read_pictures` gives.

        Raises:
            BadPicturesError: If files cannot be read or have changed their size.
        """
        numbers = self._numbers(index)
        x = self._decode([self.root / self.names[i] for i in numbers.tolist()])
        return Batch(x, None if self.y is None else self.y[numbers])

    def batch(self, index: Tensor | slice) -> Batch:
        """Decodes the pictures at `index` and brings them to float in [0, 1]; raises as `raw` does."""
        x, y = self.raw(index)
        return Batch(to_floats(x), y)

    def select(self, index: Tensor) -> StreamedPictures:
        """Returns the part that has the pictures at `index`, numbers or a mask; none is decoded."""
        numbers = self._numbers(index)
        names = tuple(self.names[i] for i in numbers.tolist())
        return replace(self, names=names, y=None if self.y is None else self.y[numbers])

    def spread(self, count: int) -> Split:
        """Decodes `count` pictures, or all if there are fewer, evenly spaced; raises as `raw` does."""
        return Split(*self.raw(spaced(count, len(self))))

    def _numbers(self, index: Tensor | slice) -> Tensor:
        """Returns any index as numbers in 0..N-1, on the CPU."""
        return torch.arange(len(self))[index.cpu() if isinstance(index, Tensor) else index]

    def _decode(self, paths: Sequence[Path]) -> Tensor:
        x = np.empty((len(paths), *self.shape), dtype=np.uint8)

        def fill(place: int) -> str | None:
            pixels = try_read(paths[place], self.size)
            reason = pixels if isinstance(pixels, str) else self._changed(pixels)
            if reason is None:
                x[place] = pixels  # a grey picture is copied to each of three channels
            return reason

        with closing(in_threads(fill, range(len(paths)), AT_ONCE)) as reasons:
            bad = [(path, reason) for path, reason in zip(paths, reasons, strict=True) if reason is not None]
        if bad:
            raise BadPicturesError(
                bad, len(paths), self.root, "restore these files, or load the data set again without them"
            )
        return torch.from_numpy(x)

    def _changed(self, pixels: Pixels) -> str | None:
        """Returns how a picture differs from what its header said when the data set was loaded."""
        channels, height, width = pixels.shape
        if (height, width) != self.shape[1:]:
            return f"{width} x {height} pixels now, {self.shape[2]} x {self.shape[1]} before"
        return "in colour now, grey before" if channels > self.shape[0] else None


def streamed(paths: Sequence[Path], root: Path, shape: Shape, size: int | None, y: Tensor | None) -> StreamedPictures:
    """Makes a part of files under `root`; see StreamedPictures."""
    # What Pillow warns of was kept back by `scan`, in one thread. Batches are decoded in several, where Python's only
    # list of filters cannot be changed and restored; so this stays, behind all filters that anyone else has set.
    warnings.filterwarnings("ignore", module=r"PIL\.", append=True)
    return StreamedPictures(tuple(path.relative_to(root).as_posix() for path in paths), root, shape, size, y)

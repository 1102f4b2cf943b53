"""Images that stay in their files until a batch needs them, for folders that are larger than memory."""

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

from vaezoo.data.base import Batch, ImageSize, TensorSplit, even_indices, to_floats
from vaezoo.data.images.decode import Pixels, try_decode
from vaezoo.data.images.image_headers import BadImagesError, Shape
from vaezoo.data.thread_map import thread_map

FILES_PER_TASK = 4  # small, so that the files of one batch keep all threads busy


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class StreamedImages:
    """A split whose images are decoded each time a batch needs them.

    Attributes:
        names: The files relative to the root, as strings: a million of them need a fifth of the memory of paths.
        root: The folder that contains them.
        shape: `(channels, height, width)` of every image, as `common_shape` found it.
        image_size: Height and width that they are resized to, as in `read_images`.
        y: `(N,)`, int64, or None.
        channels: What they are converted to, as in `read_images`.
    """

    names: tuple[str, ...]
    root: Path
    shape: Shape
    image_size: ImageSize | None
    y: Tensor | None
    channels: int | None = None

    def __repr__(self) -> str:
        return f"StreamedImages({len(self)} x {self.shape} of '{self.root}')"

    def __len__(self) -> int:
        return len(self.names)

    @property
    def nbytes(self) -> int:
        """The size of all decoded images in bytes."""
        return len(self) * math.prod(self.shape)

    def gather(self, index: Tensor | slice) -> Batch:
        """Decodes the images at `index`: uint8, on the CPU, with the same pixels as `read_images` returns.

        Raises:
            BadImagesError: If files cannot be read or have changed their size.
        """
        indices = self._to_indices(index)
        x = self._decode([self.root / self.names[i] for i in indices.tolist()])
        return Batch(x, None if self.y is None else self.y[indices])

    def batch(self, index: Tensor | slice) -> Batch:
        """Decodes the images at `index` to floats in [0, 1]. Raises the errors of `gather`."""
        x, y = self.gather(index)
        return Batch(to_floats(x), y)

    def select(self, index: Tensor) -> StreamedImages:
        """Returns a split with the images at `index`, which holds indices or a mask. Decodes nothing."""
        indices = self._to_indices(index)
        names = tuple(self.names[i] for i in indices.tolist())
        return replace(self, names=names, y=None if self.y is None else self.y[indices])

    def with_labels(self, y: Tensor | None) -> StreamedImages:
        """Returns a split of the same images with other labels."""
        return replace(self, y=y)

    def subsample(self, count: int) -> TensorSplit:
        """Decodes `count` evenly spaced images, or all if there are fewer. Raises the errors of `gather`."""
        index = even_indices(count, len(self))
        return TensorSplit(*self.gather(index), tuple(self.names[i] for i in index.tolist()))

    def _to_indices(self, index: Tensor | slice) -> Tensor:
        """Returns any index as indices in 0..N-1, on the CPU."""
        return torch.arange(len(self))[index.cpu() if isinstance(index, Tensor) else index]

    def _decode(self, paths: Sequence[Path]) -> Tensor:
        x = np.empty((len(paths), *self.shape), dtype=np.uint8)

        def decode_into_x(i: int) -> str | None:
            pixels = try_decode(paths[i], self.image_size, self.channels)
            reason = pixels if isinstance(pixels, str) else self._describe_change(pixels)
            if reason is None:
                x[i] = pixels  # a grey image is broadcast to three channels
            return reason

        with closing(thread_map(decode_into_x, range(len(paths)), FILES_PER_TASK)) as reasons:
            bad = [(path, reason) for path, reason in zip(paths, reasons, strict=True) if reason is not None]
        if bad:
            raise BadImagesError(
                bad, len(paths), self.root, "restore these files, or load the data set again without them"
            )
        return torch.from_numpy(x)

    def _describe_change(self, pixels: Pixels) -> str | None:
        """Returns how an image differs from its header at loading time, or None if it does not."""
        channels, height, width = pixels.shape
        if (height, width) != self.shape[1:]:
            return f"{width} x {height} pixels now, {self.shape[2]} x {self.shape[1]} before"
        return "in colour now, grey before" if channels > self.shape[0] else None


def stream_images(
    paths: Sequence[Path],
    root: Path,
    shape: Shape,
    image_size: ImageSize | None,
    y: Tensor | None,
    channels: int | None = None,
) -> StreamedImages:
    """Makes a split of the files `paths` under `root`. See StreamedImages."""
    # `common_shape` suppressed Pillow's warnings in one thread. Several threads decode batches, and Python has only one
    # list of warning filters, which threads cannot change and restore. So this filter stays, behind all other filters.
    warnings.filterwarnings("ignore", module=r"PIL\.", append=True)
    names = tuple(path.relative_to(root).as_posix() for path in paths)
    return StreamedImages(names, root, shape, image_size, y, channels)

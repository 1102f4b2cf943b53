"""Random changes of a batch of images, on its device: flips, shifts and crops."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def augment(x: Tensor, changes: Sequence[tuple[str, int]]) -> Tensor:
    """Changes each image of a batch at random, by the default generator of its device.

    The shapes are static and nothing waits for the device, so a step with it can be compiled and captured.

    Args:
        x: Images `(B, C, H, W)`, floats.
        changes: In their order, a name with a number of pixels: hflip and vflip mirror every second image on average.
            shift moves it by up to so many pixels along both axes, and repeats the pixels of the edge. crop pads so
            many zeros around it and cuts out a window of its size.
    """
    for name, pixels in changes:
        if name == "hflip":
            x = _flip(x, 3)
        elif name == "vflip":
            x = _flip(x, 2)
        else:
            for axis in (2, 3):
                x = _shift(x, axis, pixels, zeros=name == "crop")
    return x


def _flip(x: Tensor, axis: int) -> Tensor:
    """Mirrors each image along an axis with probability 1/2."""
    return torch.where(torch.rand((len(x), 1, 1, 1), device=x.device) < 0.5, x.flip(axis), x)


def _shift(x: Tensor, axis: int, pixels: int, *, zeros: bool) -> Tensor:
    """Moves each image along an axis by a whole number of pixels, -pixels to pixels. Outside is its edge, or zeros."""
    size, shape = x.shape[axis], [len(x), 1, 1, 1]
    distance = torch.randint(-pixels, pixels + 1, shape, device=x.device)
    shape[0], shape[axis] = 1, size
    source = torch.arange(size, device=x.device).view(shape) + distance
    inside = source.clamp(0, size - 1)
    moved = x.gather(axis, inside.expand_as(x))
    return torch.where(source == inside, moved, 0.0) if zeros else moved

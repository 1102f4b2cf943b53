"""What models share whose latents are a small image, and whose images may have any height and width."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vaezoo.data.spec import DataSpec
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.likelihoods.base import Shape


def check_images(data: DataSpec, factor: int, model: str) -> None:
    """Raises UnsupportedDataError unless data are images whose sides are multiples of a factor.

    Args:
        data: The data.
        factor: How many times larger the sides of images are than those of their latents.
        model: The name of the model, for the error.
    """
    if len(data.shape) != 3 or data.kind not in ("unit", "real"):
        raise UnsupportedDataError(
            f"data set '{data.name}' has shape {data.shape} and kind {data.kind}, but {model} takes images",
            "use mlp-vae",
        )
    check_sides(data.shape[1:], factor)


def check_sides(sides: Sequence[int], factor: int) -> None:
    """Raises UnsupportedDataError unless the sides of images are multiples of a factor."""
    if any(side % factor for side in sides):
        raise UnsupportedDataError(
            f"images of {sides[0]}x{sides[1]} pixels have a side that is not a multiple of {factor}",
            "give fewer channels or blocks, so that sides are halved less often, or resize the images: --image-size",
        )


def resolutions_that_fit(sides: Sequence[int], most: int) -> int:
    """Returns how many resolutions images can have, at most `most`: each after the first halves their sides."""
    count = 1
    while count < most and all(side % 2**count == 0 for side in sides):
        count += 1
    return count


def free_shapes(shape: Shape, factor: int) -> tuple[Shape, Shape]:
    """Returns the shape of images and another one, so that an export has free sizes; see `VAE.shapes`.

    The two have only the factor in common.
    """
    channels, height, width = shape
    other = width - factor if width > factor else width + 2 * factor
    return shape, (channels, height + factor, other)


def check_latent_scaling(scaling_factor: float, shift_factor: float) -> None:
    """Raises VaezooError unless latents can be scaled: (z - shift_factor) * scaling_factor."""
    if not (0 < scaling_factor < math.inf):
        raise VaezooError(f"option 'scaling_factor' is {scaling_factor:g}", "give a number above 0")
    if not math.isfinite(shift_factor):
        raise VaezooError(f"option 'shift_factor' is {shift_factor:g}", "give a finite number")

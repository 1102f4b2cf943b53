"""The latent space: latents of examples, and images along lines and planes between them.

The code of an example is the mode of q(z|x). The image of a code is the mean of p(x|z). Nothing here is random.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vaezoo.core.drawing import Drawing
from vaezoo.data.base import Batch, Split
from vaezoo.decoding import decode_latents
from vaezoo.errors import VaezooError
from vaezoo.evaluation.batches import iter_batches, map_batches
from vaezoo.evaluation.metrics import check_finite
from vaezoo.vae import VAE, blank_batch, device_of, eval_mode

QUANTILES = (0.05, 0.95)


def encode(vae: VAE, batch: Batch) -> Tensor:
    """Returns the latents of examples, `(N, *latent_shape)`, on the CPU.

    Args:
        vae: The model, on any device.
        batch: The examples.
    """
    with eval_mode(vae):
        return map_batches(lambda part: vae.infer(part).mode(), batch, device_of(vae))


def encode_split(vae: VAE, split: Split) -> npt.NDArray[np.float64]:
    """Returns the latents of all examples of a split as vectors, `(N, latents)`, for scikit-learn.

    Raises:
        DivergedError: If the model's values are not finite.
    """
    codes = torch.cat([encode(vae, batch) for batch in iter_batches(split, "none", 0, device_of(vae))])
    check_finite(codes)
    return codes.flatten(1).double().numpy()


def decode(
    vae: VAE, z: Tensor, y: Tensor | None = None, *, greedy: bool = True, drawing: Drawing | None = None
) -> Tensor:
    """Returns the data of latents, the means of p(x|z).

    Args:
        vae: The model, on any device.
        z: Latents `(..., *latent_shape)`.
        y: Their labels, `(...)` or `(..., factors)`, for a conditional model.
        greedy: Whether an autoregressive decoder takes the most probable ids. If not, it draws them.
        drawing: How it chooses ids, instead of `greedy`.

    Returns:
        Data `(..., *shape)`, on the CPU.
    """
    leading_shape = z.shape[: z.ndim - len(vae.latent_shape)]
    y = None if y is None else y.reshape(-1, *y.shape[len(leading_shape) :])
    rows = Batch(z.reshape(-1, *vae.latent_shape), y)
    with eval_mode(vae):
        x = map_batches(
            lambda part: decode_latents(vae, part.x, part, greedy=greedy, drawing=drawing), rows, device_of(vae)
        )
    return x.view(*leading_shape, *x.shape[1:])  # a decoder may draw at another resolution than that of the data


def traversal(vae: VAE, example: Batch, dims: Sequence[int], values: Tensor) -> Tensor:
    """Varies one latent dimension of an example's latents at a time.

    Args:
        vae: The model.
        example: A batch of one example.
        dims: Latent dimensions, as indices of the flattened latent.
        values: The values that each dimension is set to, `(V,)`.

    Returns:
        Images `(len(dims), V, *shape)` in [0, 1].

    Raises:
        VaezooError: If a dimension does not exist, or there are no lines between the latents.
    """
    require_lines(vae)
    code = require_real(encode(vae, example)).flatten()
    if unknown := [d for d in dims if not 0 <= d < len(code)]:
        raise VaezooError(f"there is no latent dimension {unknown[0]}", f"give numbers from 0 to {len(code) - 1}")
    z = code.repeat(len(dims), len(values), 1)
    for row, dim in enumerate(dims):
        z[row, :, dim] = values
    return decode(vae, z.view(len(dims), len(values), *vae.latent_shape), spread(example.y, len(dims), len(values)))


def require_lines(vae: VAE) -> None:
    """Raises VaezooError if latents lie on a sphere or in a ball. Straight lines leave it, and p(x|z) means nothing."""
    if vae.prior.space != "real":
        raise VaezooError(
            f"the latents of this model lie in the space '{vae.prior.space}', which lines and grids of latents leave",
            "plot samples",
        )


def require_real(z: Tensor) -> Tensor:
    """Returns latents. Raises VaezooError if they are the codes of a quantizer, between which nothing lies."""
    if not z.is_floating_point():
        raise VaezooError("the latents of this model are whole numbers, between which nothing lies", "plot samples")
    return z


def spread(y: Tensor | None, *sizes: int) -> Tensor | None:
    """Returns the label of one example for many rows, `(*sizes)` or `(*sizes, factors)`."""
    return None if y is None else y[0].expand(*sizes, *y.shape[1:])


def manifold(vae: VAE, n: int) -> tuple[Tensor, Tensor]:
    """Decodes a grid of latents. Its coordinates are evenly spaced quantiles of the standard normal, 0.05 to 0.95.

    Args:
        vae: A model with two latent dimensions.
        n: Images per side.

    Returns:
        Images `(n, n, *shape)` in [0, 1], and the coordinates `(n,)` in ascending order. As in a chart, z0 grows to the
        right and z1 grows upwards.

    Raises:
        VaezooError: If the model does not have two latent dimensions, or they do not fill the plane.
    """
    require_lines(vae)
    if vae.latent_shape != (2,):
        raise VaezooError(
            f"a manifold needs 2 latent dimensions, but this model's latents have shape {vae.latent_shape}",
            "train a model that has latent_dim with -o latent_dim=2, or plot traversals",
        )
    values = torch.special.ndtri(torch.linspace(*QUANTILES, n, dtype=torch.float64)).float()
    z1, z0 = torch.meshgrid(values.flip(0), values, indexing="ij")
    y = blank_batch(vae, 1).y
    return decode(vae, torch.stack([z0, z1], dim=2), spread(y, n, n)), values


def interpolation(vae: VAE, first: Batch, second: Batch, steps: int) -> Tensor:
    """Decodes points on straight lines between the latents of pairs of examples.

    White (2016, arXiv 1609.04468) interpolates on the sphere, because samples from the prior lie near one. Codes are
    means, which do not. In few dimensions two codes are often on opposite sides of the origin, and an arc between them
    would leave the data.

    Args:
        vae: The model.
        first: Examples at the start. A conditional model decodes with their labels.
        second: Examples at the end.
        steps: Images per line, including both ends.

    Returns:
        Images `(B, steps, *shape)` in [0, 1].

    Raises:
        VaezooError: If there are no lines between the latents.
    """
    require_lines(vae)
    start, end = require_real(encode(vae, first)), encode(vae, second)
    z = torch.stack([start.lerp(end, float(t)) for t in torch.linspace(0, 1, steps)], dim=1)
    return decode(vae, z, repeat_labels(first.y, steps))


def repeat_labels(y: Tensor | None, times: int) -> Tensor | None:
    """Returns the label of each row `times` times, `(B, times)` or `(B, times, factors)`."""
    return None if y is None else torch.stack([y] * times, dim=1)


def attribute_direction(codes: Tensor, labels: Tensor, label: int) -> Tensor:
    """Returns the mean code of one label minus the mean code of all other labels, `(*latent_shape)`.

    Args:
        codes: `(N, *latent_shape)`.
        labels: `(N,)`.
        label: The label.

    Raises:
        VaezooError: If no example has the label, or all examples have it, or the codes are whole numbers.
    """
    require_real(codes)
    selected = labels == label
    if selected.all() or not selected.any():
        present = ", ".join(map(str, torch.unique(labels).tolist()))
        raise VaezooError(
            f"label {label} cannot be compared with other labels: the data have {present}",
            "give one of several labels of the data",
        )
    return codes[selected].mean(0) - codes[~selected].mean(0)


def edit(vae: VAE, batch: Batch, direction: Tensor, amounts: Tensor) -> Tensor:
    """Adds multiples of a direction to the latents of examples, and decodes them.

    Args:
        vae: The model.
        batch: The examples.
        direction: `(*latent_shape)`.
        amounts: The multiples, `(A,)`. Negative ones subtract the direction.

    Returns:
        Images `(B, A, *shape)` in [0, 1].

    Raises:
        VaezooError: If there are no lines between the latents.
    """
    require_lines(vae)
    codes = require_real(encode(vae, batch))
    z = torch.stack([codes + float(amount) * direction for amount in amounts], dim=1)
    return decode(vae, z, repeat_labels(batch.y, len(amounts)))


def principal_plane(codes: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """Projects codes onto their first two principal components.

    Args:
        codes: `(N, *latent_shape)`, with two or more latent dimensions.

    Returns:
        Coordinates `(N, 2)` around the mean, and the two components' shares of the variance. The sign of each component
        is such that its largest weight is positive.
    """
    centred = codes.flatten(1).double()
    centred = centred - centred.mean(0)
    # The eigenvalues of the scatter matrix are in ascending order, so the first component is the last column.
    variances, axes = torch.linalg.eigh(centred.T @ centred)
    axes = axes[:, [-1, -2]]
    signs = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    # The clamp prevents 0 / 0 for codes that do not vary.
    shares = (variances[[-1, -2]] / variances.sum().clamp(min=1e-30)).tolist()
    return (centred @ (axes * signs)).float(), (shares[0], shares[1])

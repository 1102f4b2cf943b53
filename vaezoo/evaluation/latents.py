"""What a latent space looks like: codes of data, and images along lines and planes of codes.

A code is the mode of q(z|x), and an image the mean of p(x|z): nothing is drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vaezoo.errors import VaezooError
from vaezoo.vae import VAE, device_of, eval_mode

BATCH = 256  # that go through a network together
QUANTILES = (0.05, 0.95)


def encode(vae: VAE, x: Tensor) -> Tensor:
    """Returns the codes of `x`, `(N, *shape)` in [0, 1]: `(N, *latent_shape)`, on the CPU."""
    device = device_of(vae)
    with eval_mode(vae):
        return torch.cat([vae.encode(part.to(device)).mode().cpu() for part in torch.split(x, BATCH)])


def decode(vae: VAE, z: Tensor) -> Tensor:
    """Returns the mean images of latents `(..., *latent_shape)`: `(..., *shape)` in [0, 1], on the CPU."""
    device = device_of(vae)
    lead = z.shape[: z.ndim - len(vae.latent_shape)]
    parts = torch.split(z.reshape(-1, *vae.latent_shape), BATCH)
    with eval_mode(vae):
        images = torch.cat([vae.likelihood.mean(vae.decode(part.to(device))).cpu() for part in parts])
    return images.view(*lead, *vae.data.shape)


def traversal(vae: VAE, x: Tensor, dims: Sequence[int], values: Tensor) -> Tensor:
    """Gives one latent dimension after the other other values, and leaves the rest of the code as it is.

    Args:
        vae: The model.
        x: The example whose code is changed, `(*shape)` in [0, 1].
        dims: Numbers of latent dimensions, counted from 0 through the flattened latent.
        values: What they become, `(V,)`.

    Returns:
        Images `(len(dims), V, *shape)` in [0, 1].

    Raises:
        VaezooError: If there is no such dimension.
    """
    code = encode(vae, x.unsqueeze(0)).flatten()
    if wrong := [d for d in dims if not 0 <= d < len(code)]:
        raise VaezooError(f"there is no latent dimension {wrong[0]}", f"give numbers from 0 to {len(code) - 1}")
    z = code.repeat(len(dims), len(values), 1)
    for row, dim in enumerate(dims):
        z[row, :, dim] = values
    return decode(vae, z.view(len(dims), len(values), *vae.latent_shape))


def manifold(vae: VAE, n: int) -> tuple[Tensor, Tensor]:
    """Draws a plane of latents whose coordinates are the standard normal's quantiles from 0.05 to 0.95, evenly spaced.

    Args:
        vae: A model with two latent dimensions.
        n: Images a side.

    Returns:
        Images `(n, n, *shape)` in [0, 1]: z0 grows to the right and z1 upwards, as in a chart; and the
        coordinates, `(n,)`, rising.

    Raises:
        VaezooError: If the latents are no pairs.
    """
    if vae.latent_shape != (2,):
        raise VaezooError(
            f"a manifold is drawn of 2 latent dimensions; this model's latents have shape {vae.latent_shape}",
            "train with -o latent_dim=2, or plot traversals",
        )
    values = torch.special.ndtri(torch.linspace(*QUANTILES, n, dtype=torch.float64)).float()
    z1, z0 = torch.meshgrid(values.flip(0), values, indexing="ij")
    return decode(vae, torch.stack([z0, z1], dim=2)), values


def interpolation(vae: VAE, first: Tensor, second: Tensor, steps: int) -> Tensor:
    """Goes from code to code on a straight line.

    Not on the sphere, where White (2016, arXiv 1609.04468) keeps draws from the prior: codes are means, which lie on no
    shell, and in few dimensions often face each other across the origin, where an arc leaves the data.

    Args:
        vae: The model.
        first: Examples to begin at, `(B, *shape)` in [0, 1].
        second: Examples to end at, likewise.
        steps: Images a line, both ends among them.

    Returns:
        Images `(B, steps, *shape)` in [0, 1].
    """
    start, end = encode(vae, first), encode(vae, second)
    return decode(vae, torch.stack([start.lerp(end, float(t)) for t in torch.linspace(0, 1, steps)], dim=1))


def attribute_direction(codes: Tensor, labels: Tensor, label: int) -> Tensor:
    """Returns the mean code of one label minus the mean code of all others, `(*latent_shape)`.

    Args:
        codes: `(N, *latent_shape)`.
        labels: `(N,)`.
        label: The one.

    Raises:
        VaezooError: If no code has the label, or all have.
    """
    chosen = labels == label
    if chosen.all() or not chosen.any():
        there = ", ".join(map(str, torch.unique(labels).tolist()))
        raise VaezooError(f"label {label} cannot be told from others: there are {there}", "take one of several labels")
    return codes[chosen].mean(0) - codes[~chosen].mean(0)


def edit(vae: VAE, x: Tensor, direction: Tensor, amounts: Tensor) -> Tensor:
    """Adds multiples of a direction to the codes of examples.

    Args:
        vae: The model.
        x: Examples, `(B, *shape)` in [0, 1].
        direction: `(*latent_shape)`.
        amounts: Multiples, `(A,)`; negative ones subtract it.

    Returns:
        Images `(B, A, *shape)` in [0, 1].
    """
    codes = encode(vae, x)
    return decode(vae, torch.stack([codes + float(amount) * direction for amount in amounts], dim=1))


def principal_plane(codes: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """Projects codes on the two directions in which they vary most.

    Args:
        codes: `(N, *latent_shape)`, of two or more dimensions.

    Returns:
        Coordinates `(N, 2)` around the mean, each axis turned so that its largest weight is positive; and the shares
        of the variance that the axes have.
    """
    centred = codes.flatten(1).double()
    centred = centred - centred.mean(0)
    variances, axes = torch.linalg.eigh(centred.T @ centred)
    axes = axes[:, [-1, -2]]
    signs = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    shares = (variances[[-1, -2]] / variances.sum().clamp(min=1e-30)).tolist()
    return (centred @ (axes * signs)).float(), (shares[0], shares[1])

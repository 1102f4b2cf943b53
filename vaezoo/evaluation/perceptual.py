"""LPIPS of reconstructions, or their distance in the features of the packaged digit classifier."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo.core.chunks import row_chunks
from vaezoo.core.classifier import NAME, SHA256
from vaezoo.core.perceptual import LpipsFiles, Network, PerceptualDistance, load_classifier, load_lpips, misfit
from vaezoo.data.base import Split
from vaezoo.errors import UnsupportedDataError
from vaezoo.evaluation.image_metrics import iter_reconstructions
from vaezoo.evaluation.metrics import Metric, OnProgress, mean_with_error
from vaezoo.vae import VAE, device_of

SHOWN = 8  # digits of a SHA-256
FEATURES = 128  # of a pixel of two images, behind VGG16's first convolution


def perceptual_distance(
    vae: VAE, split: Split, files: LpipsFiles | None = None, on_progress: OnProgress = lambda done, total: None
) -> Metric:
    """Returns the perceptual distance of reconstructions from their examples, the mean over the examples.

    Args:
        vae: The model, on any device.
        split: Images in [0, 1], at least 16 pixels a side, 14 without files. They are not resized.
        files: The files of LPIPS. Without them, the network is the packaged classifier, and the name says so.
        on_progress: Called with the number of images done and the total.

    Raises:
        UnsupportedDataError: If the network does not take such images.
        InputError: If a file cannot be read, is another one, or does not hold such weights.
        DivergedError: If the model's values are not finite.
    """
    check_images("lenet" if files is None else "lpips", split.shape)
    network = (load_classifier() if files is None else load_lpips(files)).to(device_of(vae))
    distances: list[Tensor] = []
    for x, again in iter_reconstructions(vae, split):
        distances.append(chunked_distances(network, x, again, device_of(vae)))
        on_progress(sum(map(len, distances)), len(split))
    value, error = mean_with_error(torch.cat(distances))
    name, how = describe_network(files)
    protocol = f"{how}; mean over {len(split):,} examples; reconstructions: mean of p(x|z) at the mode of q(z|x)"
    return Metric(name, value, "", protocol, error)


def check_images(network: Network, shape: tuple[int, ...]) -> None:
    """Raises UnsupportedDataError unless a network takes examples of a shape."""
    if (takes := misfit(network, shape)) is not None:
        what = f"metric 'lpips' takes {takes}, not examples of shape {shape}"
        raise UnsupportedDataError(what, "leave out the metric")


def chunked_distances(network: PerceptualDistance, x: Tensor, y: Tensor, device: torch.device) -> Tensor:
    """Returns the distance of each pair, `(N,)` on the CPU. The features of few pairs are in memory at a time."""
    with torch.no_grad():
        parts = [
            network(x[rows].to(device), y[rows].to(device)).cpu()
            for rows in row_chunks(len(x), (FEATURES, *x.shape[2:]))
        ]
    return torch.cat(parts)


def describe_network(files: LpipsFiles | None) -> tuple[str, str]:
    """Returns the metric's name and how it is computed. Both state the network."""
    if files is None:
        network = f"{NAME} {SHA256[:SHOWN]}"
        how = f"LPIPS' formula in both convolutions of the packaged digit classifier {network}, all weights 1"
        return f"perceptual distance ({network})", f"{how}, on grey images"
    vgg, linear = files.vgg_sha256[:SHOWN], files.lpips_sha256[:SHOWN]
    how = f"LPIPS 0.1 (Zhang et al. 2018) in VGG16 {vgg} with the weights {linear}, images in their own size"
    return f"LPIPS (VGG16 {vgg}, {linear})", how

"""Images: how close reconstructions are, how far samples are from data, and whether they are copies of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor

from vaezoo.core.dependencies import eval_dependencies
from vaezoo.core.seed import derive_seed, epoch_permutation, isolate_rng, set_seed
from vaezoo.data.base import Split
from vaezoo.errors import VaezooError
from vaezoo.evaluation.feature_extractors import FeatureExtractor
from vaezoo.evaluation.likelihood import BLOCK, check_finite, iter_batches, mean
from vaezoo.evaluation.metrics import Metric, OnProgress
from vaezoo.vae import VAE, device_of, eval_mode

MOST_DB = 100.0  # the PSNR of an image without any error, which would be infinite
WINDOW = 11  # pixels, of SSIM
TOGETHER = 50  # reconstructions at once: SSIM holds five blurred copies of each image and its original


def psnr(vae: VAE, part: Split) -> Metric:
    """Returns the peak signal-to-noise ratio of reconstructions, the mean over the examples, in dB.

    Raises:
        VaezooError: If torchmetrics is missing.
        DivergedError: If the model gives values that are not finite.
    """
    with eval_dependencies():
        import torchmetrics
        from torchmetrics.functional.image import peak_signal_noise_ratio
    found = [
        peak_signal_noise_ratio(again.flatten(1), x.flatten(1), data_range=1.0, reduction="none", dim=1)
        for x, again in reconstructions(vae, part)
    ]
    protocol = f"mean over {len(part):,} examples, each at most {MOST_DB:g} dB; {words(torchmetrics.__version__)}"
    value, error = mean(torch.cat(found).clamp(max=MOST_DB))
    return Metric("PSNR", value, "dB", protocol, error)


def ssim(vae: VAE, part: Split) -> Metric:
    """Returns the structural similarity (Wang et al. 2004) of reconstructions, the mean over the examples, 1 at best.

    Raises:
        VaezooError: If the examples are no images of 11x11 pixels or more, or torchmetrics is missing.
        DivergedError: If the model gives values that are not finite.
    """
    if len(part.shape) != 3 or min(part.shape[1:]) < WINDOW:
        raise VaezooError(
            f"SSIM is not defined on examples of shape {part.shape}", f"give images of {WINDOW}x{WINDOW} or more"
        )
    with eval_dependencies():
        import torchmetrics
        from torchmetrics.functional.image import structural_similarity_index_measure
    found = []
    for x, again in reconstructions(vae, part):
        values = structural_similarity_index_measure(again, x, kernel_size=WINDOW, data_range=1.0, reduction="none")
        assert isinstance(values, Tensor)  # it gives pairs only where more is asked for
        found.append(values)
    protocol = f"Gaussian window of {WINDOW} pixels, sigma 1.5; mean over {len(part):,} examples; "
    value, error = mean(torch.cat(found))
    return Metric("SSIM", value, "", protocol + words(torchmetrics.__version__), error)


def reconstructions(vae: VAE, part: Split) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields examples with the mean images of their codes, some at a time, `(B, *shape)` each, on the CPU."""
    device = device_of(vae)
    for block in iter_batches(part, "none", 0, device):
        for x in torch.split(block, TOGETHER):
            with eval_mode(vae):
                again = vae.reconstruct(x)
            yield x.cpu(), again.cpu()


def words(version: str) -> str:
    """Returns what the protocols of reconstructions have in common."""
    return f"reconstructions: mean of p(x|z) at the mode of q(z|x), data range 1; torchmetrics {version}"


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Returns the squared Frechet distance between the normal distributions of two sets (Heusel et al. 2017).

    |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)), in float64. The root's trace is that of (A^(1/2) B A^(1/2))^(1/2),
    whose eigenvalues are real and not negative, which rounding takes from those of A B.

    Args:
        a: Features, `(N, d)`.
        b: Features, `(M, d)`.

    Raises:
        VaezooError: If a set has no more examples than dimensions: its covariance would be singular.
        DivergedError: If a feature is not finite.
    """
    check_shapes(tuple(a.shape), tuple(b.shape))
    for features in (a, b):
        check_finite(features)
    a, b = a.double(), b.double()
    covariance_a, covariance_b = torch.cov(a.T).reshape(a.shape[1], -1), torch.cov(b.T).reshape(b.shape[1], -1)
    values, vectors = torch.linalg.eigh(covariance_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ covariance_b @ root).clamp(min=0).sqrt().sum()
    difference = (a.mean(0) - b.mean(0)).square().sum()
    return float(difference + covariance_a.trace() + covariance_b.trace() - 2 * overlap)


def check_shapes(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    """Raises VaezooError unless features of these shapes are two sets with more examples than dimensions."""
    if len(a) != 2 or a[1:] != b[1:] or min(a[0], b[0]) <= a[1]:
        raise VaezooError(
            f"features of shapes {a} and {b} have no Frechet distance",
            f"give each set more examples than dimensions: {a[-1] + 1:,} or more",
        )


def frechet_metrics(
    vae: VAE,
    train: Split,
    held_out: Split,
    features: FeatureExtractor,
    seed: int = 0,
    on_progress: OnProgress = lambda done, total: None,
) -> list[Metric]:
    """Returns the Frechet distance of as many samples as held-out examples from these, and that of training examples.

    The second is the floor: what samples would have that cannot be told from data.

    Args:
        vae: The model, on any device.
        train: Of which as many as are held out are drawn, or all if there are fewer.
        held_out: The examples.
        features: What the distances are measured in.
        seed: Determines the samples, and the training examples.
        on_progress: Called with the images done, and all.

    Raises:
        VaezooError: If there are no more examples than dimensions.
        DivergedError: If the model or the features give values that are not finite.
    """
    device, count = device_of(vae), len(held_out)
    # Not evenly spaced: MNIST's training file has an order, runs from 0 to 9, which made the floor four times as high.
    train = train.select(epoch_permutation(seed, 0, len(train))[:count])
    check_shapes((count, features.dims), (len(train), features.dims))
    network = features.network.to(device)
    parts = (iter_batches(part, "none", 0, device) for part in (held_out, train))
    found: list[Tensor] = []
    with torch.no_grad():
        for x in chain(*parts, samples(vae, count, seed)):
            found.append(network(x).cpu())
            on_progress(sum(map(len, found)), 2 * count + len(train))
    real, seen, made = torch.split(torch.cat(found), [count, len(train), count])
    name, where = f"Frechet distance ({features.name})", f"{features.dims} dimensions; float64; seed {seed}"
    drawn = f"{count:,} held-out examples against as many samples, means of p(x|z) with z from the prior"
    floor = f"the floor: {count:,} held-out examples against {len(train):,} training examples, drawn"
    return [
        Metric(name, frechet_distance(real, made), "", f"{drawn}; {where}"),
        Metric(f"{name} of training examples", frechet_distance(real, seen), "", f"{floor}; {where}"),
    ]


def nearest_neighbour_ratio(vae: VAE, train: Split, held_out: Split, *, count: int = 1000, seed: int = 0) -> Metric:
    """Returns how near samples come to training examples, relative to examples that the model never saw.

    A model that gives training examples back has 0; samples like new data have 1, or less where they are smoother.

    Args:
        vae: The model, on any device.
        train: All that the model was trained on.
        held_out: What it was not.
        count: How many samples, and held-out examples, are compared.
        seed: Determines the samples.

    Raises:
        VaezooError: If there are fewer held-out examples than `count`, or all of them are training examples.
        DivergedError: If the model gives values that are not finite.
    """
    if not 1 <= count <= len(held_out):
        raise VaezooError(
            f"{count:,} samples cannot be compared with {len(held_out):,} held-out examples",
            f"give a count from 1 to {len(held_out):,}",
        )
    device = device_of(vae)
    unseen = torch.cat([*iter_batches(held_out.subsample(count), "none", 0, device)])
    near, usual = nearest(torch.cat([*samples(vae, count, seed)]), train), nearest(unseen, train)
    if not usual.any():
        raise VaezooError("every held-out example is a training example, too", "give other held-out data")
    protocol = (
        f"mean Euclidean distance of {count:,} samples, means of p(x|z) with z from the prior, to the nearest of "
        f"{len(train):,} training examples, divided by that of {count:,} held-out examples; in pixels; seed {seed}"
    )
    return Metric("nearest-training-example ratio", (near.mean() / usual.mean()).item(), "", protocol)


def samples(vae: VAE, count: int, seed: int) -> Iterator[Tensor]:
    """Yields mean images of latents drawn from the prior, `(B, *shape)` on the model's device, `count` in all.

    Raises:
        DivergedError: If one is not finite.
    """
    device = device_of(vae)
    for number, start in enumerate(range(0, count, BLOCK)):
        with eval_mode(vae), isolate_rng(device):
            set_seed(derive_seed(seed, "latents", number), device)
            drawn = vae.sample(min(BLOCK, count - start))
        check_finite(drawn)
        yield drawn


def nearest(x: Tensor, part: Split) -> Tensor:
    """Returns each example's distance to the nearest of a part, `(N,)`."""
    x = x.flatten(1)
    found = torch.full((len(x),), torch.inf, device=x.device)
    for block in iter_batches(part, "none", 0, x.device):
        others = block.flatten(1)
        index = torch.cdist(x, others).argmin(1)  # by way of a matrix product, whose rounding hides copies
        found = torch.minimum(found, (x - others[index]).norm(dim=1))
    return found

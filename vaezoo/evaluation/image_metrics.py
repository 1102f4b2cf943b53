"""Image metrics: PSNR and SSIM of reconstructions, and Frechet and nearest-neighbour distances of samples."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor

from vaezoo.core.dependencies import eval_dependencies
from vaezoo.core.seed import derive_seed, epoch_permutation, isolate_rng, set_seed
from vaezoo.data.base import Split
from vaezoo.errors import VaezooError
from vaezoo.evaluation.batches import BATCH_SIZE, iter_batches, split_batch
from vaezoo.evaluation.feature_extractors import FeatureExtractor
from vaezoo.evaluation.metrics import Metric, OnProgress, check_finite, mean_with_error
from vaezoo.vae import VAE, device_of, eval_mode

MAX_DB = 100.0  # limits the PSNR of an exact reconstruction, which would be infinite
SSIM_WINDOW = 11  # pixels
RECONSTRUCTION_BATCH = 50  # images; SSIM keeps five blurred copies of each image and its reconstruction


def psnr(vae: VAE, split: Split) -> Metric:
    """Returns the peak signal-to-noise ratio of reconstructions, the mean over the examples, in dB.

    Raises:
        VaezooError: If torchmetrics is missing.
        DivergedError: If the model's values are not finite.
    """
    with eval_dependencies():
        import torchmetrics
        from torchmetrics.functional.image import peak_signal_noise_ratio
    values = torch.cat(
        [
            peak_signal_noise_ratio(again.flatten(1), x.flatten(1), data_range=1.0, reduction="none", dim=1)
            for x, again in iter_reconstructions(vae, split)
        ]
    )
    value, error = mean_with_error(values.clamp(max=MAX_DB))
    protocol = f"mean over {len(split):,} examples, each at most {MAX_DB:g} dB; "
    return Metric("PSNR", value, "dB", protocol + reconstruction_protocol(torchmetrics.__version__), error)


def ssim(vae: VAE, split: Split) -> Metric:
    """Returns the structural similarity (Wang et al. 2004) of reconstructions, the mean over the examples, 1 at best.

    Raises:
        VaezooError: If the examples are not images of at least 11x11 pixels, or torchmetrics is missing.
        DivergedError: If the model's values are not finite.
    """
    if len(split.shape) != 3 or min(split.shape[1:]) < SSIM_WINDOW:
        raise VaezooError(
            f"SSIM is not defined for examples of shape {split.shape}",
            f"give images of at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels",
        )
    with eval_dependencies():
        import torchmetrics
        from torchmetrics.functional.image import structural_similarity_index_measure
    batches = []
    for x, again in iter_reconstructions(vae, split):
        values = structural_similarity_index_measure(
            again, x, kernel_size=SSIM_WINDOW, data_range=1.0, reduction="none"
        )
        assert isinstance(values, Tensor)  # a tuple is returned only on request
        batches.append(values)
    value, error = mean_with_error(torch.cat(batches))
    protocol = f"Gaussian window of {SSIM_WINDOW} pixels, sigma 1.5; mean over {len(split):,} examples; "
    return Metric("SSIM", value, "", protocol + reconstruction_protocol(torchmetrics.__version__), error)


def iter_reconstructions(vae: VAE, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields batches of examples and their reconstructions, `(B, *shape)` each, on the CPU."""
    for batch in iter_batches(split, "none", 0, device_of(vae)):
        for x, y in split_batch(batch, RECONSTRUCTION_BATCH):
            with eval_mode(vae):
                again = vae.reconstruct(x, y)
            yield x.cpu(), again.cpu()


def reconstruction_protocol(version: str) -> str:
    """Returns the part of a protocol that describes the reconstructions and the version of torchmetrics."""
    return f"reconstructions: mean of p(x|z) at the mode of q(z|x), data range 1; torchmetrics {version}"


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Returns the squared Frechet distance between Gaussians fitted to two sets of features (Heusel et al. 2017).

    With means m and covariances A and B, it is |m_a - m_b|^2 + tr(A) + tr(B) - 2 tr((A B)^(1/2)), in float64.

    Args:
        a: Features, `(N, d)`.
        b: Features, `(M, d)`.

    Raises:
        VaezooError: If a set does not have more examples than dimensions. Its covariance would be singular.
        DivergedError: If a feature is not finite.
    """
    check_feature_shapes(tuple(a.shape), tuple(b.shape))
    for features in (a, b):
        check_finite(features)
    a, b = a.double(), b.double()
    # The reshape is for d = 1, where torch.cov returns a scalar.
    covariance_a, covariance_b = torch.cov(a.T).reshape(a.shape[1], -1), torch.cov(b.T).reshape(b.shape[1], -1)
    # tr((A B)^(1/2)) is computed as tr((R B R)^(1/2)) with R = A^(1/2). A B and R B R have the same eigenvalues. R B R
    # is symmetric, so its eigenvalues stay real, and rounding can make them only slightly negative.
    values, vectors = torch.linalg.eigh(covariance_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # The trace of a square root is the sum of the roots of the eigenvalues.
    overlap = torch.linalg.eigvalsh(root @ covariance_b @ root).clamp(min=0).sqrt().sum()
    difference = (a.mean(0) - b.mean(0)).square().sum()
    return float(difference + covariance_a.trace() + covariance_b.trace() - 2 * overlap)


def check_feature_shapes(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    """Raises VaezooError unless these are shapes of two sets of features with more examples than dimensions."""
    if len(a) != 2 or a[1:] != b[1:] or min(a[0], b[0]) <= a[1]:
        raise VaezooError(
            f"features of shapes {a} and {b} have no Frechet distance",
            f"give each set more examples than dimensions: {a[-1] + 1:,} or more",
        )


def frechet_metrics(
    vae: VAE,
    train: Split,
    held_out: Split,
    extractor: FeatureExtractor,
    seed: int = 0,
    on_progress: OnProgress = lambda done, total: None,
) -> list[Metric]:
    """Returns the Frechet distances of samples and of training examples from the held-out examples.

    There are as many samples as held-out examples. The distance of the training examples is the floor. Samples that
    cannot be distinguished from data would have this distance.

    Args:
        vae: The model, on any device.
        train: Training examples. As many as the held-out ones are drawn, or all if there are fewer.
        held_out: Held-out examples.
        extractor: Computes the features in which distances are measured.
        seed: Seed of the samples and of the choice of training examples.
        on_progress: Called with the number of images done and the total.

    Raises:
        VaezooError: If there are not more examples than dimensions.
        DivergedError: If the values of the model or of the extractor are not finite.
    """
    device, count = device_of(vae), len(held_out)
    # Drawn at random: MNIST's training file contains runs from 0 to 9, and evenly spaced examples made the floor four
    # times as high.
    train = train.select(epoch_permutation(seed, 0, len(train))[:count])
    check_feature_shapes((count, extractor.dims), (len(train), extractor.dims))
    network = extractor.network.to(device)
    batches = chain(
        (batch.x for batch in iter_batches(held_out, "none", 0, device)),
        (batch.x for batch in iter_batches(train, "none", 0, device)),
        iter_samples(vae, count, seed),
    )
    features: list[Tensor] = []
    with torch.no_grad():
        for x in batches:
            features.append(network(x).cpu())
            on_progress(sum(map(len, features)), 2 * count + len(train))
    held_out_features, train_features, sample_features = torch.split(torch.cat(features), [count, len(train), count])
    name, common = f"Frechet distance ({extractor.name})", f"{extractor.dims} dimensions; float64; seed {seed}"
    samples = f"{count:,} held-out examples against as many samples, means of p(x|z) with z from the prior"
    floor = f"the floor: {count:,} held-out examples against {len(train):,} training examples, drawn at random"
    return [
        Metric(name, frechet_distance(held_out_features, sample_features), "", f"{samples}; {common}"),
        Metric(
            f"{name} of training examples",
            frechet_distance(held_out_features, train_features),
            "",
            f"{floor}; {common}",
        ),
    ]


def reconstruction_frechet(
    vae: VAE, split: Split, extractor: FeatureExtractor, on_progress: OnProgress = lambda done, total: None
) -> Metric:
    """Returns the Frechet distance of reconstructions from the examples themselves, called rFID with Inception.

    Args:
        vae: The model, on any device.
        split: Examples, more than the features have dimensions.
        extractor: Computes the features in which the distance is measured.
        on_progress: Called with the number of images done and the total.

    Raises:
        VaezooError: If there are not more examples than dimensions.
        DivergedError: If the values of the model or of the extractor are not finite.
    """
    check_feature_shapes((len(split), extractor.dims), (len(split), extractor.dims))
    network = extractor.network.to(device_of(vae))
    pairs: list[Tensor] = []
    with torch.no_grad():
        for x, again in iter_reconstructions(vae, split):
            check_finite(again)
            pairs.append(torch.stack([network(images.to(device_of(vae))).cpu() for images in (x, again)]))
            on_progress(sum(pair.shape[1] for pair in pairs), len(split))
    features, reconstructed = torch.cat(pairs, 1)
    protocol = f"{len(split):,} examples against their reconstructions, the mean of p(x|z) at the mode of q(z|x)"
    return Metric(
        f"Frechet distance of reconstructions ({extractor.name})",
        frechet_distance(features, reconstructed),
        "",
        f"{protocol}; {extractor.dims} dimensions; float64",
    )


def nearest_neighbour_ratio(vae: VAE, train: Split, held_out: Split, *, count: int = 1000, seed: int = 0) -> Metric:
    """Returns the distance of samples to the nearest training examples, relative to that of held-out examples.

    A model that copies training examples has 0. Samples like new data have 1, or less if they are smoother.

    Args:
        vae: The model, on any device.
        train: All training examples.
        held_out: Examples that the model was not trained on.
        count: Number of samples, and of held-out examples.
        seed: Seed of the samples.

    Raises:
        VaezooError: If there are fewer than `count` held-out examples, or all of them are training examples.
        DivergedError: If the model's values are not finite.
    """
    if not 1 <= count <= len(held_out):
        raise VaezooError(
            f"{count:,} samples cannot be compared with {len(held_out):,} held-out examples",
            f"give a count from 1 to {len(held_out):,}",
        )
    device = device_of(vae)
    unseen = torch.cat([batch.x for batch in iter_batches(held_out.subsample(count), "none", 0, device)])
    samples = torch.cat([*iter_samples(vae, count, seed)])
    sample_distances, unseen_distances = nearest_distances(samples, train), nearest_distances(unseen, train)
    if not unseen_distances.any():
        raise VaezooError("every held-out example is also a training example", "give other held-out data")
    protocol = (
        f"mean Euclidean distance of {count:,} samples, means of p(x|z) with z from the prior, to the nearest of "
        f"{len(train):,} training examples, divided by that of {count:,} held-out examples; in pixels; seed {seed}"
    )
    ratio = (sample_distances.mean() / unseen_distances.mean()).item()
    return Metric("nearest-training-example ratio", ratio, "", protocol)


def iter_samples(vae: VAE, count: int, seed: int) -> Iterator[Tensor]:
    """Yields batches of samples, the means of p(x|z) with z from the prior, `(B, *shape)` on the model's device.

    Raises:
        DivergedError: If a sample is not finite.
    """
    device = device_of(vae)
    for number, start in enumerate(range(0, count, BATCH_SIZE)):
        with eval_mode(vae), isolate_rng(device):
            set_seed(derive_seed(seed, "latents", number), device)
            batch = vae.sample(min(BATCH_SIZE, count - start))
        check_finite(batch)
        yield batch


def nearest_distances(x: Tensor, split: Split) -> Tensor:
    """Returns the Euclidean distance of each example to its nearest neighbour in a split, `(N,)`."""
    x = x.flatten(1)
    distances = torch.full((len(x),), torch.inf, device=x.device)
    for batch in iter_batches(split, "none", 0, x.device):
        others = batch.x.flatten(1)
        # cdist computes distances by a matrix product. Its rounding would give copies a distance above 0, so it only
        # selects the neighbour, and the distance is computed again from the difference.
        index = torch.cdist(x, others).argmin(1)
        distances = torch.minimum(distances, (x - others[index]).norm(dim=1))
    return distances

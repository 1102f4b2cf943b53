"""Codebooks: vectors that are learned, whose numbers are the codes of features (van den Oord et al. 2017)."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.core import distributed
from vaezoo.nn.quantizers.base import Quantizer

TIE = 1e-5  # squared distances that differ by less than this share of |f|^2 + |e|^2 are equal, around the mean vector
MIN_USAGE = 1e-8  # of a vector: keeps the average defined, and clear of the slow arithmetic near zero


class Codebook(Quantizer):
    """Vectors, and their numbers as codes.

    Args:
        size: Number of vectors.
        commitment: Weight of the features' squared distance from their vectors.

    Attributes:
        vectors: `(K, dim)`.
    """

    vectors: Tensor

    def __init__(self, size: int, commitment: float) -> None:
        super().__init__()
        self.first_vectors = size
        self.commitment = commitment

    def nearest(self, features: Tensor) -> Tensor:
        """Returns the code of the nearest vector for features `(B, dim, h, w)`, `(B, h, w)`, int64.

        Of vectors that are equally near, the first one counts. Rounding would choose between them otherwise, and
        PyTorch and ONNX Runtime round differently.
        """
        # Around the mean vector, because a large mean of the features would hide the differences between them.
        vectors = self.vectors.detach()
        center = vectors.mean(0)
        points, vectors = features.detach().movedim(1, -1) - center, vectors - center
        lengths, squares = points.square().sum(-1, keepdim=True), vectors.square().sum(1)
        # |f - e|^2 = |f|^2 - 2 f e + |e|^2 for all pairs, as one matrix product.
        distances = lengths - 2 * points @ vectors.T + squares
        limit = distances.amin(-1, keepdim=True) + TIE * lengths
        return (distances - TIE * squares <= limit).to(torch.uint8).argmax(-1)  # argmax gives the first of equal values

    def embed(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, self.vectors).movedim(-1, 1)

    def learn(self, features: Tensor, codes: Tensor) -> Tensor:
        """Overridden: features are held near their vectors, and the vectors learn."""
        embedded = self.embed(codes)
        loss = self.commitment * squared_distance(features, embedded.detach())
        codebook_loss = self.loss(features, embedded)
        if self.training:
            self.update(features, codes)
        return loss if codebook_loss is None else loss + codebook_loss

    def init_from_features(self, features: Tensor) -> None:
        """Overridden: random vectors are far from the features, and one of them would serve for all."""
        self.set_vectors(spread_features(features, len(self.vectors)))

    @torch.no_grad()
    def set_vectors(self, vectors: Tensor) -> None:
        """Sets all vectors, `(K, dim)`."""
        self.vectors.copy_(vectors)

    @abstractmethod
    def update(self, features: Tensor, codes: Tensor) -> None:
        """Learns from the features of a training batch and their codes."""

    @abstractmethod
    def loss(self, features: Tensor, embedded: Tensor) -> Tensor | None:
        """Returns what the vectors minimise, `(B,)`, or None."""


class EMACodebook(Codebook):
    """Each vector is a moving average of the features that have its code (arXiv 1711.00937, appendix A.1).

    The paper keeps N_i, the average number of features with code i, and m_i, the average of their sum. The vector is
    m_i / N_i. Here N_i is divided by the number of positions, so neither the batch size nor the number of processes
    matters. m_i is not kept, because it equals N_i times the vector. Each micro-batch counts as a batch.

    Args:
        size: Number of vectors.
        dim: Their dimensions.
        commitment: As in Codebook.
        decay: Decay of the averages.
        revive_below: A vector that is used less than this share of 1/K is replaced by a feature of the batch. 0: never.

    Attributes:
        usage: N_i, the average share of positions that have code i, `(K,)`. They add up to 1.
    """

    def __init__(self, size: int, dim: int, commitment: float, decay: float, revive_below: float) -> None:
        super().__init__(size, commitment)
        self.decay = decay
        self.revive_below = revive_below
        self.register_buffer("vectors", initial_vectors(size, dim))
        self.register_buffer("usage", torch.full((size,), 1 / size))
        self.usage: Tensor

    @torch.no_grad()
    def update(self, features: Tensor, codes: Tensor) -> None:
        points, every = features.movedim(1, -1).flatten(0, -2), torch.arange(len(self.usage), device=codes.device)
        # A matrix product, and not index_add_, whose sums on CUDA depend on the order of threads.
        one_hot = (codes.flatten().unsqueeze(1) == every).to(points.dtype)
        share = distributed.dist_mean(one_hot.mean(0)).unsqueeze(1)
        total = distributed.dist_mean(one_hot.T @ points / len(points))
        # N' = d N + (1 - d) n and m' = d m + (1 - d) s with m = N e give m' / N' = e + (1 - d) (s - n e) / N'.
        self.usage.lerp_(share.squeeze(1), 1 - self.decay).clamp_(min=MIN_USAGE)
        self.vectors.add_((1 - self.decay) * (total - share * self.vectors) / self.usage.unsqueeze(1))
        if self.revive_below > 0:
            self._revive(points[every * len(points) // len(every)])

    def _revive(self, features: Tensor) -> None:
        """Replaces vectors that are hardly used by features `(K, dim)`, in all processes by those of the first."""
        first = distributed.world_size() if distributed.rank() == 0 else 0
        features = distributed.dist_mean(first * features)
        unused = self.usage < self.revive_below / len(self.usage)
        self.vectors.copy_(torch.where(unused.unsqueeze(1), features, self.vectors))
        self.usage.copy_(torch.where(unused, 1 / len(self.usage), self.usage))

    def loss(self, features: Tensor, embedded: Tensor) -> None:
        return None


class GradientCodebook(Codebook):
    """Vectors that are parameters (arXiv 1711.00937, equation 3).

    Args:
        size: Number of vectors.
        dim: Their dimensions.
        commitment: As in Codebook.
    """

    def __init__(self, size: int, dim: int, commitment: float) -> None:
        super().__init__(size, commitment)
        self.vectors = nn.Parameter(initial_vectors(size, dim))

    def update(self, features: Tensor, codes: Tensor) -> None:
        pass

    def loss(self, features: Tensor, embedded: Tensor) -> Tensor:
        return squared_distance(features.detach(), embedded)


def initial_vectors(size: int, dim: int) -> Tensor:
    """Returns random vectors of length about 1, for a model that has seen no data."""
    return torch.randn(size, dim) / math.sqrt(dim)


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Returns |a - b|^2 for each example, `(B,)`."""
    return (a - b).square().flatten(1).sum(1)


def spread_features(features: Tensor, size: int) -> Tensor:
    """Returns evenly spaced features of all that differ, sorted, `(size, dim)`. With fewer, some are repeated.

    Features of equal patches are equal, such as those of a black background. The nearest of equal vectors is always the
    first, so each of them should be in the codebook once.

    Args:
        features: `(B, dim, h, w)`.
        size: How many to return.
    """
    points = features.movedim(1, -1).flatten(0, -2)
    step = 1e-3 * points.std().clamp(min=1e-6)  # equal patches differ by rounding
    distinct: Tensor = torch.unique((points / step).round(), dim=0)
    return step * distinct[torch.arange(size) * len(distinct) // size]

"""Residual quantization: several codebooks, each for what the ones before leave over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from vaezoo.nn.quantizers.base import Quantizer
from vaezoo.nn.quantizers.codebooks import Codebook


class ResidualQuantizer(Quantizer):
    """The vector is a sum of one vector of each codebook (Zeghidour et al. 2021, arXiv 2107.03312, algorithm 1).

    The first codebook quantizes the features, the second what is left, and so on. Each codebook has the losses, moving
    averages and revival of a codebook alone, for its residuals. The gradient goes straight through the sum, once.

    Args:
        stages: The codebooks, of equal size and dimensions.
    """

    def __init__(self, stages: Sequence[Codebook]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.first_vectors = stages[0].first_vectors

    def nearest(self, features: Tensor) -> Tensor:
        rest, codes = features.detach(), []
        for stage in self._codebooks():
            codes.append(stage.nearest(rest))
            rest = rest - stage.embed(codes[-1]).detach()
        return torch.stack(codes, 1)

    def embed(self, codes: Tensor) -> Tensor:
        vectors = [stage.embed(own) for stage, own in zip(self._codebooks(), codes.unbind(1), strict=True)]
        return sum(vectors[1:], vectors[0])

    def learn(self, features: Tensor, codes: Tensor) -> Tensor:
        """Overridden: the sum of the codebooks' losses for their residuals."""
        rest, losses = features, []
        for stage, own in zip(self._codebooks(), codes.unbind(1), strict=True):
            vectors = stage.embed(own).detach()  # those that were nearest. `learn` changes them
            losses.append(stage.learn(rest, own))
            rest = rest - vectors
        return sum(losses[1:], losses[0])

    def init_from_features(self, features: Tensor) -> None:
        """Overridden: each codebook starts with its residuals."""
        for stage in self._codebooks():
            stage.init_from_features(features)
            features = features - stage.embed(stage.nearest(features))

    def _codebooks(self) -> list[Codebook]:
        return [cast("Codebook", stage) for stage in self.stages]

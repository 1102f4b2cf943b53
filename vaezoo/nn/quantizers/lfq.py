"""Lookup-free quantization (LFQ): the signs of the features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vaezoo.core import distributed
from vaezoo.errors import VaezooError
from vaezoo.nn.quantizers.base import QuantizerPart, require_at_least_0, require_codes
from vaezoo.nn.quantizers.codebooks import squared_distance
from vaezoo.nn.quantizers.scalar import ScalarQuantizer

MAX_JOINT_BITS = 10  # whose codes are counted together. Memory grows with 2 to their number, at each position


class LFQ(ScalarQuantizer):
    """Each dimension is its sign (Yu et al. 2023, arXiv 2310.05737, section 3.1).

    The loss holds features near their vectors, and adds the entropy of the code of each position, minus the entropy of
    all codes of a batch (equation 4). So each position decides for a code, and all codes are used. The probability of
    a code c given a feature f is proportional to exp(-|f - c|^2 / temperature). The dimensions are independent, so the
    entropy of a position is the sum of theirs. That of a batch is not. It is exact up to 2^10 codes. With more of them
    the bits are divided into groups, whose entropies are added: an upper bound.

    All are sums over an example, as the reconstruction is, with the entropies in nats.

    Args:
        bits: Number of dimensions. There are 2^bits codes.
        commitment: Weight of the features' squared distance from their vectors.
        entropy_weight: Weight of the entropies.
        temperature: The scale of squared distances.
    """

    def __init__(self, bits: int, commitment: float, entropy_weight: float, temperature: float) -> None:
        super().__init__([(-1.0, 1.0)] * bits)
        self.commitment = commitment
        self.entropy_weight = entropy_weight
        self.temperature = temperature

    def digits(self, features: Tensor) -> Tensor:
        return (features > 0).to(torch.int64)

    def learn(self, features: Tensor, codes: Tensor) -> Tensor:
        """Overridden: commitment and entropies."""
        loss = self.commitment * squared_distance(features, self.embed(codes))
        logits = 4 / self.temperature * features.movedim(1, -1).flatten(1, -2)  # (B, positions, bits)
        own = bit_entropies(logits).sum((1, 2))
        joint = logits.shape[1] * batch_entropy(logits.flatten(0, 1))
        return loss + self.entropy_weight * (own - joint)


def bit_entropies(logits: Tensor) -> Tensor:
    """Returns the entropy of bits that are 1 with probability sigmoid(logits), in nats, in their shape."""
    return F.softplus(logits) - logits * torch.sigmoid(logits)


def batch_entropy(logits: Tensor) -> Tensor:
    """Returns the entropy of the mean distribution of codes over all positions, `()`, in nats.

    Args:
        logits: Of the bits, `(positions, bits)`. The batch is that of all processes.
    """
    groups = logits.chunk(-(-logits.shape[1] // MAX_JOINT_BITS), 1)
    shares = [distributed.global_batch_mean(code_probabilities(group)) for group in groups]
    return -torch.stack([(share * share.clamp(min=1e-12).log()).sum() for share in shares]).sum()


def code_probabilities(logits: Tensor) -> Tensor:
    """Returns the probabilities of all codes of some bits, `(positions, 2^bits)`, with the first bit the lowest."""
    bits = torch.arange(logits.shape[1], device=logits.device)
    codes = torch.arange(1 << logits.shape[1], device=logits.device)
    signs = (2 * ((codes.unsqueeze(1) >> bits) & 1) - 1).to(logits.dtype)
    return torch.softmax(0.5 * logits @ signs.T, 1)


@dataclass(frozen=True, kw_only=True)
class LFQPart(QuantizerPart):
    """Lookup-free quantization (Yu et al. 2023): the signs of log2(K) dimensions.

    Attributes:
        codebook_size: Number of codes (K), a power of 2.
        commitment: Weight of the features' squared distance from their signs.
        entropy_weight: Weight of the entropy of each position's code, minus that of all codes of a batch.
        temperature: The scale of squared distances in the probabilities of these entropies.

    Raises:
        VaezooError: If a value is out of range.
    """

    part = "lfq"
    formula = (
        r"v_i = \mathrm{sign}\,f_i(x), \qquad \ell = c \sum_i |f_i(x) - v_i|^2"
        r" + w \sum_i \left(H[p(v \mid f_i(x))] - H[\bar p(v)]\right)"
    )
    codebook_size: int = 512
    commitment: float = 0.25
    entropy_weight: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.codebook_size < 2 or self.codebook_size.bit_count() != 1:
            near = 1 << max(1, round(math.log2(max(2, self.codebook_size))))
            raise VaezooError(
                f"option 'codebook_size' is {self.codebook_size}, and lfq needs a power of 2", f"give {near}"
            )
        require_codes("codebook_size", self.codebook_size)
        require_at_least_0("commitment", self.commitment)
        require_at_least_0("entropy_weight", self.entropy_weight)
        if self.temperature <= 0:
            raise VaezooError(f"option 'temperature' is {self.temperature}", "give 'temperature' above 0")

    @property
    def size(self) -> int:
        return self.codebook_size

    @property
    def dim(self) -> int:
        return self.codebook_size.bit_length() - 1

    def build(self) -> LFQ:
        return LFQ(self.dim, self.commitment, self.entropy_weight, self.temperature)

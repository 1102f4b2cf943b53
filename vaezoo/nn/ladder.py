"""The networks of a ladder VAE: the pass upwards from x, and q of each level on the way down."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.nn.activations import Activation
from vaezoo.nn.hierarchy import Sizes, TopDown
from vaezoo.nn.mlp import hidden_layers, mlp_layers
from vaezoo.posteriors.gaussian import DiagonalGaussian


class BottomUp(nn.Module):
    """The deterministic pass from x upwards. Each level's network sees x through that of the level below.

    Args:
        in_features: Features of x.
        widths: Numbers that each level puts out, the top first.
        hidden: Sizes of the hidden layers of each network.
        activation: Their activation.
    """

    def __init__(self, in_features: int, widths: Sizes, hidden: Sizes, activation: Activation) -> None:
        super().__init__()
        inputs = (in_features, *[hidden[-1]] * (len(widths) - 1))
        self.networks = nn.ModuleList(nn.Sequential(*hidden_layers((n, *hidden), activation)) for n in inputs)
        self.outputs = nn.ModuleList(nn.Linear(hidden[-1], width) for width in reversed(widths))

    def forward(self, features: Tensor) -> Tensor:
        """Returns the evidence of all levels, the top first, `(B, sum(widths))`."""
        h, evidence = features.flatten(1), []
        for network, output in zip(self.networks, self.outputs, strict=True):
            h = network(h)
            evidence.append(output(h))
        return torch.cat(evidence[::-1], 1)


class PrecisionWeighted(TopDown):
    """The mean of evidence and prior, weighted by their precisions (arXiv 1602.02282, equations 17 to 19).

    Args:
        latents: Latent dimensions of each level, the top first.
    """

    def __init__(self, latents: Sizes) -> None:
        super().__init__()
        self.widths = tuple(2 * size for size in latents)

    def forward(self, level: int, evidence: Tensor, prior: DiagonalGaussian, above: Tensor) -> DiagonalGaussian:
        likely = DiagonalGaussian.from_raw(*evidence.chunk(2, 1))
        # With precisions a of the evidence and b of the prior, sigma^2 = 1 / (a + b) and mu = (a m + b n) / (a + b).
        # a / (a + b) is the logistic function of log a - log b. So nothing is divided, and nothing overflows.
        log_ratio = prior.logvar - likely.logvar
        mu = prior.mu + torch.sigmoid(log_ratio) * (likely.mu - prior.mu)
        return DiagonalGaussian(mu, likely.logvar + F.logsigmoid(log_ratio))


class SeparateNetworks(TopDown):
    """A network for each level, of the evidence and the latents above (Tomczak and Welling 2018, section 4).

    Args:
        latents: Latent dimensions of each level, the top first.
        hidden: Sizes of the hidden layers of each network.
        activation: Their activation.
    """

    def __init__(self, latents: Sizes, hidden: Sizes, activation: Activation) -> None:
        super().__init__()
        top, *lower = latents
        width = hidden[-1]
        self.widths = (2 * top, *[width] * len(lower))
        self.networks = nn.ModuleList(
            nn.Sequential(*mlp_layers((width + above, *hidden, 2 * size), activation))
            for above, size in pairwise(latents)
        )

    def forward(self, level: int, evidence: Tensor, prior: DiagonalGaussian, above: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian.from_raw(*self.networks[level - 1](torch.cat([evidence, above], 1)).chunk(2, 1))

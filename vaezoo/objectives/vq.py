"""The objective of models whose latents are codes, and how many of the codes are in use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vaezoo.data.base import Batch
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.objectives.base import LossOutput, Objective, ObjectivePart, StepContext
from vaezoo.objectives.elbo import elbo_terms
from vaezoo.posteriors.base import Shape, active_units
from vaezoo.vae import VAE, LatentLevel


class VQLoss(Objective):
    """-log p(x|z) with the losses of the quantizer, in nats and squares (arXiv 1711.00937, equation 3).

    All are sums over an example, and none is divided by the number of pixels or positions. The KL is constant. The
    metric `perplexity` is exp of the entropy of a batch's codes: how many codes are in use. With several levels there
    is one for each, such as `perplexity_top`.
    """

    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        return {"vae": list(vae.parameters())}

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        terms = elbo_terms(vae, batch)
        loss = terms.reconstruction.mean() + step.kl_weight * terms.kl_terms.sum(1).mean()
        return LossOutput({"vae": terms.with_auxiliary(loss)}, terms.metrics | perplexities(terms.z, vae.latent_levels))


@dataclass(frozen=True, kw_only=True)
class VQLossPart(ObjectivePart):
    """The bound and the losses of the quantizer, for models of codes (van den Oord et al. 2017, arXiv 1711.00937)."""

    part = "vq"
    formula = (
        r"\mathcal{L} = -\log p(x \mid z) + \mathrm{KL}(q(z \mid x) \,\|\, p(z)) + \ell(x), \qquad \ell ="
        r" \text{loss of the quantizer}"
    )
    needs_codes = True

    def build(self, data: DataSpec, latent_shape: Shape) -> VQLoss:
        return VQLoss()


def perplexities(z: Tensor, levels: Sequence[LatentLevel]) -> dict[str, Tensor]:
    """Returns the metric `perplexity` of each level, `()`, for the codes of a batch. Empty for models without codes.

    Args:
        z: Codes, `(B, *latent_shape)`.
        levels: The levels of z.
    """
    if not levels:
        return {}
    counts = split_counts(code_counts(z, levels), levels)
    return {name: perplexity(n) for name, n in zip(level_names("perplexity", levels), counts, strict=True)}


def code_counts(z: Tensor, levels: Sequence[LatentLevel]) -> Tensor:
    """Returns how often each code of each level occurs, the levels side by side, `(sum of all K,)`, float32.

    Args:
        z: Codes, `(B, *latent_shape)`.
        levels: The levels of z.
    """
    parts = zip(split_levels(z, levels), levels, strict=True)
    return torch.cat([count_codes(codes, level.codes) for codes, level in parts])


def split_levels(z: Tensor, levels: Sequence[LatentLevel]) -> Sequence[Tensor]:
    """Returns the latents of each level, `(B, latents)`, for z `(B, *latent_shape)`."""
    return torch.split(z.flatten(1), [level.latents for level in levels], 1)


def check_codes(z: Tensor, levels: Sequence[LatentLevel]) -> None:
    """Raises VaezooError unless all codes of z, `(N, *latent_shape)`, are those of their level."""
    for codes, level in zip(split_levels(z, levels), levels, strict=True) if levels and len(z) else ():
        wrong = codes[(codes < 0) | (codes >= level.codes)]
        if level.codes and len(wrong):
            raise VaezooError(f"there is no code {int(wrong[0])}", f"those of {level.name} are 0 to {level.codes - 1}")


def count_codes(codes: Tensor, size: int) -> Tensor:
    """Returns how often each of the codes below `size` occurs, `(size,)`, float32."""
    ones = torch.ones(codes.numel(), device=codes.device)
    return torch.zeros(size, device=codes.device).scatter_add(0, codes.flatten(), ones)


def perplexity(counts: Tensor) -> Tensor:
    """Returns exp of the entropy of codes that occur so often, `()`: 1 if all are equal, K if all are used alike."""
    share = counts / counts.sum()
    return torch.exp(-torch.xlogy(share, share).sum())


def level_names(metric: str, levels: Sequence[LatentLevel]) -> list[str]:
    """Returns the names of a metric for levels: its own, or with several levels one for each."""
    return [metric] if len(levels) == 1 else [f"{metric}_{level.name}" for level in levels]


def split_counts(counts: Tensor, levels: Sequence[LatentLevel]) -> list[Tensor]:
    """Returns the counts of each level, `(K,)` each, for those of all levels side by side."""
    return list(torch.split(counts, [level.codes for level in levels]))


def usage_metrics(levels: Sequence[LatentLevel], counts: Tensor) -> dict[str, float]:
    """Returns perplexity and `codes_used`, the share of the codes that occur, of each level.

    Args:
        levels: The levels.
        counts: How often each code of each level occurs, side by side.
    """
    parts = split_counts(counts, levels)
    metrics = {"perplexity": perplexity, "codes_used": codes_used}
    return {
        name: function(part).item()
        for metric, function in metrics.items()
        for name, part in zip(level_names(metric, levels), parts, strict=True)
    }


def codes_used(counts: Tensor) -> Tensor:
    """Returns the share of the codes that occur, `()`."""
    return (counts > 0).float().mean()


def unused_levels(z: Tensor, levels: Sequence[LatentLevel]) -> list[str]:
    """Returns the names of levels whose codes are the same for all examples. Nothing of the data is in them.

    Args:
        z: Codes of several examples, `(N, *latent_shape)`.
        levels: The levels of z.
    """
    return [level.name for level, part in zip(levels, split_levels(z, levels), strict=True) if not active_units(part)]

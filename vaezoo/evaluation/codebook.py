"""How many codes of a quantizer are in use, over all examples of a split."""

from __future__ import annotations

import warnings

import torch

from vaezoo.data.base import Split
from vaezoo.errors import VaezooError, VaezooWarning
from vaezoo.evaluation.batches import iter_batches
from vaezoo.evaluation.latents import encode
from vaezoo.evaluation.metrics import EvalConfig, Metric
from vaezoo.objectives.vq import code_counts, codes_used, level_names, perplexity, split_counts, unused_levels
from vaezoo.training.reports import unused_advice
from vaezoo.vae import VAE, device_of


def codebook_metrics(vae: VAE, split: Split, config: EvalConfig) -> list[Metric]:
    """Returns perplexity and share of used codes of each level of z. Warns of a level whose codes never vary.

    Perplexity is exp of the entropy of the codes of all examples and positions together.

    Raises:
        VaezooError: If the model does not declare codes.
    """
    levels = vae.latent_levels
    if not any(level.codes for level in levels):
        what = "metric 'codebook' needs the codes of a quantizer, which this model does not declare"
        raise VaezooError(what, "use elbo, or another metric")
    z = torch.cat([encode(vae, b) for b in iter_batches(split, config.binarize, config.seed, device_of(vae))])
    if len(split) > 1 and (unused := unused_levels(z, levels)):
        warnings.warn(unused_advice(unused), VaezooWarning, stacklevel=2)
    parts, metrics = split_counts(code_counts(z, levels), levels), []
    for level, own, suffix in zip(levels, parts, level_names("", levels), strict=True):
        protocol = f"{len(split):,} examples with {level.latents:,} codes each, of {level.codes:,}"
        metrics += [
            Metric(f"perplexity{suffix}", perplexity(own).item(), "", protocol),
            Metric(f"codes_used{suffix}", codes_used(own).item(), "", f"share; {protocol}"),
        ]
    return metrics

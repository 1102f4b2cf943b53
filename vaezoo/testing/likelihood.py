"""Checks of p(x|z): it is the family that the data name, and its mean and samples belong to its density."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo.likelihoods.base import ReconstructionScore
from vaezoo.testing.examples import Spec, build_example
from vaezoo.testing.statistics import MAX_ERRORS, deviation, score_deviation

DRAWS = 2000
MAX_VALUES = 1000  # of x that are drawn and compared
DISTINCT_OF = 16  # values of x that tell whether x is continuous
FAR = 100  # the size of latents at which logits are far from 0 and 1
MIN_DISTINCT = 0.9  # the share of them that differ if it is


def check_likelihood(spec: Spec) -> None:
    """p(x|z) is the family that the data name. Its samples have its mean and are distributed as its log_prob says.

    A score of reconstructions has no samples.
    """
    vae, _, batch = build_example(spec)
    vae.eval()
    expected, actual = type(vae.data.make_likelihood()), type(vae.likelihood)
    advice = "Register it in the entry-point group vaezoo.likelihoods, so that --likelihood, runs and exports name it."
    what = f"the data name the likelihood {expected.__name__}, but the model has {actual.__name__}"
    assert actual is expected, f"{what}. {advice}"
    likelihood = vae.likelihood
    with torch.no_grad():
        z = vae.infer(batch).mode()
        if vae.data.kind == "unit" and z.is_floating_point():
            check_logits(vae.generate(FAR * torch.randn(z.shape), batch))
        params = vae.generate(z, batch)[:1]
        outputs = likelihood.outputs(params)
        rows = params.expand(DRAWS, *params.shape[1:])
        mean = likelihood.mean(params)
        samples = mean if isinstance(likelihood, ReconstructionScore) else likelihood.sample(rows)
    for name, output in outputs.items():
        assert len(output) == 1 and bool(output.isfinite().all()), f"output '{name}' must have a finite row for each x"
    for name, x in {"mean(params)": mean[0], "sample(params)": samples[0]}.items():
        assert x.shape == vae.data.shape, f"likelihood.{name} must have shape {vae.data.shape}, not {tuple(x.shape)}"
    if vae.data.kind in ("tokens", "table") or samples is mean:
        return  # mean is the mode there, or p(x|z) is a score
    distances = (samples - mean).flatten(1)[:, :MAX_VALUES].unbind(1)
    errors = max(deviation(distance) for distance in distances)
    assert errors < MAX_ERRORS, f"the mean of samples is {errors:.0f} standard errors from likelihood.mean(params)"
    if is_discrete(samples):
        return
    unit = vae.data.kind == "unit" and bool(((samples >= 0) & (samples <= 1)).all())
    errors = score_deviation(samples, lambda x: likelihood.log_prob(rows[: len(x)], x), unit=unit)
    what = f"the moments of samples are {errors:.0f} standard errors from those that likelihood.log_prob implies"
    assert errors < MAX_ERRORS, f"{what}. Compare mean and scale of sample with those of log_prob."


def check_logits(params: Tensor) -> None:
    """Raises AssertionError if a decoder's output for latents far from 0 looks like probabilities."""
    low, high = float(params.min()), float(params.max())
    what = f"decode(z) returned values from {low:.2g} to {high:.2g} for latents of size {FAR}"
    assert not 0 <= low < high <= 1, f"{what}, which look like probabilities. Return logits, without a sigmoid."


def is_discrete(samples: Tensor) -> bool:
    """Tells whether samples repeat their values, as bits and grey levels do."""
    values = samples.flatten(1)[:, :DISTINCT_OF]
    return len(torch.unique(values)) < MIN_DISTINCT * values.numel()

"""Checks of the rows of a batch: each example has its own, and K samples of z have K rows side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo.data.base import Batch, given
from vaezoo.objectives.elbo import ELBOTerms, elbo_terms
from vaezoo.posteriors.base import map_tensors, repeat
from vaezoo.testing.examples import BATCH_SIZE, Spec, build_example
from vaezoo.vae import VAE

SAMPLES = 3  # of z for each example
TOLERANCE = 1e-4


def largest_difference(a: Tensor, b: Tensor) -> float:
    """Returns the largest absolute difference of two tensors of one shape. Codes that differ count as 1 or more."""
    return float((a.to(torch.float64) - b.to(torch.float64)).abs().max())


def deterministic_results(vae: VAE, batch: Batch) -> dict[str, Tensor]:
    """Returns what a model gives for each row of a batch without random numbers."""
    mode = vae.infer(batch).mode()
    conditions = given(vae.prior.inputs, batch)
    return {
        "posterior.mode()": mode,
        "decode(z)": vae.generate(mode, batch),
        "prior.log_prob(z)": vae.prior.log_prob(mode, *conditions),
        "reconstruct(x)": vae.reconstruct(*batch),
    }


def check_independence(spec: Spec) -> None:
    """In evaluation mode what the model returns for an example does not depend on the rest of its batch."""
    vae, _, batch = build_example(spec)
    vae.eval()
    with torch.no_grad():
        together = deterministic_results(vae, batch)
        single = [deterministic_results(vae, _row(batch, i)) for i in range(BATCH_SIZE)]
    advice = "Use no statistics of the batch in evaluation mode, and each row's own label."
    for name, rows in together.items():
        difference = largest_difference(rows, torch.cat([results[name] for results in single]))
        assert difference < TOLERANCE, f"{name} changes by {difference:.2g} with the rest of its batch. {advice}"


def _row(batch: Batch, i: int) -> Batch:
    return map_tensors(batch, lambda tensor: tensor[i : i + 1])


def check_repeat(spec: Spec) -> None:
    """Repeated rows of q(z|x) are samples of the same examples: they give the terms of repeated examples."""
    vae, _, batch = build_example(spec)
    vae.eval()

    def terms(rows: Batch, samples: int) -> ELBOTerms:
        torch.manual_seed(0)
        return elbo_terms(vae, rows, samples)

    with torch.no_grad():
        posterior, repeated = terms(batch, SAMPLES), terms(repeat(batch, SAMPLES), 1)
    advice = "Each tensor of a posterior has one row for each example. Other state belongs into a module."
    pairs = {
        "z": (posterior.z, repeated.z),
        "the reconstruction term": (posterior.reconstruction, repeated.reconstruction),
        "the KL": (posterior.kl_terms, repeated.kl_terms),
    }
    if posterior.auxiliary_loss is not None and repeated.auxiliary_loss is not None:
        pairs["the auxiliary loss"] = posterior.auxiliary_loss, repeated.auxiliary_loss
    for name, (a, b) in pairs.items():
        assert len(a) == len(b) == SAMPLES * BATCH_SIZE, f"{name} has {len(a)} rows for {len(b)} samples. {advice}"
        difference = largest_difference(a, b)
        scale = 1 + float(b.abs().max())
        what = f"{name} of {SAMPLES} samples for each example"
        assert difference < TOLERANCE * scale, f"{what} differs by {difference:.2g} from that of repeated x. {advice}"

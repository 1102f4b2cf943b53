"""Likelihood metrics, in nats per example: the ELBO, and -log p(x) by importance sampling.

z is always sampled from q(z|x). Decoding the mean of q(z|x) instead would give a number that is not a bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import reduce
from operator import mul
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from vaezoo.core.compile import Compiled
from vaezoo.core.counts import whole_number
from vaezoo.core.seed import derive_seed, isolate_rng, set_seed
from vaezoo.data.base import Batch, Split
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.evaluation.batches import BATCH_SIZE, iter_batches, split_batch
from vaezoo.evaluation.common_noise import CommonNoise
from vaezoo.evaluation.metrics import Binarize, EvalConfig, Mean, Metric, OnProgress, mean_with_error
from vaezoo.likelihoods.base import ReconstructionScore
from vaezoo.likelihoods.bernoulli import Bernoulli
from vaezoo.objectives.elbo import elbo_terms
from vaezoo.posteriors.base import Posterior, active_units, map_tensors, proposal_of, repeat
from vaezoo.vae import VAE, VAEOutput, device_of, eval_mode

CHUNK_ELEMENTS = 1 << 20  # decoder outputs computed at once; more of them would not fit the processor's cache
LOG_GROUP = 16  # pixels per logarithm in bernoulli_log_prob
COMPILE_FROM = 1 << 21  # decoded latents from which compiling the decoder saves time
ACTIVE_UNITS = "active units"  # the name of a metric


@dataclass(frozen=True, slots=True, kw_only=True)
class ELBOEstimate:
    """The evidence lower bound and its terms, in nats per example.

    Attributes:
        elbo: E_q[log p(x|z)] - KL(q(z|x) || p(z)).
        reconstruction: -E_q[log p(x|z)].
        kl: KL(q(z|x) || p(z)).
        kl_terms: The terms of the KL. Where the KL has a closed form, there is one for each latent dimension.
        active_units: Number of latent dimensions whose mean varies by more than 0.01 over the examples. None: latents
            are whole numbers, whose size means nothing.
        bits_per_dim: -ELBO in bits, divided by the number of values of an example.
    """

    elbo: Mean
    reconstruction: Mean
    kl: Mean
    kl_terms: tuple[float, ...]
    active_units: int | None
    bits_per_dim: float


class ELBORows(NamedTuple):
    """The terms of the evidence lower bound of each example, in nats, and what else one pass gives.

    Attributes:
        reconstruction: -E_q[log p(x|z)], `(N,)`, float64.
        kl: KL(q(z|x) || p(z)), `(N,)`, float64.
        kl_terms: The terms of the KL, the means over the examples.
        modes: Modes of q(z|x), `(N, *latent_shape)`.
        observed: The number of values of all examples.
    """

    reconstruction: Tensor
    kl: Tensor
    kl_terms: tuple[float, ...]
    modes: Tensor
    observed: float


def elbo(vae: VAE, split: Split, *, num_samples: int = 10, binarize: Binarize = "none", seed: int = 0) -> ELBOEstimate:
    """Estimates the evidence lower bound.

    Args:
        vae: The model, on any device.
        split: The examples.
        num_samples: Samples of z per example.
        binarize: "none" keeps the pixels. With a Bernoulli likelihood the result is then the cross-entropy of grey
            levels, which is not a likelihood. "fixed" draws bits once, with the grey levels as probabilities.
            "dynamic" draws new bits for each sample of z.
        seed: Seed of bits and latents.

    Raises:
        VaezooError: If `num_samples` is below 1, or `binarize` is unknown or not for such data.
        DivergedError: If the model's values are not finite.
    """
    rows = elbo_rows(vae, split, num_samples=num_samples, binarize=binarize, seed=seed)
    elbo = mean_with_error(-rows.reconstruction - rows.kl)
    return ELBOEstimate(
        elbo=elbo,
        reconstruction=mean_with_error(rows.reconstruction),
        kl=mean_with_error(rows.kl),
        kl_terms=rows.kl_terms,
        active_units=active_units(rows.modes) if rows.modes.is_floating_point() else None,
        bits_per_dim=-elbo.value / (rows.observed / len(split) * math.log(2)),
    )


def elbo_rows(
    vae: VAE,
    split: Split,
    *,
    num_samples: int = 10,
    binarize: Binarize = "none",
    seed: int = 0,
    common_noise: bool = False,
    on_progress: OnProgress = lambda done, total: None,
) -> ELBORows:
    """Estimates the terms of the evidence lower bound of each example; see `elbo`.

    Args:
        vae: As in `elbo`, like the next four.
        split: See there.
        num_samples: See there.
        binarize: See there.
        seed: See there.
        common_noise: Whether all examples get the same noise. The terms of an example then depend on nothing but
            itself, the model and the settings. Without it the noise of an example depends on its place, and the errors
            of the examples are independent, as the standard error of their mean requires.
        on_progress: Called with the number of examples done and the total.
    """
    check_settings(vae.data, binarize, num_samples)
    device = device_of(vae)
    # One value per example, averaged over the samples of z in float64.
    reconstruction, kl = torch.zeros((2, len(split)), dtype=torch.float64)
    kl_sums: list[Tensor] = []  # of each KL term over a batch
    modes: list[Tensor] = []
    observed = 0.0  # values of all examples
    with eval_mode(vae), isolate_rng(device):
        for draw in range(num_samples):
            bits = draw if binarize == "dynamic" else 0
            batches = iter_batches(split, binarize, seed, device, bits, common_noise=common_noise)
            for number, batch in enumerate(batches):
                set_seed(derive_seed(seed, "latents", draw if common_noise else draw * len(split) + number), device)
                with CommonNoise(len(batch.x)) if common_noise else nullcontext():
                    terms = elbo_terms(vae, batch)
                kl_terms = terms.kl_terms.double().cpu()
                rows = slice(number * BATCH_SIZE, number * BATCH_SIZE + len(batch.x))
                reconstruction[rows] += terms.reconstruction.double().cpu() / num_samples
                kl[rows] += kl_terms.sum(1) / num_samples
                kl_sums.append(kl_terms.sum(0))
                if draw == 0:
                    modes.append(vae.infer(batch).mode().cpu())
                    observed += float(vae.data.make_kind().count(batch.x).sum())
                on_progress((draw * len(split) + rows.start + len(batch.x)) // num_samples, len(split))
    means = torch.stack(kl_sums).sum(0) / len(split) / num_samples
    return ELBORows(reconstruction, kl, tuple(means.tolist()), torch.cat(modes), observed)


def negative_log_likelihood(
    vae: VAE,
    split: Split,
    *,
    num_samples: int = 5000,
    binarize: Binarize = "none",
    seed: int = 0,
    on_progress: OnProgress = lambda done, total: None,
) -> Mean:
    """Estimates -log p(x) by importance sampling from q(z|x) (Burda et al. 2016, arXiv 1509.00519, equation 8).

    With samples z_k from q(z|x) and weights w_k = p(x|z_k) p(z_k) / q(z_k|x), the estimate is -log of the mean weight.
    Its expectation is above -log p(x). It falls with the number of samples, and with one sample it is -ELBO.

    Args:
        vae: The model, on any device.
        split: The examples.
        num_samples: Samples of z per example. The literature uses 5,000.
        binarize: As in `elbo`. Each example is binarized once.
        seed: Seed of bits and latents.
        on_progress: Called with the number of examples done and the total.

    Raises:
        VaezooError: If `num_samples` is below 1, `binarize` is unknown, q(z|x) has no density, or p(x|z) is a score
            of reconstructions.
        DivergedError: If the model's values are not finite.
    """
    return mean_with_error(
        nll_rows(vae, split, num_samples=num_samples, binarize=binarize, seed=seed, on_progress=on_progress)
    )


def nll_rows(
    vae: VAE,
    split: Split,
    *,
    num_samples: int = 5000,
    binarize: Binarize = "none",
    seed: int = 0,
    common_noise: bool = False,
    on_progress: OnProgress = lambda done, total: None,
) -> Tensor:
    """Estimates -log p(x) of each example, `(N,)`, float64; see `negative_log_likelihood` and `elbo_rows`."""
    check_settings(vae.data, binarize, num_samples)
    device = device_of(vae)
    check_nll(vae, split, device)
    # At most `max_latents` latents are decoded at once: those of several examples, or a chunk of those of one example.
    max_latents = max(1, CHUNK_ELEMENTS // math.prod(vae.data.params_shape))
    batch_size, num_chunks = max(1, max_latents // num_samples), -(-num_samples // max_latents)
    if common_noise:  # each example alone, from the same seed
        batch_size = 1
    compute_weights: Callable[[VAE, Batch, Posterior, int], Tensor] = log_weights
    if len(split) * num_samples >= COMPILE_FROM and next(vae.parameters(), None) is not None:
        compute_weights = Compiled(log_weights, dynamic_shapes=True)
    # The results are written into one tensor. A list of small results between large temporary tensors would fragment
    # the heap: memory then grew by 100 MB over 40 examples.
    nll, done = torch.empty(len(split), dtype=torch.float64), 0
    with eval_mode(vae), isolate_rng(device):
        for number, examples in enumerate(iter_batches(split, binarize, seed, device, common_noise=common_noise)):
            set_seed(derive_seed(seed, "latents", number), device)
            for batch in split_batch(examples, batch_size):
                if common_noise:
                    set_seed(derive_seed(seed, "latents"), device)
                posterior, size = proposal_of(vae.infer(batch)), len(batch.x)
                # log of the sum of the weights so far. It starts at log 0, and chunks are added in log space, because
                # the weights themselves underflow.
                log_sum = torch.full((size,), -math.inf, dtype=torch.float64, device=device)
                for i in range(num_chunks):
                    count = num_samples * (i + 1) // num_chunks - num_samples * i // num_chunks
                    weights = compute_weights(vae, batch, posterior, count).double()
                    log_sum = torch.logaddexp(log_sum, weights.logsumexp(1))
                # -log(sum / K) = log K - log sum
                nll[done : done + size] = math.log(num_samples) - log_sum.cpu()
                done += size
                on_progress(done, len(split))
    return nll


def refuse_score(vae: VAE, quantity: str) -> None:
    """Raises VaezooError if p(x|z) is a score of reconstructions. The model then has no ELBO and no NLL."""
    if isinstance(vae.likelihood, ReconstructionScore):
        raise VaezooError(
            f"likelihood '{vae.data.likelihood}' is a score of reconstructions, so the model has no {quantity}",
            "use 'vaezoo eval' with elbo or reconstructions, or train with another --likelihood",
        )


def check_nll(vae: VAE, split: Split, device: torch.device) -> None:
    """Raises VaezooError if a model has no NLL: p(x|z) is a score, or q(z|x) a point without a density."""
    refuse_score(vae, "NLL")
    with eval_mode(vae), isolate_rng(device):
        batch = map_tensors(split.batch(slice(0, 1)), lambda tensor: tensor.to(device))
        vae(vae.infer(batch), batch, at_sample=True)


def log_weights(vae: VAE, batch: Batch, posterior: Posterior, count: int) -> Tensor:
    """Returns log p(x|z) + log p(z) - log q(z|x) for `count` samples of z per example, `(B, count)`."""
    repeated = repeat(batch, count)
    output: VAEOutput = vae(repeat(posterior, count), repeated, at_sample=True)
    log_prob = bernoulli_log_prob if isinstance(vae.likelihood, Bernoulli) else vae.likelihood.log_prob
    return (log_prob(output.params, repeated.x) - output.kl_terms.sum(1)).view(len(batch.x), count)


def bernoulli_log_prob(logits: Tensor, x: Tensor) -> Tensor:
    """Returns the same as Bernoulli.log_prob, `(B,)`, with one logarithm per 16 pixels.

    For each pixel, log p = x l - max(l, 0) - log(1 + exp(-|l|)) with logit l. The logarithms take two thirds of the
    time. Their sum is the logarithm of a product of factors 1 + exp(-|l|), which lie between 1 and 2. A product of 16
    such factors is at most 2^16. It does not overflow and is as precise as float32.
    """
    logits, x = logits.flatten(1), x.flatten(1)
    # The factors in groups of 16, or of the largest power of two up to 16 that divides the number of pixels.
    factors = (1 + torch.exp(-logits.abs())).view(len(logits), math.gcd(logits.shape[1], LOG_GROUP), -1)
    return (x * logits - logits.clamp(min=0)).sum(1) - reduce(mul, factors.unbind(1)).log().sum(1)


def check_settings(data: DataSpec, binarize: str, num_samples: int) -> None:
    """Raises VaezooError unless there is at least one sample of z and `binarize` is known and possible."""
    whole_number("the number of samples of z for each example", num_samples, 1)
    if binarize not in get_args(Binarize):
        raise VaezooError(f"no binarization named '{binarize}'", f"use one of {', '.join(get_args(Binarize))}")
    if binarize != "none" and (data.kind != "unit" or data.offset):
        what = "that minmax has scaled" if data.offset else f"of kind {data.kind}"
        raise VaezooError(f"data {what} cannot be binarized", "use binarize none")


def elbo_metrics(vae: VAE, split: Split, config: EvalConfig) -> list[Metric]:
    """Returns -ELBO, its terms, bits per dimension and the active units.

    A model with a score of reconstructions has no ELBO and no bits. The score is then returned instead.
    """
    estimate = elbo(vae, split, num_samples=config.elbo_samples, binarize=config.binarize, seed=config.seed)
    times = "once" if config.elbo_samples == 1 else f"{config.elbo_samples} times"
    protocol = f"z drawn {times} for each example; {pixel_protocol(vae, config)}"
    reconstruction, kl, latents = estimate.reconstruction, estimate.kl, math.prod(vae.latent_shape)
    if isinstance(vae.likelihood, ReconstructionScore):
        about = f"{vae.data.likelihood}, a score, not a likelihood, 0 at best; {protocol}"
        metrics = [
            Metric("reconstruction score", reconstruction.value, "", about, reconstruction.error),
            Metric("KL", kl.value, "nats", "KL(q(z|x) || p(z)), which is not part of a bound here", kl.error),
        ]
    else:
        about = protocol if any(estimate.kl_terms) else f"no bound: q(z|x) is a point; {protocol}"
        metrics = [
            Metric("-ELBO", -estimate.elbo.value, "nats", about, estimate.elbo.error),
            Metric("reconstruction", reconstruction.value, "nats", "-log p(x|z), as in -ELBO", reconstruction.error),
            Metric("KL", kl.value, "nats", "KL(q(z|x) || p(z)), as in -ELBO", kl.error),
            Metric("bits per dimension", estimate.bits_per_dim, "bits", "-ELBO / log 2 / values per example"),
        ]
    if estimate.active_units is not None:
        about = f"of {latents}: code varies by more than 0.01"
        metrics.append(Metric(ACTIVE_UNITS, estimate.active_units, "", about))
    return [*metrics, Metric("KL by dimension", estimate.kl_terms, "nats", "terms of KL")]


def nll_metrics(vae: VAE, split: Split, config: EvalConfig, on_progress: OnProgress) -> list[Metric]:
    """Returns the negative log-likelihood, in nats and in bits per dimension."""
    nll = negative_log_likelihood(
        vae,
        split,
        num_samples=config.nll_samples,
        binarize=config.binarize,
        seed=config.seed,
        on_progress=on_progress,
    )
    name = f"NLL-{config.nll_samples}"
    # The estimate is the probability of one draw of bits per example, so "dynamic" is the same as "fixed".
    bits_drawn = config._replace(binarize="none" if config.binarize == "none" else "fixed")
    protocol = f"importance sampling, {config.nll_samples:,} z for each example; {pixel_protocol(vae, bits_drawn)}"
    bits = nll.value / (values_per_example(vae.data, split) * math.log(2))
    return [
        Metric(name, nll.value, "nats", protocol, nll.error),
        Metric(f"{name} per dimension", bits, "bits", f"{name} / log 2 / values per example"),
    ]


def values_per_example(data: DataSpec, split: Split) -> float:
    """Returns how many observed values an example has, the mean over a split."""
    kind, batches = data.make_kind(), iter_batches(split, "none", 0, torch.device("cpu"))
    return sum(float(kind.count(batch.x).sum()) for batch in batches) / len(split)


def pixel_protocol(vae: VAE, config: EvalConfig) -> str:
    """Returns the part of a protocol that describes the pixels."""
    if config.binarize == "fixed":
        return f"one draw of bits with the grey levels as probabilities, seed {config.seed}"
    if config.binarize == "dynamic":
        return f"bits drawn anew for each z, seed {config.seed}"
    if vae.data.offset:
        return f"values scaled by {vae.data.scaling.name}"
    if vae.data.kind != "unit":
        return f"values as they are, of kind {vae.data.kind}"
    grey = vae.data.likelihood == "bernoulli"
    return "grey levels: a cross-entropy, not a likelihood" if grey else "pixels as they are"

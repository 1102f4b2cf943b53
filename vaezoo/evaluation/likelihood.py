"""How probable a VAE finds data, in nats an example: the bound, and the likelihood itself by importance sampling.

z is always drawn from q(z|x); the mean in its place would give a number that looks like the bound and is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import mul
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from vaezoo.core.compile import Compiled
from vaezoo.core.seed import derive_seed, isolate_rng, set_seed
from vaezoo.data.base import Split, to_floats
from vaezoo.errors import DivergedError, VaezooError
from vaezoo.evaluation.metrics import Binarize, EvalConfig, Metric, OnProgress
from vaezoo.evaluation.onnx_vae import OnnxModuleVAE
from vaezoo.likelihoods.bernoulli import Bernoulli
from vaezoo.objectives.elbo import elbo_terms
from vaezoo.posteriors.base import Posterior, active_units
from vaezoo.vae import VAE, device_of, eval_mode

BLOCK = 500  # examples that are seeded together: results do not depend on how much memory there is
CHUNK_ELEMENTS = 1 << 20  # numbers that the decoder puts out at once: more would leave the processor's cache
GROUP = 16  # pixels that share a logarithm
COMPILE_FROM = 1 << 21  # passes through the decoder that pay for compiling it


class Mean(NamedTuple):
    """A mean over the examples.

    Attributes:
        value: The mean.
        error: Its standard error, from the spread of the examples; of one example there is none.
    """

    value: float
    error: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ELBOEstimate:
    """The evidence lower bound and its parts, in nats an example.

    Attributes:
        elbo: E_q[log p(x|z)] - KL(q(z|x) || p(z)).
        reconstruction: -E_q[log p(x|z)].
        kl: The KL.
        kl_by_part: The KL in the parts that add up to it, by latent dimension where a closed form exists.
        active_units: Latent dimensions whose code varies by more than 0.01 over the examples.
        bits_per_dim: -ELBO in bits for each number of an example.
    """

    elbo: Mean
    reconstruction: Mean
    kl: Mean
    kl_by_part: tuple[float, ...]
    active_units: int
    bits_per_dim: float


def elbo(vae: VAE, part: Split, *, num_samples: int = 10, binarize: Binarize = "none", seed: int = 0) -> ELBOEstimate:
    """Estimates the evidence lower bound.

    Args:
        vae: The model, on any device.
        part: The examples.
        num_samples: How often z is drawn for each example.
        binarize: "none": the pixels as they are, which with a Bernoulli likelihood is the grey-level cross-entropy, no
            likelihood. "fixed": one draw of bits with the grey levels as probabilities. "dynamic": another for each
            draw of z.
        seed: Determines bits and latents.

    Raises:
        VaezooError: If `num_samples` is below 1 or `binarize` is none of these.
        DivergedError: If the model gives values that are not finite.
    """
    check(binarize, num_samples)
    device = device_of(vae)
    reconstruction, kl = torch.zeros((2, len(part)), dtype=torch.float64)
    by_part: list[Tensor] = []
    codes: list[Tensor] = []
    with eval_mode(vae), isolate_rng(device):
        for draw in range(num_samples):
            for number, x in enumerate(
                iter_batches(part, binarize, seed, device, draw if binarize == "dynamic" else 0)
            ):
                set_seed(derive_seed(seed, "latents", draw * len(part) + number), device)
                result = elbo_terms(vae, x)
                place, terms = slice(number * BLOCK, number * BLOCK + len(x)), result.kl_terms.double().cpu()
                reconstruction[place] += result.reconstruction.double().cpu() / num_samples
                kl[place] += terms.sum(1) / num_samples
                by_part.append(terms.sum(0))
                if draw == 0:
                    codes.append(vae.encode(x).mode().cpu())
    elbo = mean(-reconstruction - kl)
    return ELBOEstimate(
        elbo=elbo,
        reconstruction=mean(reconstruction),
        kl=mean(kl),
        kl_by_part=tuple((torch.stack(by_part).sum(0) / len(part) / num_samples).tolist()),
        active_units=active_units(torch.cat(codes)),
        bits_per_dim=-elbo.value / (vae.data.dims * math.log(2)),
    )


def negative_log_likelihood(
    vae: VAE,
    part: Split,
    *,
    samples: int = 5000,
    binarize: Binarize = "none",
    seed: int = 0,
    on_progress: OnProgress = lambda done, total: None,
) -> Mean:
    """Estimates -log p(x) by importance sampling from q(z|x) (Burda et al. 2016, arXiv 1509.00519, equation 8).

    The estimate falls with the number of samples, and is above -log p(x) on average; one sample gives -ELBO.

    Args:
        vae: The model, on any device.
        part: The examples.
        samples: Latents drawn for each example; the literature takes 5,000.
        binarize: As in `elbo`; each example is binarized once.
        seed: Determines bits and latents.
        on_progress: Called with the examples done, and all.

    Raises:
        VaezooError: If `samples` is below 1, `binarize` is no such way, or q(z|x) has no density.
        DivergedError: If the model gives values that are not finite.
    """
    check(binarize, samples)
    device = device_of(vae)
    check_density(vae, part, device)
    rows = max(1, CHUNK_ELEMENTS // vae.data.dims)
    together, parts = max(1, rows // samples), -(-samples // rows)
    weigh: Callable[[VAE, Tensor, Posterior, int], Tensor] = log_weights
    if len(part) * samples >= COMPILE_FROM and not isinstance(vae, OnnxModuleVAE):
        weigh = Compiled(log_weights, any_shape=True)
    # One tensor for all: small ones that stay, among large ones that go, would keep the heap from using these again.
    found, done = torch.empty(len(part), dtype=torch.float64), 0
    with eval_mode(vae), isolate_rng(device):
        for number, block in enumerate(iter_batches(part, binarize, seed, device)):
            set_seed(derive_seed(seed, "latents", number), device)
            for x in torch.split(block, together):
                posterior = vae.encode(x)
                total = torch.full((len(x),), -math.inf, dtype=torch.float64, device=device)
                for i in range(parts):
                    count = samples * (i + 1) // parts - samples * i // parts
                    weights = weigh(vae, x, posterior, count).double()
                    total = torch.logaddexp(total, weights.logsumexp(1))
                found[done : done + len(x)] = math.log(samples) - total.cpu()
                done += len(x)
                on_progress(done, len(part))
    return mean(found)


def check_density(vae: VAE, part: Split, device: torch.device) -> None:
    """Raises VaezooError if q(z|x) has no density: a point, which an autoencoder's codes are."""
    with eval_mode(vae):
        posterior = vae.encode(to_floats(part.gather(slice(0, 1)).x).to(device))
        posterior.log_prob(posterior.mode())


def log_weights(vae: VAE, x: Tensor, posterior: Posterior, count: int) -> Tensor:
    """Returns log p(x|z) + log p(z) - log q(z|x) for `count` draws of z for each example, `(B, count)`."""
    repeated = type(posterior)(*(field.repeat_interleave(count, 0) for field in posterior))  # type: ignore[attr-defined]
    z = repeated.rsample()
    params, x_again = vae.decode(z), x.repeat_interleave(count, 0)
    log_prob = bernoulli_log_prob if isinstance(vae.likelihood, Bernoulli) else vae.likelihood.log_prob
    return (log_prob(params, x_again) + vae.prior.log_prob(z) - repeated.log_prob(z)).view(len(x), count)


def bernoulli_log_prob(logits: Tensor, x: Tensor) -> Tensor:
    """Returns what Bernoulli.log_prob does, `(B,)`, with one logarithm for the product of several pixels.

    log p = x l - max(l, 0) - log(1 + exp(-|l|)), and the logarithms take two thirds of its time. A product of GROUP
    numbers from 1 to 2 is as exact as float32 is, and far from its end.
    """
    logits, x = logits.flatten(1), x.flatten(1)
    over = (1 + torch.exp(-logits.abs())).view(len(logits), math.gcd(logits.shape[1], GROUP), -1)
    return (x * logits - logits.clamp(min=0)).sum(1) - reduce(mul, over.unbind(1)).log().sum(1)


def iter_batches(part: Split, binarize: Binarize, seed: int, device: torch.device, draw: int = 0) -> Iterator[Tensor]:
    """Yields the examples, a block at a time, as the protocol wants them: `(B, *shape)`, floats on the device."""
    for number, start in enumerate(range(0, len(part), BLOCK)):
        x = to_floats(part.gather(slice(start, start + BLOCK)).x)
        if binarize != "none":
            generator = torch.Generator().manual_seed(derive_seed(seed, "bits", draw * len(part) + number))
            x = (torch.rand(x.shape, generator=generator) < x.cpu()).float()  # the same on each device
        yield x.to(device)


def mean(values: Tensor) -> Mean:
    """Returns the mean of the examples' values, `(N,)`, with its standard error.

    Raises:
        DivergedError: If one is not finite.
    """
    check_finite(values)
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else None
    return Mean(values.mean().item(), error)


def check_finite(values: Tensor) -> None:
    """Raises DivergedError unless all numbers of all examples, `(N, ...)`, are finite."""
    if bad := int((~values.reshape(len(values), -1).isfinite().all(1)).sum()):
        raise DivergedError(
            f"the model gives no finite number for {bad:,} of {len(values):,} examples", "take another checkpoint"
        )


def check(binarize: str, latents: int) -> None:
    """Raises VaezooError unless there are latents for an example and `binarize` is a way to do so."""
    if latents < 1:
        raise VaezooError(f"{latents} latents for each example are none", "give at least 1")
    if binarize not in get_args(Binarize):
        raise VaezooError(f"no way to binarize named '{binarize}'", f"use one of {', '.join(get_args(Binarize))}")


def elbo_metrics(vae: VAE, part: Split, config: EvalConfig) -> list[Metric]:
    """The bound and what it consists of."""
    found = elbo(vae, part, num_samples=config.elbo_samples, binarize=config.binarize, seed=config.seed)
    times = "once" if config.elbo_samples == 1 else f"{config.elbo_samples} times"
    protocol = f"z drawn {times} for each example; {pixels(vae, config)}"
    reconstruction, kl, latents = found.reconstruction, found.kl, math.prod(vae.latent_shape)
    return [
        Metric("-ELBO", -found.elbo.value, "nats", protocol, found.elbo.error),
        Metric("reconstruction", reconstruction.value, "nats", "-log p(x|z), as in -ELBO", reconstruction.error),
        Metric("KL", kl.value, "nats", "KL(q(z|x) || p(z)), as in -ELBO", kl.error),
        Metric("bits per dimension", found.bits_per_dim, "bits", "-ELBO / log 2 / numbers in an example"),
        Metric("active units", found.active_units, "", f"of {latents}: code varies by more than 0.01"),
        Metric("KL by dimension", found.kl_by_part, "nats", "parts of KL"),
    ]


def nll_metrics(vae: VAE, part: Split, config: EvalConfig, on_progress: OnProgress) -> list[Metric]:
    """The negative log-likelihood."""
    found = negative_log_likelihood(
        vae,
        part,
        samples=config.nll_samples,
        binarize=config.binarize,
        seed=config.seed,
        on_progress=on_progress,
    )
    name = f"NLL-{config.nll_samples}"
    # Each example is binarized once, anew or not: it is the probability of those bits that is found.
    bits_drawn = config._replace(binarize="none" if config.binarize == "none" else "fixed")
    protocol = f"importance sampling, {config.nll_samples:,} z for each example; {pixels(vae, bits_drawn)}"
    bits = found.value / (vae.data.dims * math.log(2))
    return [
        Metric(name, found.value, "nats", protocol, found.error),
        Metric(f"{name} per dimension", bits, "bits", f"{name} / log 2 / numbers in an example"),
    ]


def pixels(vae: VAE, config: EvalConfig) -> str:
    """Says what the pixels are that a likelihood is computed of."""
    if config.binarize == "fixed":
        return f"one draw of bits with the grey levels as probabilities, seed {config.seed}"
    if config.binarize == "dynamic":
        return f"bits drawn anew for each z, seed {config.seed}"
    grey = vae.data.likelihood == "bernoulli"
    return "grey levels: a cross-entropy, no likelihood" if grey else "pixels as they are"

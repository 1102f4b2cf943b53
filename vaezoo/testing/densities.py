"""Checks of q(z|x) and p(z): draws come from the densities, and the KL and the bound are made of the same densities."""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import itemgetter
from typing import Any, NamedTuple
from unittest import SkipTest

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vaezoo.data.base import Batch, given
from vaezoo.errors import VaezooError
from vaezoo.objectives.base import StepContext
from vaezoo.objectives.elbo import elbo_terms
from vaezoo.objectives.iwae import IWAE
from vaezoo.posteriors.base import Posterior, draw, map_tensors, repeat
from vaezoo.testing.examples import BATCH_SIZE, Spec, build_example
from vaezoo.testing.statistics import (
    MAX_ERRORS,
    deviation,
    on_sphere,
    score_deviation,
    sphere_deviation,
    weights_of_gaussian,
    weights_on_sphere,
)
from vaezoo.vae import VAE, blank_batch, is_standard_normal, sample_prior

DRAWS = 800  # of z for each example
MAX_JACOBIAN = 512  # latent dimensions whose Jacobian is computed, with a backward pass for each
FORWARD_DRAWS = 50  # the same, where each takes a pass of the decoder


class Draws(NamedTuple):
    """DRAWS draws from q(z|x) of one example.

    Attributes:
        posterior: q(z|x), one row.
        repeated: The same row for each draw.
        batch: The example for each draw.
        z: The draws, `(DRAWS, *latent_shape)`.
        log_q: log q(z|x), `(DRAWS,)`.
    """

    posterior: Posterior
    repeated: Posterior
    batch: Batch
    z: Tensor
    log_q: Tensor


def draw_latents(vae: VAE, batch: Batch, i: int) -> Draws:
    """Draws from q(z|x) of example i of a batch.

    Raises:
        SkipTest: If there is no density, or z are codes.
    """
    row = map_tensors(batch, itemgetter(slice(i, i + 1)))
    posterior = vae.infer(row)
    repeated = repeat(posterior, DRAWS)
    try:
        z, log_q = draw(repeated, density=True)
    except VaezooError as e:
        raise SkipTest(f"q(z|x) has no density: {e.message}") from e
    if not z.is_floating_point():
        raise SkipTest("z are codes")
    assert log_q is not None
    return Draws(posterior, repeated, repeat(row, DRAWS), z, log_q)


def has_log_prob(posterior: Posterior, z: Tensor) -> bool:
    """Tells whether log q(z|x) is known at any z."""
    try:
        posterior.log_prob(z)
    except VaezooError:
        return False
    return True


def check_posterior(spec: Spec) -> None:
    """Draws of q(z|x) are distributed as its log_prob says, and their density is the one that comes with them."""
    vae, _, batch = build_example(spec)
    vae.eval()
    for i in range(BATCH_SIZE):
        with torch.no_grad():
            posterior, repeated, _, z, log_q = draw_latents(vae, batch, i)
            check_declared_density(spec, repeated, z)
            everywhere = has_log_prob(repeated, z)
            again = repeated.log_prob(z) if everywhere else log_q
        difference = float((log_q - again).abs().max())
        what = f"log q differs by {difference:.2g} between rsample_and_log_prob and log_prob"
        limit = 1e-3 * (1 + float(again.abs().max()))
        assert difference < limit, f"{what}. Check the determinant of each step of a flow."
        is_tested = check_density("posterior", z, log_q, repeat(posterior, DRAWS // 2).log_prob if everywhere else None)
        is_exact = check_change_of_variables(repeat(posterior, 4))
        if not (everywhere or is_exact or is_tested):
            raise SkipTest("log q is known of draws only, which come neither from torch.randn nor near a Gaussian")


class NoiseRecorder(TorchFunctionMode):
    """Keeps the standard normal noise that is drawn inside the block, so that gradients reach it."""

    def __init__(self) -> None:
        super().__init__()
        self.noise: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.randn, torch.randn_like):
            self.noise.append(result.requires_grad_())
        return result


def check_change_of_variables(posterior: Posterior) -> bool:
    """Raises AssertionError unless log q(z|x) = log N(e; 0, 1) - log |det dz/de| for the noise e that becomes z.

    Returns:
        Whether z is a smooth function of as many numbers of noise, so that this could be tested.
    """
    with torch.enable_grad(), NoiseRecorder() as recorder:
        z, log_q = draw(posterior, density=True)
    assert log_q is not None
    noise, z = recorder.noise, z.flatten(1)
    n = z.shape[1]
    if sum(e[0].numel() for e in noise if len(e) == len(z)) != n or n > MAX_JACOBIAN or not z.requires_grad:
        return False
    rows = [torch.autograd.grad(column.sum(), noise, retain_graph=True, materialize_grads=True) for column in z.T]
    jacobian = torch.stack([torch.cat([g.flatten(1) for g in row], 1) for row in rows], 1)  # (B, n, n)
    flat = torch.cat([e.detach().flatten(1) for e in noise], 1).double()
    log_det = torch.linalg.slogdet(jacobian.double()).logabsdet
    expected = -0.5 * (flat.square() + math.log(2 * math.pi)).sum(1) - log_det
    difference = float((log_q.detach() - expected).abs().max())
    what = f"log q(z|x) of draws differs by {difference:.2g} nats from the change of variables from noise to z"
    limit = 1e-3 * (1 + float(expected.abs().max()))
    assert difference < limit, f"{what}. Check the constants, and the determinant of each step of a flow."
    return True


def check_declared_density(spec: Spec, posterior: Posterior, z: Tensor) -> None:
    """Raises AssertionError if a part of a composed model declares another density than its posterior has."""
    declared = getattr(getattr(spec.config, "posterior", None), "density", None)
    if declared == "everywhere":
        what = "the part declares density = 'everywhere', but log_prob(z) raises VaezooError"
        assert has_log_prob(posterior, z), f"{what}. Declare 'of draws', or implement log_prob."


def second_half(tensor: Tensor) -> Tensor:
    """Returns the second half of the rows of a tensor."""
    return tensor.chunk(2)[1]


def check_prior(spec: Spec) -> None:
    """Latents that the prior draws are distributed as its log_prob says."""
    vae, _, batch = build_example(spec)
    vae.eval()
    prior, rows = vae.prior, repeat(map_tensors(batch, itemgetter(slice(1))), 2 * DRAWS)
    if prior.sample_inputs != prior.inputs:  # the density is that of any label, so each label comes as often
        rows = blank_batch(vae, 2 * DRAWS)
    conditions = given(prior.inputs, rows)
    with torch.no_grad():
        draws = {"prior.sample(n)": sample_prior(vae, rows)}
        if prior.noise_shape is not None and not is_standard_normal(prior):
            noise = torch.randn(2 * DRAWS, *prior.noise_shape)
            draws["prior.from_noise(noise)"] = prior.from_noise(noise, *given(prior.sample_inputs, rows))
    if not draws["prior.sample(n)"].is_floating_point():
        raise SkipTest("z are codes")
    half = tuple(map(second_half, conditions))
    for name, z in draws.items():
        with torch.no_grad():
            log_p = prior.log_prob(z, *conditions)
        check_density(name, z, log_p, lambda z: prior.log_prob(z, *half))


def check_density(name: str, z: Tensor, log_p: Tensor, log_prob: Callable[[Tensor], Tensor] | None) -> bool:
    """Raises AssertionError unless draws come from a density; see `vaezoo.testing.statistics`.

    Returns whether the constant of the density could be tested.

    Args:
        name: What drew them.
        z: The draws, `(N, *latent_shape)`.
        log_p: Their log-density, `(N,)`.
        log_prob: Returns the log-density of the second half at other z. None: it is known of draws only.
    """
    is_sphere = on_sphere(z)
    if log_prob is not None:
        errors = (sphere_deviation if is_sphere else score_deviation)(z, log_prob)
        what = f"the moments of draws of {name} are {errors:.0f} standard errors from those that log_prob implies"
        assert errors < MAX_ERRORS, f"{what}. Compare mean and scale of the draws with those of log_prob."
    weights = (weights_on_sphere if is_sphere else weights_of_gaussian)(z, log_p)
    if weights is not None:
        errors = deviation(weights - 1, slack=0.02)
        what = f"the density of {name} integrates to about {1 / float(weights.mean()):.3g} instead of 1"
        assert errors < MAX_ERRORS, f"{what}. Check the constants of log_prob."
    return weights is not None


def check_kl(spec: Spec) -> None:
    """A closed form of the KL equals the mean of its estimate log q(z|x) - log p(z) over samples z."""
    vae, _, batch = build_example(spec)
    vae.eval()
    with torch.no_grad():
        pairs = [kl_pairs(vae, batch, i) for i in range(BATCH_SIZE)]
    if all(torch.equal(closed, estimate) for closed, estimate in pairs):
        raise SkipTest("the KL has no closed form: it is estimated at z")
    for i, (closed, estimate) in enumerate(pairs):
        errors = deviation(estimate - closed, slack=1e-4 * (1 + float(closed.abs().max())))
        means = f"kl_terms add up to {float(closed.mean()):.4g} nats, the estimate to {float(estimate.mean()):.4g}"
        what = f"{means}, {errors:.0f} standard errors away, in example {i}"
        assert errors < MAX_ERRORS, f"{what}. Check the closed form in kl_terms."


def kl_pairs(vae: VAE, batch: Batch, i: int) -> tuple[Tensor, Tensor]:
    """Returns the KL of example i as kl_terms give it, and its estimates, at the same draws, `(K,)` each."""
    if type(vae).forward is VAE.forward:
        posterior, repeated, rows, z, log_q = draw_latents(vae, batch, i)
        if hasattr(posterior, "rsample_and_log_prob"):
            raise SkipTest("the KL has no closed form: the density comes with z")
        conditions = given(vae.prior.inputs, rows)
        return vae.prior.kl(repeated, z, *conditions), log_q - vae.prior.log_prob(z, *conditions)
    rows = repeat(map_tensors(batch, itemgetter(slice(i, i + 1))), FORWARD_DRAWS)
    pair = []
    for at_sample in (False, True):
        torch.manual_seed(i)
        try:
            output = vae(vae.infer(rows), rows, at_sample=at_sample)
        except VaezooError as e:
            raise SkipTest(f"q(z|x) has no density: {e.message}") from e
        pair.append(output.kl_terms.sum(1))
    return pair[0], pair[1]


def check_bound(spec: Spec) -> None:
    """With one sample the importance-weighted bound is the ELBO at the same z, log p(x|z) + log p(z) - log q(z|x)."""
    vae, _, batch = build_example(spec)
    vae.eval()
    with torch.no_grad():
        torch.manual_seed(0)
        try:
            terms = elbo_terms(vae, batch, at_sample=True)
        except VaezooError as e:
            raise SkipTest(f"q(z|x) has no density: {e.message}") from e
        torch.manual_seed(0)
        iwae = IWAE(k=1)(vae, batch, StepContext.initial()).losses["vae"]
        if terms.auxiliary_loss is not None:
            iwae = iwae - terms.auxiliary_loss.mean()
        try:
            log_q = log_density_of(vae, batch, terms.z)
        except VaezooError as e:
            what = "q(z|x) has no density, so forward(at_sample=True) must raise VaezooError"
            raise AssertionError(f"{what}. Call posterior.log_prob(z) there, which raises it.") from e
        log_p = vae.prior.log_prob(terms.z, *given(vae.prior.inputs, batch))
    elbo = -(terms.reconstruction + terms.kl_terms.sum(1))
    difference = float((iwae + elbo.mean()).abs())
    limit = 1e-4 * (1 + float(elbo.abs().max()))
    assert difference < limit, f"IWAE with one sample differs from the ELBO by {difference:.2g} nats at the same z"
    if log_q is None:
        return
    difference = float((terms.kl_terms.sum(1) - (log_q - log_p)).abs().max())
    advice = "With at_sample=True, forward must not use a closed form."
    what = f"the parts of the KL differ by {difference:.2g} nats from log q(z|x) - log p(z)"
    assert difference < 1e-4 * (1 + float(log_q.abs().max())), f"{what} at the sample. {advice}"


def log_density_of(vae: VAE, batch: Batch, z: Tensor) -> Tensor | None:
    """Returns log q(z|x) at z, `(B,)`, without the model's forward. None: only the model itself knows it."""
    torch.manual_seed(0)
    posterior = vae.infer(batch)
    if not hasattr(posterior, "rsample_and_log_prob"):
        return posterior.log_prob(z)
    again, log_q = draw(posterior, density=True)
    return log_q if torch.equal(again, z) else None
